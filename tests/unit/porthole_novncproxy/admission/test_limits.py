# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_common import errors
from porthole_novncproxy.admission.limits import Limits, SessionCounter
from support.cases import naming

WIDE = {"total": 100, "per_source": 100, "per_token": 100, "per_instance": 100, "per_user": 100}


def counter(**limits):
    return SessionCounter(Limits(**{**WIDE, **limits}))


def reserve(counted, number, same):
    """Count the session ``number``; it shares only the keys in ``same`` with the other sessions."""
    own = {"source": f"s{number}", "token": f"t{number}", "instance_uuid": f"i{number}", "user_id": f"u{number}"}
    return counted.reserve(**{**own, **same})


def test_one_more_than_each_limit_is_refused_and_one_that_ends_makes_room():
    """In all, per source, per token, per instance, per user (S10)."""
    cases = [
        ("total", "max_sessions", {}),
        ("per_source", "max_sessions_per_source", {"source": "s"}),
        ("per_token", "max_sessions_per_token", {"token": "t"}),
        ("per_instance", "max_sessions_per_instance", {"instance_uuid": "i"}),
        ("per_user", "max_sessions_per_user", {"user_id": "u"}),
    ]
    for limit, option, same in cases:
        with naming(limit, option, same):
            counted = counter(**{limit: 3})
            releases = [reserve(counted, number, same) for number in range(3)]
            with pytest.raises(errors.LimitReached) as caught:
                reserve(counted, 3, same)
            assert caught.value.limit == f"[novncproxy] {option}"
            assert counted.total == 3
            releases[1]()
            reserve(counted, 4, same)


def test_a_limit_counts_only_those_that_share_what_it_is_about():
    for limit in ("per_source", "per_token", "per_instance", "per_user"):
        with naming(limit):
            counted = counter(**{limit: 1})
            for number in range(50):
                reserve(counted, number, {})
            assert counted.total == 50


def test_a_source_is_an_ipv4_address_or_a_64_of_ipv6():
    """A client has a /64 for itself: a bound of each address in it would be none."""
    counted = counter(per_source=2)
    for address in ("2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"):
        reserve(counted, address, {"source": address})
    with pytest.raises(errors.LimitReached):
        reserve(counted, 5, {"source": "2001:db8::3"})
    reserve(counted, 6, {"source": "2001:db8:0:1::1"})
    reserve(counted, 7, {"source": "192.0.2.1"})


def test_users_who_are_not_known_share_no_count_and_no_limit_is_none():
    """An earlier consoleauth names nobody, and the option is 0 as it comes."""
    for counted, user in ((counter(per_user=1), None), (counter(per_user=None), "u")):
        with naming(user):
            releases = [reserve(counted, number, {"user_id": user}) for number in range(5)]
            for release in releases:
                release()
            assert not counted._counts


def test_a_release_counts_once():
    counted = counter(total=2)
    release = counted.reserve("s", "t", "i")
    counted.reserve("s", "t", "i")
    release()
    release()
    assert counted.total == 1


def test_a_refusal_counts_nothing():
    counted = counter(per_instance=1)
    counted.reserve("s", "t", "i")
    for number in range(10):
        with pytest.raises(errors.LimitReached):
            counted.reserve(f"s{number}", f"t{number}", "i")
    assert counted.total == 1
    assert len(counted._counts) == 4


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("tu"), st.sampled_from("ij")), max_size=30))
def test_when_all_have_ended_nothing_is_held(keys):
    counted = counter(per_token=3, per_source=5)
    releases = []
    for key in keys:
        try:
            releases.append(counted.reserve(*key))
        except errors.LimitReached:
            continue
    assert counted.total == len(releases)
    for release in releases:
        release()
    assert counted.total == 0
    assert not counted._counts


def test_no_token_is_held_in_clear():
    counted = counter()
    counted.reserve("s", "6f9c7a5e-1b6e-4f0e-9a57-2d6d1f3b8c11", "i")
    assert "6f9c7a5e" not in repr(counted._counts)

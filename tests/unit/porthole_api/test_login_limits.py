# SPDX-License-Identifier: Apache-2.0
"""What a check costs, what counts as one source, and that neither memory nor hashes give anything away."""

import contextlib

from porthole_api.login_limits import (
    KNOWN_S,
    MAX_KNOWN,
    SOURCE_BURST,
    Attempt,
    LoginLimits,
)
from porthole_common.allowance import SITE_TIMES
from support.api import FakeClock
from support.cases import naming


def attempt(limits: LoginLimits, address: str = "192.0.2.1", user: str = "rita", password: bytes = b"p") -> Attempt:
    return limits.build_attempt(address, user, "digest", password)


def use_up(limits: LoginLimits, address: str) -> None:
    while limits.begin(attempt(limits, address)) == 0:
        pass


def test_one_source_is_an_ipv4_address_or_a_network_of_ipv6() -> None:
    same = [("192.0.2.1", "::ffff:192.0.2.1"), ("2001:db8::1", "2001:db8::ffff:1"), ("fe80::1%eth0", "fe80::2")]
    others = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8:0:1::1"), ("", "192.0.2.1"), ("x", "y")]
    for pairs, is_same in ((same, True), (others, False)):
        for one, other in pairs:
            with naming(one, other):
                limits = LoginLimits(FakeClock(), 5)
                use_up(limits, one)
                assert (limits.begin(limits.build_attempt(other, "bert", "", b"")) > 0) is is_same


def test_the_networks_of_a_site_are_bounded_together() -> None:
    """Of a /48 every /64 had its own guesses."""
    limits = LoginLimits(FakeClock(), 5)
    checked = sum(
        limits.begin(limits.build_attempt(f"2001:db8:0:{number:x}::1", f"user{number}", "", b"")) == 0
        for number in range(1000)
    )
    assert checked == SITE_TIMES * SOURCE_BURST
    assert limits.begin(limits.build_attempt("2001:db8:1::1", "bert", "", b"")) == 0


def test_the_networks_of_a_site_do_not_hold_all_checks() -> None:
    limits = LoginLimits(FakeClock(), 4)
    with contextlib.ExitStack() as stack:
        under_way = [
            stack.enter_context(limits.checking(attempt(limits, f"2001:db8:0:{number}::1"))) for number in range(4)
        ]
        assert under_way == [True, True, False, False]
        assert stack.enter_context(limits.checking(attempt(limits)))
    assert not limits._checking


def test_a_right_password_is_paid_back() -> None:
    limits = LoginLimits(FakeClock(), 5)
    for number in range(10 * SOURCE_BURST):
        this = attempt(limits, password=str(number).encode())
        assert limits.begin(this) == 0
        limits.note_right(this)
        assert limits.is_known(this)


def test_what_is_known_is_one_password_of_one_user_for_a_time() -> None:
    clock = FakeClock()
    limits = LoginLimits(clock, 5)
    limits.note_right(attempt(limits))
    assert limits.is_known(attempt(limits, address="192.0.2.9"))
    for other in (attempt(limits, user="rit", password=b"ap"), attempt(limits, password=b"q")):
        assert not limits.is_known(other)
    assert not limits.is_known(limits.build_attempt("192.0.2.1", "rita", "another digest", b"p"))
    clock.now_s += KNOWN_S
    assert not limits.is_known(attempt(limits))


def test_the_memory_is_bounded_and_the_last_used_stay() -> None:
    limits = LoginLimits(FakeClock(), 5)
    limits.note_right(attempt(limits))
    for number in range(MAX_KNOWN):
        assert limits.is_known(attempt(limits))
        limits.note_right(attempt(limits, user=f"user{number}"))
    assert len(limits._known) == MAX_KNOWN


def test_guesses_push_no_right_password_out_and_fill_no_memory() -> None:
    limits = LoginLimits(FakeClock(), 5)
    limits.note_right(attempt(limits))
    for number in range(2 * MAX_KNOWN):
        limits.note_wrong(attempt(limits, password=str(number).encode()))
    assert len(limits._wrong) == MAX_KNOWN
    assert limits.is_known(attempt(limits))


def test_no_password_is_in_the_memory() -> None:
    limits, others = LoginLimits(FakeClock(), 5), LoginLimits(FakeClock(), 5)
    this = attempt(limits, password=b"s3cret-password")
    limits.begin(this)
    limits.note_right(this)
    assert b"s3cret" not in repr(vars(limits)).encode()
    # The key is the process's own: a hash is worth nothing elsewhere.
    assert this != attempt(others, password=b"s3cret-password")

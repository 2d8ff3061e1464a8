# SPDX-License-Identifier: Apache-2.0
"""From where a user is known, for how long, and how much is remembered."""

from porthole_api.known_sources import KEPT_S, MAX_SOURCES, MAX_USERS, KnownSources
from support.api import FakeClock


def test_a_source_is_known_for_one_user_for_a_time() -> None:
    clock = FakeClock()
    known = KnownSources(clock)
    known.add(b"rita", b"home")
    assert known.has(b"rita", b"home")
    assert not known.has(b"rita", b"elsewhere")
    assert not known.has(b"bert", b"home")
    clock.now_s += KEPT_S
    assert not known.has(b"rita", b"home")


def test_a_user_with_many_sources_pushes_out_none_of_another_user() -> None:
    known = KnownSources(FakeClock())
    known.add(b"rita", b"home")
    for number in range(10 * MAX_SOURCES):
        known.add(b"bert", b"first")
        known.add(b"bert", b"%d" % number)
    assert known.has(b"rita", b"home")
    assert known.has(b"bert", b"first")
    assert not known.has(b"bert", b"0")
    assert len(known._sources[b"bert"]) == MAX_SOURCES


def test_the_memory_is_bounded() -> None:
    known = KnownSources(FakeClock())
    for number in range(MAX_USERS + 10):
        known.add(b"first", b"home")
        known.add(b"%d" % number, b"home")
    assert len(known._sources) == MAX_USERS
    assert known.has(b"first", b"home")

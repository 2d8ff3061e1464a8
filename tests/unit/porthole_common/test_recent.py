# SPDX-License-Identifier: Apache-2.0
import pytest

from porthole_common.recent import Recent
from support.api import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_key_is_remembered_for_its_time(clock: FakeClock) -> None:
    recent = Recent[str](clock, 5.0, 3)
    assert not recent.has("a")
    recent.add("a")
    clock.now_s += 4.9
    assert recent.has("a")
    clock.now_s += 0.1
    assert not recent.has("a")


def test_a_key_that_is_added_again_is_remembered_from_then_on(clock: FakeClock) -> None:
    recent = Recent[str](clock, 5.0, 3)
    recent.add("a")
    clock.now_s += 4.0
    recent.add("a")
    clock.now_s += 4.0
    assert recent.has("a")
    assert len(recent) == 1


def test_a_touched_key_has_no_more_time(clock: FakeClock) -> None:
    recent = Recent[str](clock, 5.0, 3)
    recent.add("a")
    clock.now_s += 4.0
    recent.touch("a")
    clock.now_s += 1.0
    assert not recent.has("a")


def test_the_first_one_makes_room(clock: FakeClock) -> None:
    recent = Recent[str](clock, 5.0, 3)
    for key in ("a", "b", "c"):
        recent.add(key)
    recent.add("a")
    recent.touch("b")
    recent.add("d")
    assert [key for key in ("a", "b", "c", "d") if recent.has(key)] == ["a", "b", "d"]
    assert len(recent) == 3


def test_nothing_is_known_of_a_key_that_was_discarded_or_never_added(clock: FakeClock) -> None:
    recent = Recent[str](clock, 5.0, 3)
    recent.add("a")
    recent.discard("a")
    recent.discard("b")
    recent.touch("b")
    assert not recent.has("a")
    assert not recent.has("b")
    assert not len(recent)

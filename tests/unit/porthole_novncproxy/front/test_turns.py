# SPDX-License-Identifier: Apache-2.0
import itertools

from hypothesis import given
from hypothesis import strategies as st

from porthole_novncproxy.front.turns import Turns


def take_all(turns):
    return list(itertools.takewhile(lambda item: item is not None, iter(turns.take, object())))


def test_a_source_waits_for_one_item_of_each_other_source():
    turns = Turns()
    for number in range(50):
        turns.add("flood", f"flood {number}")
    for source in ("one", "two"):
        turns.add(source, source)
    taken = take_all(turns)
    assert taken[:3] == ["flood 0", "one", "two"]
    assert taken[3:] == [f"flood {number}" for number in range(1, 50)]
    assert not turns


def test_an_item_is_removed_once():
    turns = Turns()
    turns.add("one", 1)
    turns.add("one", 2)
    assert turns.remove("one", 1)
    assert not turns.remove("one", 1)
    assert not turns.remove("two", 2)
    assert take_all(turns) == [2]
    turns.add("one", 3)
    assert turns.remove("one", 3)
    assert not turns


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9))))
def test_every_item_is_taken_once_and_those_of_a_source_in_their_order(items):
    turns = Turns()
    for item in items:
        turns.add(item[0], item)
    taken = take_all(turns)
    for source in "abc":
        assert [item for item in taken if item[0] == source] == [item for item in items if item[0] == source]

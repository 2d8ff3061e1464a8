# SPDX-License-Identifier: Apache-2.0
"""Who leaves for a new connection: of the own source first, never one that is being answered."""

import itertools
from dataclasses import dataclass

import pytest

from porthole_api.http_crowd import (
    KEPT_BACK,
    MAX_CONNECTIONS,
    MAX_PER_SOURCE,
    MAX_WAITING_PER_SOURCE,
    Room,
    find_leaving,
    find_limit,
    find_room,
)


@dataclass(frozen=True)
class Connection:
    source: str
    moved_at_s: float
    waits: bool = True

    @property
    def site(self) -> str:
        return self.source.partition("/")[0]


def build(counts: dict[str, int], waits: bool = True) -> list[Connection]:
    clock = itertools.count(1.0)
    return [Connection(source, next(clock), waits) for source, count in counts.items() for _ in range(count)]


def test_there_is_room() -> None:
    assert find_room(build({}), "a") == Room()
    assert find_room(build({"a": MAX_WAITING_PER_SOURCE - 1, "b": MAX_WAITING_PER_SOURCE}), "a") == Room()
    assert find_room(build({"a": MAX_PER_SOURCE - 1}, waits=False), "a") == Room()


def test_the_oldest_of_a_source_leaves_for_its_next() -> None:
    mine = build({"a": MAX_WAITING_PER_SOURCE})
    others = [Connection("b", 0.0)]
    assert find_room(others + mine, "a") == Room(mine[0], of_source=True)
    assert find_room(others + mine, "b") == Room()


def test_a_source_whose_requests_are_all_being_answered_is_full() -> None:
    busy = build({"a": MAX_PER_SOURCE}, waits=False)
    assert find_room(busy, "a") == Room(is_full=True, of_source=True)
    assert find_room(busy, "b") == Room()


def test_one_that_was_refused_leaves_for_the_next_to_be_refused() -> None:
    """It is one more than there may be, and makes no room."""
    refused = Connection("a", 9000.0)
    assert find_room([*build({"a": MAX_PER_SOURCE}, waits=False), refused], "a") == Room(refused, True, True)
    assert find_room([*build({str(n): 50 for n in range(10)}, waits=False), refused], "b") == Room(refused, True)
    answered = build({"a": MAX_PER_SOURCE})
    assert find_room([refused, *answered], "a") == Room(answered[0], of_source=True)


def test_of_all_the_source_with_the_most_loses_its_oldest() -> None:
    many = build({"a": 60, "b": 99, "c": 90, "d": 80, "e": 90, "f": 81})
    assert len(many) == MAX_CONNECTIONS
    assert find_room(many, "new") == Room(many[60])
    assert find_room(build({str(n): 50 for n in range(10)}, waits=False), "new") == Room(is_full=True)


def test_a_site_of_many_sources_counts_as_one_when_all_are_too_many() -> None:
    many = build({"a": 20} | {f"s/{number}": 1 for number in range(MAX_CONNECTIONS - 20)})
    assert find_room(many, "b") == Room(many[20])
    assert find_leaving(many) == many[20]


def test_one_that_is_being_answered_does_not_leave() -> None:
    assert find_leaving([Connection("a", 1.0, waits=False), Connection("b", 2.0)]) == Connection("b", 2.0)
    assert find_leaving(build({"a": 3}, waits=False)) is None
    assert find_leaving([]) is None


@pytest.mark.parametrize(
    ("descriptors", "limit"), [(64, 16), (256, 256 - KEPT_BACK), (1024, MAX_CONNECTIONS), (1 << 20, MAX_CONNECTIONS)]
)
def test_descriptors_are_kept_back(descriptors: int, limit: int) -> None:
    assert find_limit(descriptors) == limit


def test_a_small_limit_counts_too() -> None:
    busy = build({"a": 12}, waits=False)
    assert find_room(busy, "a", 16) == Room(is_full=True, of_source=True)
    assert find_room(busy + build({"b": 4}), "c", 16).leaves == Connection("b", 1.0)

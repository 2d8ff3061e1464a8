# SPDX-License-Identifier: Apache-2.0
import pytest

from porthole_cli.doctor.facts import TokenTrip
from porthole_cli.doctor.tokens import judge_trip, travel
from support.clouds import FakeBus, ids, make_daemons
from support.descriptions import make_store

BASE_URL = "http://192.0.2.10:6080/console.html"


def lead(bus: FakeBus, seen: list[str] | None = None) -> TokenTrip:
    stores = [store.presence for store in bus.found.stores]
    return travel(bus, stores, "compute1", BASE_URL, (seen if seen is not None else []).append)


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus(make_daemons(stores=[make_store("a"), make_store("b")]))


def test_a_whole_life(bus: FakeBus) -> None:
    seen: list[str] = []
    trip = lead(bus, seen)
    assert (trip.before, trip.after) == ({"a": True, "b": True}, {"a": False, "b": False})
    assert ids(judge_trip(trip)) == ["token.ok"]
    assert seen == [bus.authorized[0].token]


def test_nothing_is_left_behind_when_the_stores_are_not_one(bus: FakeBus) -> None:
    other: dict[str, str] = {}
    bus.stores["b-1"] = other
    trip = lead(bus)
    assert trip.before == {"a": True, "b": False}
    assert not any(bus.stores.values())
    # That is the store's fault, and not the token's.
    assert ids(judge_trip(trip)) == ["token.ok"]


@pytest.mark.parametrize("failing", ["authorize", "check", "revoke"])
def test_it_is_revoked_whatever_fails_before(bus: FakeBus, failing: str) -> None:
    bus.failing = {failing}
    trip = lead(bus)
    assert bus.calls.count("revoke") == 2
    expected = {"authorize": ["token.failed"], "revoke": ["token.not_revoked"] * 2}
    expected["check"] = ["token.failed"] * 2 + ["token.not_revoked"] * 2
    assert ids(judge_trip(trip)) == expected[failing]


def test_a_consoleauth_that_revokes_without_effect() -> None:
    findings = judge_trip(TokenTrip(before={"a": True}, after={"a": True}))
    assert ids(findings) == ["token.not_revoked"]
    assert "still valid" in findings[0].problem


def test_no_finding_holds_the_token(bus: FakeBus) -> None:
    bus.failing = {"check", "revoke"}
    seen: list[str] = []
    findings = judge_trip(lead(bus, seen))
    assert seen[0] not in repr(findings)


def test_no_trip_was_made() -> None:
    assert judge_trip(TokenTrip()) == []

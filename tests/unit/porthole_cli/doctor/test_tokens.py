# SPDX-License-Identifier: Apache-2.0
import pytest

from porthole_cli.doctor.facts import TokenCheck
from porthole_cli.doctor.tokens import check_token, judge_token
from support.clouds import FakeBus, ids, make_daemons
from support.descriptions import make_store

BASE_URL = "http://192.0.2.10:6080/console.html"


def check(bus: FakeBus, seen: list[str] | None = None) -> TokenCheck:
    stores = [store.presence for store in bus.found.stores]
    return check_token(bus, stores, "compute1", BASE_URL, (seen if seen is not None else []).append)


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus(make_daemons(stores=[make_store("a"), make_store("b")]))


def test_a_whole_life(bus: FakeBus) -> None:
    seen: list[str] = []
    result = check(bus, seen)
    assert (result.before, result.after) == ({"a": True, "b": True}, {"a": False, "b": False})
    assert ids(judge_token(result)) == ["token.ok"]
    assert seen == [bus.authorized[0].token]


def test_nothing_is_left_behind_when_the_stores_are_not_one(bus: FakeBus) -> None:
    other: dict[str, str] = {}
    bus.stores["b-1"] = other
    result = check(bus)
    assert result.before == {"a": True, "b": False}
    assert not any(bus.stores.values())
    # That is the store's fault, and not the token's.
    assert ids(judge_token(result)) == ["token.ok"]


@pytest.mark.parametrize("failing", ["authorize", "check", "revoke"])
def test_it_is_revoked_whatever_fails_before(bus: FakeBus, failing: str) -> None:
    bus.failing = {failing}
    result = check(bus)
    assert bus.calls.count("revoke") == 2
    expected = {"authorize": ["token.failed"], "revoke": ["token.not_revoked"] * 2}
    expected["check"] = ["token.failed"] * 2 + ["token.not_revoked"] * 2
    assert ids(judge_token(result)) == expected[failing]


def test_a_consoleauth_that_revokes_without_effect() -> None:
    findings = judge_token(TokenCheck(before={"a": True}, after={"a": True}))
    assert ids(findings) == ["token.not_revoked"]
    assert "still valid" in findings[0].problem


def test_no_finding_holds_the_token(bus: FakeBus) -> None:
    bus.failing = {"check", "revoke"}
    seen: list[str] = []
    findings = judge_token(check(bus, seen))
    assert seen[0] not in repr(findings)


def test_no_trip_was_made() -> None:
    assert judge_token(TokenCheck()) == []

# SPDX-License-Identifier: Apache-2.0
import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_common.model import (
    Claim,
    ConnectInfo,
    ConsoleType,
    Instance,
    InstanceState,
    Owner,
    Target,
    build_token,
    get_slot,
    get_token_slot,
    is_uuid,
)
from support.cases import naming

NAN, INFINITY = float("nan"), float("inf")
UUID = "7f3a5c1e-0b1d-4c2e-9f00-aabbccddeeff"
INFO = ConnectInfo(
    instance_uuid=UUID,
    console_type=ConsoleType.NOVNC,
    host="192.0.2.1",
    port=5901,
    access_url="http://proxy:6080/console.html",
    compute_host="host1",
    internal_access_path="/path",
    token="11111111-2222-4333-8444-555555555555",
    expires_at=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
)


@given(st.uuids())
def test_every_canonical_uuid_is_one(value: Any) -> None:
    assert is_uuid(str(value))


def test_nothing_else_is_a_uuid() -> None:
    cases = [
        "",
        UUID.upper(),
        UUID[:-1],
        UUID + "0",
        UUID + "\n",
        " " + UUID,
        UUID.replace("-", ""),
        "{" + UUID + "}",
        "x" * 10240,
    ]
    for text in cases:
        with naming(text):
            assert not is_uuid(text)


def test_digits_of_other_scripts_are_no_uuid() -> None:
    assert not is_uuid(UUID.replace("7", "\N{ARABIC-INDIC DIGIT SEVEN}"))


def test_port_is_a_number_whatever_it_came_as() -> None:
    """Text and number are one port (C11)."""
    for port in [5900, "5900"]:
        with naming(port):
            assert Target.from_primitive({"host": "h", "port": port}) == Target("h", 5900)


def test_port_out_of_range_is_refused() -> None:
    for port in [0, -1, 65536, "", "vnc", "5900x"]:
        with naming(port), pytest.raises(ValueError):
            Target.from_primitive({"host": "h", "port": port})


def test_target_round_trip() -> None:
    assert Target.from_primitive(Target("::1", 1).to_primitive()) == Target("::1", 1)


def test_connect_info_round_trip_through_json() -> None:
    assert ConnectInfo.from_primitive(json.loads(json.dumps(INFO.to_primitive()))) == INFO


def test_connect_info_says_for_whom_it_was_issued_where_that_is_known() -> None:
    """No other daemon's messages have keys that an older one would not expect among its arguments."""
    assert {"user_id", "project_id"}.isdisjoint(INFO.to_primitive())
    issued = replace(INFO, user_id="u", project_id="p")
    assert ConnectInfo.from_primitive(json.loads(json.dumps(issued.to_primitive()))) == issued


def test_connect_info_says_for_which_run_and_owner_it_was_issued_where_that_is_known() -> None:
    assert {"run", "owner"}.isdisjoint(INFO.to_primitive())
    for owner in (Owner("p", "u"), Owner()):
        bound = replace(INFO, run="r", owner=owner)
        with naming(bound):
            assert ConnectInfo.from_primitive(json.loads(json.dumps(bound.to_primitive()))) == bound
            assert bound.claim == Claim(UUID, ConsoleType.NOVNC, Target("192.0.2.1", 5901), "r", owner)


def test_claim_round_trip_through_json() -> None:
    for claim in (INFO.claim, replace(INFO, run="r", owner=Owner(None, "u")).claim):
        with naming(claim):
            assert Claim.from_primitive(json.loads(json.dumps(claim.to_primitive()))) == claim
    assert set(INFO.claim.to_primitive()) == {"instance_uuid", "console_type", "host", "port"}


def test_claim_refuses_what_does_not_parse() -> None:
    cases = [
        {"console_type": "spice"},
        {"port": 0},
        {"run": 1},
        {"run": "x" * 256},
        {"owner": "p"},
        {"owner": ["p", "u"]},
        {"owner": {"project_id": 1}},
        {"owner": {"user_id": "x" * 256}},
    ]
    for change in cases:
        with naming(change), pytest.raises(ValueError):
            Claim.from_primitive(INFO.claim.to_primitive() | change)


def test_connect_info_without_the_optional_fields() -> None:
    value = replace(INFO, internal_access_path=None, token=None, expires_at=None).to_primitive()
    for name in ("internal_access_path", "token", "expires_at"):
        assert value.pop(name) is None
    assert ConnectInfo.from_primitive(value).expires_at is None


def test_expiry_is_in_utc_whatever_its_offset() -> None:
    there = INFO.expires_at and INFO.expires_at.astimezone(timezone(timedelta(hours=5)))
    parsed = ConnectInfo.from_primitive(INFO.to_primitive() | {"expires_at": there and there.isoformat()})
    assert parsed.expires_at == INFO.expires_at
    assert parsed.expires_at
    assert parsed.expires_at.tzinfo is UTC


def test_connect_info_needs_its_keys() -> None:
    cases = ["instance_uuid", "console_type", "host", "port", "access_url", "compute_host"]
    for key in cases:
        with naming(key):
            value = INFO.to_primitive()
            del value[key]
            with pytest.raises(KeyError):
                ConnectInfo.from_primitive(value)


def test_connect_info_refuses_what_does_not_parse() -> None:
    cases: list[tuple[str, Any]] = [
        ("console_type", "spice"),
        ("port", "x"),
        ("expires_at", "tomorrow"),
        ("expires_at", "0001-01-01T00:00:00+14:00"),
        ("expires_at", "9999-12-31T23:59:59-14:00"),
        ("uses", -1),
    ]
    cases += [(key, value) for key in ("port", "uses", "remaining_s") for value in (NAN, INFINITY, -INFINITY, True, [])]
    cases += [("port", 5900.5), ("uses", 0.5), ("remaining_s", -0.1), ("remaining_s", "inf"), ("remaining_s", 10**400)]
    for key, value in cases:
        with naming(key, value), pytest.raises(ValueError):
            ConnectInfo.from_primitive(INFO.to_primitive() | {key: value})


def test_connect_info_has_the_seconds_and_uses_that_are_left() -> None:
    for remaining_s, uses in [(0, 0), (599, 1), (0.5, 1000)]:
        with naming(remaining_s, uses):
            info = ConnectInfo.from_primitive(INFO.to_primitive() | {"remaining_s": remaining_s, "uses": uses})
            assert (info.remaining_s, info.uses) == (remaining_s, uses)


def test_repr_shows_no_token() -> None:
    assert INFO.token
    assert INFO.token not in repr(INFO)
    assert INFO.token not in f"{INFO}"


def test_instance_round_trip_through_json() -> None:
    instance = Instance(
        UUID,
        "vm1",
        InstanceState.PAUSED,
        project_id="p",
        user_id="u",
        console_types=(ConsoleType.NOVNC, ConsoleType.XVPVNC),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert Instance.from_primitive(json.loads(json.dumps(instance.to_primitive()))) == instance


def test_instance_of_a_newer_version() -> None:
    value = {"uuid": UUID, "name": "vm1", "state": "dreaming", "console_types": ["novnc", "hologram"], "colour": "red"}
    instance = Instance.from_primitive(value)
    assert instance.state is InstanceState.UNKNOWN
    assert instance.console_types == (ConsoleType.NOVNC,)
    assert instance.project_id is None


def test_instance_needs_its_keys() -> None:
    for key in ["uuid", "name", "state"]:
        with naming(key):
            value = Instance(UUID, "vm1", InstanceState.RUNNING).to_primitive()
            del value[key]
            with pytest.raises(KeyError):
                Instance.from_primitive(value)


@given(st.uuids(version=4).map(str))
def test_a_token_is_a_random_uuid_that_bears_its_instances_slot(instance_uuid: str) -> None:
    first, second = build_token(instance_uuid), build_token(instance_uuid)
    for token in (first, second):
        assert is_uuid(token)
        assert uuid.UUID(token).version == 4
        assert get_token_slot(token) == get_slot(instance_uuid)
    assert first[3:] != second[3:]

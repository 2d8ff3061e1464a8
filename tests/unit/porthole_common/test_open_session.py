# SPDX-License-Identifier: Apache-2.0
"""The id, the filter and the form of an open session on the bus."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from porthole_common import errors, open_session
from porthole_common.model import is_uuid
from porthole_common.open_session import OpenSession, SessionFilter, build_session_id, read_opening
from support.cases import naming
from support.open_sessions import build_session


def test_ids_are_uuids_of_version_7_in_the_order_of_the_openings() -> None:
    ids = [build_session_id(timestamp) for timestamp in (1_000_000_000.0, 1_700_000_000.5, 1_700_000_000.501)]
    assert ids == sorted(ids)
    assert all(is_uuid(each) and each[14] == "7" and each[19] in "89ab" for each in ids)
    assert read_opening(ids[1]) == datetime.fromtimestamp(1_700_000_000.5, UTC)
    assert len({build_session_id(1.0) for _ in range(1000)}) == 1000


def test_a_session_is_the_same_at_the_other_end_of_the_bus() -> None:
    for session in (build_session(1), build_session(2, user_id=None, user_agent=None, last_input_at=None)):
        value = session.to_primitive()
        assert OpenSession.from_primitive(value | {"newer": 1}) == session


def test_what_is_no_session() -> None:
    value = build_session(1).to_primitive()
    broken: list[dict[str, Any]] = [
        {name: item for name, item in value.items() if name != missing} for missing in value
    ]
    broken += [value | {"bytes_to_client": -1}, value | {"opened_at": "yesterday"}, value | {"id": None}]
    broken += [value | {"client": "a\x1b[2J"}, value | {"user_agent": "\u202e"}]
    broken += [value | {"client": 7}, value | {"user_agent": "x" * 300}, value | {"mode": ["view"]}]
    for each in broken:
        with naming(each), pytest.raises(ValueError, match=r"."):
            OpenSession.from_primitive(each)
    not_an_object: Any = 5
    with pytest.raises(ValueError, match="not a session"):
        OpenSession.from_primitive(not_an_object)


def test_a_filter_keeps_its_texts_and_times() -> None:
    given = {"server": "i-1", "client": "192.0.2.7", "since": "2026-07-01T12:00:00+02:00"}
    asked = SessionFilter.from_primitive(given)
    assert asked.since == datetime(2026, 7, 1, 10, tzinfo=UTC)
    assert SessionFilter.from_primitive(asked.to_primitive()) == asked


def test_what_is_no_filter() -> None:
    for given in (
        {"colour": "red"},
        {"server": "x" * 256},
        {"server": "a\nb"},
        {"server": 1},
        {"since": "2026-07-01T12:00:00"},
        {"since": "yesterday"},
        {"until": "0001-01-01T00:00:00+23:00"},
    ):
        with naming(given), pytest.raises(errors.RequestInvalid):
            SessionFilter.from_primitive(given)


def test_times_include_the_first_and_not_the_last() -> None:
    session_id = build_session_id(1_700_000_000.0)
    at = read_opening(session_id).isoformat()
    later = read_opening(build_session_id(1_700_000_001.0)).isoformat()
    for given, is_within in (
        ({}, True),
        ({"since": at}, True),
        ({"until": at}, False),
        ({"since": later}, False),
        ({"since": at, "until": later}, True),
    ):
        with naming(given):
            assert SessionFilter.from_primitive(given).spans(session_id) is is_within


def test_the_name_of_a_clients_program_is_short_and_printable() -> None:
    for text, kept in ((None, None), ("", None), ("\n\0", None), ("a\nb", "ab"), ("x" * 10_000, "x" * 128)):
        assert open_session.clean_user_agent(text) == kept


def test_a_marker_is_an_id() -> None:
    assert open_session.check_marker(build_session_id())
    for marker in ("", "x", "7F3A5C1E-0B1D-4C2E-9F00-AABBCCDDEEFF"):
        with naming(marker), pytest.raises(errors.RequestInvalid):
            open_session.check_marker(marker)


def test_every_field_is_in_the_message() -> None:
    assert set(build_session(1).to_primitive()) == {field.name for field in dataclasses.fields(OpenSession)}

# SPDX-License-Identifier: Apache-2.0
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_common.history.event import (
    EventKind,
    HistoryEvent,
    build_event,
    clean_text,
    dump_event,
    load_event,
)
from support.history import closed, new_id

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def test_a_line_and_back() -> None:
    event = closed(new_id(), reason="ends \N{GREEK SMALL LETTER ALPHA}")
    assert load_event(dump_event(event)) == event
    assert b"\n" not in dump_event(event)


@given(st.dictionaries(st.sampled_from(["id", "at", "kind", "code", "reason", "session_id", "opened_at"]), JSON))
def test_anything_else_is_a_value_error_and_no_other(value: dict[str, Any]) -> None:
    good = {"id": new_id(), "at": "2026-07-01T12:00:00+00:00", "kind": "session_opened"}
    for candidate in (value, good | value):
        try:
            HistoryEvent.from_primitive(candidate)
        except ValueError:
            continue


def test_what_is_not_an_event() -> None:
    good = closed(new_id()).to_primitive()
    wrong: list[Any] = [None, [], "x", {}, {key: value for key, value in good.items() if key != "at"}]
    wrong += [good | {"at": "2026-07-01T12:00:00"}, good | {"at": 7}, good | {"kind": "other"}, good | {"id": "7"}]
    wrong += [good | {"code": True}, good | {"code": -1}, good | {"bytes_to_client": 2**63}, good | {"reason": 7}]
    wrong += [good | {"session_id": "' OR 1"}, good | {"at": "9999-12-31T23:59:59-23:59"}]
    for value in wrong:
        with pytest.raises(ValueError):
            HistoryEvent.from_primitive(value)
    assert HistoryEvent.from_primitive(good | {"of_tomorrow": 1}).to_primitive() == good


@given(st.text(max_size=3000))
def test_a_text_is_cut_and_printable(text: str) -> None:
    event = build_event(EventKind.SESSION_ENDED, None, reason=text, by=text)
    assert event.reason is not None
    assert len(event.reason) <= 256
    assert event.reason.isprintable()
    assert json.loads(dump_event(event))["reason"] == event.reason


def test_ten_kib_with_control_characters() -> None:
    text = "\x00\x1b[31m\n" + "x" * 10240
    assert clean_text(text, 256) == ("[31m" + "x" * 1000)[:256]


def test_times_are_in_utc() -> None:
    moment = datetime(2026, 7, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert build_event(EventKind.SESSION_CLOSED, opened_at=moment).opened_at == datetime(2026, 7, 1, 12, tzinfo=UTC)

# SPDX-License-Identifier: Apache-2.0
"""Events of a history, and the store of one, for tests."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from porthole_common.history.event import EventKind, HistoryEvent, build_event

NOW = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)
INSTANCE = "7f3a5c1e-0b1d-4c2e-9f00-aabbccddeeff"


def new_id() -> str:
    return str(uuid.uuid4())


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def opened(session_id: str, seconds: float = 0, **changes: Any) -> HistoryEvent:
    """Return the event of an opening, ``seconds`` behind :data:`NOW`."""
    values = {"instance_uuid": INSTANCE, "project_id": "red", "user_id": "rita", "process": "p1", "proxy": "host-1"}
    return build_event(EventKind.SESSION_OPENED, after(seconds), session_id=session_id, **values | changes)


def closed(session_id: str, seconds: float = 10, **changes: Any) -> HistoryEvent:
    """Return the event of an end."""
    values = {"instance_uuid": INSTANCE, "project_id": "red", "user_id": "rita", "process": "p1", "proxy": "host-1"}
    end: dict[str, Any] = {"opened_at": NOW, "code": 1000, "bytes_to_client": 2**40, "bytes_from_client": 7}
    return build_event(EventKind.SESSION_CLOSED, after(seconds), session_id=session_id, **values | end | changes)

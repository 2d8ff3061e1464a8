# SPDX-License-Identifier: Apache-2.0
"""Open sessions, for tests of what lists them."""

from datetime import UTC, datetime
from typing import Any

from porthole_common.open_session import OpenSession, build_session_id, read_opening

INSTANCE = "7f3a5c1e-0b1d-4c2e-9f00-aabbccddeeff"
FIRST_S = 1_700_000_000.0


def build_session(number: int, **changes: Any) -> OpenSession:
    """Return a session that was opened ``number`` seconds behind :data:`FIRST_S`."""
    session_id = build_session_id(FIRST_S + number)
    values: dict[str, Any] = {
        "id": session_id,
        "instance_uuid": INSTANCE,
        "console_type": "novnc",
        "mode": "control",
        "user_id": "rita",
        "project_id": "red",
        "client": "192.0.2.7",
        "user_agent": "Firefox",
        "proxy": "node1-6080-0",
        "compute_host": "c1",
        "opened_at": read_opening(session_id),
        "last_input_at": datetime(2026, 7, 1, tzinfo=UTC),
        "bytes_to_client": 2**40,
        "bytes_from_client": 7,
    }
    return OpenSession(**values | changes)

# SPDX-License-Identifier: Apache-2.0
"""The tables of the history. ``migrations`` makes them; a test holds the two against each other.

Why times are numbers, of microseconds since 1970 in UTC: the databases differ in how they keep parts of a second and
time zones, and the order of events is the point of a history.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

METADATA = sa.MetaData()
# Ids and names are compared exactly, also by MariaDB, and may hold every character.
OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# An event is written once and not changed. The columns are the fields of porthole_common.history.event.
EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("instance_uuid", sa.String(36)),
    sa.Column("session_id", sa.String(36)),
    sa.Column("console_type", sa.String(32)),
    sa.Column("mode", sa.String(16)),
    sa.Column("user_id", sa.String(255)),
    sa.Column("project_id", sa.String(255)),
    sa.Column("client", sa.String(64)),
    sa.Column("proxy", sa.String(255)),
    sa.Column("process", sa.String(255)),
    sa.Column("compute_host", sa.String(255)),
    sa.Column("by", sa.String(255)),
    sa.Column("code", sa.BigInteger),
    sa.Column("reason", sa.String(256)),
    sa.Column("bytes_to_client", sa.BigInteger),
    sa.Column("bytes_from_client", sa.BigInteger),
    sa.Column("opened_at", sa.BigInteger),
    sa.Column("request_id", sa.String(255)),
    sa.Index("events_at", "at", "id"),
    sa.Index("events_project", "project_id", "at"),
    sa.Index("events_instance", "instance_uuid", "at"),
    sa.Index("events_session", "session_id"),
    **OPTIONS,
)
# One row for each session of which there is an event: which are open, and whether an end is only presumed.
SESSIONS = sa.Table(
    "sessions",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("process", sa.String(255)),
    sa.Column("proxy", sa.String(255)),
    sa.Column("instance_uuid", sa.String(36)),
    sa.Column("user_id", sa.String(255)),
    sa.Column("project_id", sa.String(255)),
    sa.Column("opened_at", sa.BigInteger),
    sa.Column("closed_at", sa.BigInteger),
    sa.Column("presumed", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("sessions_closed", "closed_at", "process"),
    sa.Index("sessions_presumed", "presumed", "process"),
    sa.Index("sessions_project", "project_id", "opened_at"),
    **OPTIONS,
)


def to_number(moment: datetime) -> int:
    """Return a time as it is stored."""
    return (moment - _EPOCH) // _MICROSECOND


def to_time(number: int) -> datetime:
    """Return a stored time, aware and in UTC."""
    return _EPOCH + number * _MICROSECOND

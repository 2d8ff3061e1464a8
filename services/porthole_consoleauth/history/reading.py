# SPDX-License-Identifier: Apache-2.0
"""What is read from the tables: a page of events, newest first, and which sessions are open. In a transaction."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa

from porthole_common import errors
from porthole_common.history.event import EventKind, HistoryEvent
from porthole_common.list_filters import parse_filters
from porthole_common.model import is_uuid
from porthole_consoleauth.history.tables import EVENTS, SESSIONS, to_number, to_time

MAX_LIMIT = 1000
# Filters by their name in an RPC, and the column that each compares.
_EQUAL = {
    "server": EVENTS.c.instance_uuid,
    "project_id": EVENTS.c.project_id,
    "user_id": EVENTS.c.user_id,
    "host": EVENTS.c.compute_host,
    "client": EVENTS.c.client,
    "kind": EVENTS.c.kind,
    "session": EVENTS.c.session_id,
}


@dataclass(frozen=True)
class Filters:
    """What to find: ``equal`` by the names of :data:`_EQUAL`; ``since`` is included, ``until`` is not."""

    equal: dict[str, str]
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from the filters of an RPC; times as ISO 8601 with offset.

        :raises RequestInvalid: when a filter is unknown, or is no text of at most 255 characters, or no time.
        """
        equal, times = parse_filters(value, _EQUAL, _check_time)
        return cls(equal, **times)


def select_events(
    connection: sa.Connection, filters: Filters, limit: int, marker: str | None
) -> tuple[list[HistoryEvent], bool]:
    """Return a page, newest first, and whether there are more. ``marker``: the last event of the page before.

    :raises RequestInvalid: when the marker is not the id of an event.
    """
    query = sa.select(EVENTS).order_by(EVENTS.c.at.desc(), EVENTS.c.id.desc()).limit(limit + 1)
    for name, value in filters.equal.items():
        query = query.where(_EQUAL[name] == value)
    if filters.since:
        query = query.where(EVENTS.c.at >= to_number(filters.since))
    if filters.until:
        query = query.where(EVENTS.c.at < to_number(filters.until))
    if marker is not None:
        at = None
        if is_uuid(marker):
            at = connection.execute(sa.select(EVENTS.c.at).where(EVENTS.c.id == marker)).scalar()
        if at is None:
            raise errors.RequestInvalid("Invalid input for marker: there is no such event.")
        query = query.where(sa.or_(EVENTS.c.at < at, sa.and_(EVENTS.c.at == at, EVENTS.c.id < marker)))
    rows = connection.execute(query).mappings().all()
    return [_build_event(row) for row in rows[:limit]], len(rows) > limit


def list_open_processes(connection: sa.Connection) -> set[str]:
    """Return the processes of proxies that have open sessions."""
    query = sa.select(SESSIONS.c.process).where(SESSIONS.c.closed_at.is_(None), SESSIONS.c.process.is_not(None))
    return set(connection.execute(query.distinct()).scalars())


def count_open_sessions(connection: sa.Connection) -> int:
    """Return how many sessions have no end yet."""
    query = sa.select(sa.func.count()).select_from(SESSIONS).where(SESSIONS.c.closed_at.is_(None))
    return int(connection.execute(query).scalar_one())


def _build_event(row: Any) -> HistoryEvent:
    values = dict(row)
    values["at"] = to_time(values["at"])
    values["kind"] = EventKind(values["kind"])
    if values["opened_at"] is not None:
        values["opened_at"] = to_time(values["opened_at"])
    return HistoryEvent(**values)


def _check_time(moment: datetime) -> datetime:
    """Return a time that can be compared with stored ones.

    :raises OverflowError: when it cannot.
    """
    to_number(moment)
    return moment

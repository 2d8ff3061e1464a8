# SPDX-License-Identifier: Apache-2.0
"""What is written into the tables: events, once each, and what they say of their sessions. In the caller's transaction.

Why the order does not matter: a proxy reports at least once, and what a killed one left behind comes late. So the end
of a session may come before its beginning, and an end that consoleauth presumed is replaced by the real one.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from porthole_common.history.event import EventKind, HistoryEvent, build_presumed_id
from porthole_consoleauth.history.tables import EVENTS, SESSIONS, to_number, to_time

PRESUMED_REASON = "The proxy stopped answering"
_TIMES = ("at", "opened_at")
_OF_SESSION = ("process", "proxy", "instance_uuid", "user_id", "project_id")


def insert_events(connection: sa.Connection, events: Sequence[HistoryEvent]) -> list[HistoryEvent]:
    """Insert the events that are not there yet; return these."""
    new = set()
    # In one order for all, so that two that send the same at once wait for each other in one direction.
    for event in sorted(events, key=lambda event: (event.session_id or "", event.id)):
        if _insert_new(connection, EVENTS, _build_row(event)):
            _apply(connection, event)
            new.add(event.id)
    # An id that is there twice is new once.
    return list({event.id: event for event in events if event.id in new}.values())


def close_presumed(connection: sa.Connection, process: str, now: datetime) -> list[HistoryEvent]:
    """Close every open session of a proxy's process that is taken for dead; return the events of it."""
    rows = connection.execute(
        sa.select(SESSIONS).where(SESSIONS.c.process == process, SESSIONS.c.closed_at.is_(None)).with_for_update()
    ).all()
    events = [
        HistoryEvent(
            id=build_presumed_id(row.id),
            at=now,
            kind=EventKind.SESSION_CLOSED,
            session_id=row.id,
            reason=PRESUMED_REASON,
            opened_at=None if row.opened_at is None else to_time(row.opened_at),
            **{name: getattr(row, name) for name in _OF_SESSION},
        )
        for row in rows
    ]
    for event in events:
        _insert_new(connection, EVENTS, _build_row(event))
        connection.execute(
            SESSIONS.update()
            .where(SESSIONS.c.id == event.session_id, SESSIONS.c.closed_at.is_(None))
            .values(closed_at=to_number(now), presumed=True)
        )
    return events


def reopen_presumed(connection: sa.Connection, processes: Collection[str]) -> int:
    """Open the sessions again that were taken for dead with these processes, which answer; return how many."""
    found = connection.execute(
        sa.select(SESSIONS.c.id)
        .where(SESSIONS.c.presumed.is_(True), SESSIONS.c.process.in_(processes))
        .with_for_update()
    ).scalars()
    sessions = list(found)
    for session_id in sessions:
        connection.execute(
            SESSIONS.update()
            .where(SESSIONS.c.id == session_id, SESSIONS.c.presumed.is_(True))
            .values(closed_at=None, presumed=False)
        )
        _forget_presumed(connection, session_id)
    return len(sessions)


def purge(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete the oldest events before a time, and the sessions that were closed before it; return how many rows."""
    number = to_number(before)
    old = {
        EVENTS: sa.select(EVENTS.c.id).where(EVENTS.c.at < number).order_by(EVENTS.c.at),
        SESSIONS: sa.select(SESSIONS.c.id).where(SESSIONS.c.closed_at < number).order_by(SESSIONS.c.closed_at),
    }
    count = 0
    for table, query in old.items():
        ids = list(connection.execute(query.limit(limit)).scalars())
        if ids:
            connection.execute(table.delete().where(table.c.id.in_(ids)))
        count += len(ids)
    return count


def _apply(connection: sa.Connection, event: HistoryEvent) -> None:
    """Bring the session's row to what the event says."""
    if event.session_id is None or event.kind not in (EventKind.SESSION_OPENED, EventKind.SESSION_CLOSED):
        return
    known: dict[str, Any] = {name: getattr(event, name) for name in _OF_SESSION}
    if event.kind is EventKind.SESSION_OPENED:
        known["opened_at"] = to_number(event.at)
    else:
        known |= {"closed_at": to_number(event.at), "presumed": False}
        if event.opened_at is not None:
            known["opened_at"] = to_number(event.opened_at)
    if _insert_new(connection, SESSIONS, {"id": event.session_id, "presumed": False, **known}):
        return
    connection.execute(SESSIONS.update().where(SESSIONS.c.id == event.session_id).values(known))
    if event.kind is EventKind.SESSION_CLOSED:
        # Behind the update, which waits for whoever presumes the end at this moment.
        _forget_presumed(connection, event.session_id)


def _forget_presumed(connection: sa.Connection, session_id: str) -> None:
    connection.execute(EVENTS.delete().where(EVENTS.c.id == build_presumed_id(session_id)))


def _insert_new(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> bool:
    """Insert a row, and return whether its id was new."""
    statement: sa.Executable
    if connection.dialect.name == "postgresql":
        statement = postgresql.insert(table).values(row).on_conflict_do_nothing()
    elif connection.dialect.name == "sqlite":
        statement = sqlite.insert(table).values(row).on_conflict_do_nothing()
    else:
        # ON DUPLICATE KEY UPDATE counts a row that is there as inserted (mysql_affected_rows()). IGNORE would cut a
        # value that does not fit, and no value is that long.
        statement = mysql.insert(table).values(row).prefix_with("IGNORE")
    return connection.execute(statement).rowcount == 1


def _build_row(event: HistoryEvent) -> dict[str, Any]:
    row = {column.name: getattr(event, column.name) for column in EVENTS.columns}
    return row | {name: to_number(row[name]) for name in _TIMES if row[name] is not None}

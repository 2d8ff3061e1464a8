# SPDX-License-Identifier: Apache-2.0
"""The history as consoleauth uses it: each question to the database ends by a deadline, whatever the database does.

Why threads of its own: a database that is frozen holds the thread that asks it, and consoleauth's RPC threads check
tokens, which must not wait. When all threads are held, the next question is refused at once.

It also knows when the history must not be used: its tables are older or newer than this release, or another host's
consoleauth has a SQLite file of its own.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa

from porthole_common import errors
from porthole_common.deadline import Deadline, DeadlinePassed
from porthole_common.diagnosis import HistoryState
from porthole_common.history.event import HistoryEvent
from porthole_common.log import get_logger
from porthole_common.thread_pool import ThreadPool
from porthole_consoleauth.history import reading, schema, writing
from porthole_consoleauth.history.database import POOL_SIZE, Database

LOG = get_logger(__name__)
# Shorter than a call of the api, half of [rpc] call_timeout, so that the caller learns the reason.
TIMEOUT_S = 4.0
# Questions under way and waiting.
_MAX_QUESTIONS = 2 * POOL_SIZE
_SYNC_MEND = "run: porthole-manage db sync"
Result = TypeVar("Result")


class HistoryStore:
    """The tables of one database. Thread-safe; every method but :meth:`close` raises HistoryUnavailable."""

    def __init__(self, database: Database, timeout_s: float = TIMEOUT_S) -> None:
        self._database = database
        self._timeout_s = timeout_s
        self._threads = ThreadPool("history", POOL_SIZE)
        self._places = threading.BoundedSemaphore(_MAX_QUESTIONS)
        self._is_current = False
        self._said = ""
        self._refusal = ""

    @property
    def is_local(self) -> bool:
        """Whether the database is a file that other hosts do not see."""
        return self._database.dialect == "sqlite"

    def refuse(self, reason: str) -> None:
        """Use the database no more while ``reason`` is not empty; each question gets the reason."""
        if reason and not self._refusal:
            LOG.error("History refused", database=self._database.name, reason=reason)
        elif self._refusal and not reason:
            LOG.info("History accepted again", database=self._database.name)
        self._refusal = reason

    def describe(self) -> tuple[HistoryState, str]:
        """Return whether the history can be used now, and why not. Never raises."""
        if self._refusal:
            return HistoryState.NOT_SHARED, self._refusal
        try:
            self._ask(lambda _connection: None)
        except errors.HistoryUnavailable as exc:
            return HistoryState.SCHEMA if exc.reason == self._said else HistoryState.AWAY, exc.reason
        return HistoryState.OK, ""

    def record(self, events: Sequence[HistoryEvent]) -> list[HistoryEvent]:
        """Store the events that are not stored yet; return these."""
        return self._ask(lambda connection: writing.insert_events(connection, events))

    def find_events(self, filters: reading.Filters, limit: int, marker: str | None) -> tuple[list[HistoryEvent], bool]:
        """Return a page of events; see :func:`porthole_consoleauth.history.reading.select_events`."""
        return self._ask(lambda connection: reading.select_events(connection, filters, limit, marker))

    def list_open_processes(self) -> set[str]:
        """Return the processes of proxies that have open sessions."""
        return self._ask(reading.list_open_processes)

    def close_presumed(self, process: str, now: datetime) -> list[HistoryEvent]:
        """Close the sessions of a proxy's process that is taken for dead; return the events of it."""
        return self._ask(lambda connection: writing.close_presumed(connection, process, now))

    def reopen_presumed(self, processes: Collection[str]) -> int:
        """Open the sessions of these processes again; return how many."""
        return self._ask(lambda connection: writing.reopen_presumed(connection, processes))

    def purge(self, before: datetime, limit: int) -> int:
        """Delete at most ``limit`` events, and as many sessions, that ended before a time; return how many."""
        return self._ask(lambda connection: writing.purge(connection, before, limit))

    def close(self) -> None:
        """Close the connections; a thread that the database holds ends with the process."""
        self._threads.close()
        self._database.close()

    def _ask(self, question: Callable[[sa.Connection], Result]) -> Result:
        """Have ``question`` answered in one transaction."""
        if self._refusal:
            raise errors.HistoryUnavailable(self._refusal)
        if not self._places.acquire(blocking=False):
            raise errors.HistoryUnavailable("its database is busy")

        def answer() -> Result:
            try:
                self._check_schema()
                with self._database.begin() as connection:
                    return question(connection)
            finally:
                self._places.release()

        deadline = Deadline(self._timeout_s)
        try:
            return self._threads.run(answer, deadline)
        except DeadlinePassed:
            if not deadline.given_up:
                # No thread has begun with it, and none will.
                self._places.release()
            raise errors.HistoryUnavailable(f"its database did not answer in {self._timeout_s:g} s") from None

    def _check_schema(self) -> None:
        """Bring SQLite's tables up; with a server, say once what is missing."""
        if self._is_current:
            return
        if self.is_local:
            schema.sync(self._database)
        version, newest = schema.read_version(self._database), schema.find_newest()
        if version == newest:
            if self._said:
                LOG.info("History schema current", database=self._database.name, version=version)
            self._is_current = True
            return
        if not version:
            reason = f"its database has no tables; {_SYNC_MEND}"
        elif schema.knows(version):
            reason = f"its tables have version {version}, and this release needs {newest}; {_SYNC_MEND}"
        else:
            reason = f"its tables have version {version}, of a newer release of Porthole"
        if reason != self._said:
            LOG.error("History schema not current", database=self._database.name, reason=reason)
            self._said = reason
        raise errors.HistoryUnavailable(reason)

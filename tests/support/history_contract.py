# SPDX-License-Identifier: Apache-2.0
"""What the history must do on each database: the tests of SQLite, PostgreSQL and MariaDB inherit these."""

import random
import threading
from collections import Counter

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from porthole_common import errors
from porthole_common.diagnosis import HistoryState
from porthole_common.history.event import EventKind, HistoryEvent, build_event, build_presumed_id
from porthole_consoleauth.history import reading, schema
from porthole_consoleauth.history.database import Database
from porthole_consoleauth.history.reading import Filters
from porthole_consoleauth.history.store import HistoryStore
from porthole_consoleauth.history.tables import EVENTS, METADATA, SESSIONS
from support.history import after, closed, new_id, opened

EVERYTHING = Filters({})


def list_all(store: HistoryStore, **equal: str) -> list[HistoryEvent]:
    return store.find_events(Filters(equal), 1000, None)[0]


def count_open(database: Database) -> int:
    with database.begin() as connection:
        return reading.count_open_sessions(connection)


class HistoryContract:
    """A subclass has the fixture ``database``: a :class:`Database` without tables."""

    @pytest.fixture
    def store(self, database: Database) -> HistoryStore:
        schema.sync(database)
        return HistoryStore(database)

    def test_from_nothing_the_tables_are_those_of_the_models(self, database: Database) -> None:
        assert schema.read_version(database) == ""
        assert schema.sync(database) == ("", schema.find_newest())
        assert schema.sync(database) == (schema.find_newest(), schema.find_newest())
        with database.begin() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, METADATA) == []

    def test_an_event_comes_back_as_it_was(self, store: HistoryStore) -> None:
        strange = "Ünï 漢字 😀 'quoted' \\ %s"
        event = closed(new_id(), reason=strange, user_id="u" * 255, client="2001:db8::1", compute_host="h", mode="view")
        assert store.record([event]) == [event]
        assert list_all(store) == [event]

    def test_an_id_is_stored_once(self, store: HistoryStore) -> None:
        event = opened(new_id())
        assert store.record([event, event]) == [event]
        assert store.record([event]) == []
        assert list_all(store) == [event]

    def test_many_at_once_store_an_id_once(self, store: HistoryStore) -> None:
        events = [opened(new_id(), number) for number in range(20)]
        new: list[HistoryEvent] = []

        def send() -> None:
            mine = random.sample(events, len(events))
            while True:
                try:
                    new.extend(store.record(mine))
                except errors.HistoryUnavailable:
                    # A deadlock, or a locked file: a reporter sends again too.
                    continue
                return

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert Counter(event.id for event in new) == Counter(event.id for event in events)
        assert len(list_all(store)) == len(events)

    def test_an_end_before_its_beginning(self, store: HistoryStore, database: Database) -> None:
        session = new_id()
        store.record([closed(session)])
        store.record([opened(session)])
        assert count_open(database) == 0
        assert [event.kind for event in list_all(store)] == [EventKind.SESSION_CLOSED, EventKind.SESSION_OPENED]

    def test_a_page_after_the_other_newest_first(self, store: HistoryStore) -> None:
        # Half of them at the same moment.
        events = [opened(new_id(), number // 2) for number in range(11)]
        store.record(events)
        found: list[HistoryEvent] = []
        marker, more = None, True
        while more:
            page, more = store.find_events(EVERYTHING, 3, marker)
            found += page
            marker = page[-1].id
        assert found == sorted(events, key=lambda event: (event.at, event.id), reverse=True)

    def test_each_filter(self, store: HistoryStore) -> None:
        mine = opened(new_id(), 0, compute_host="c1", client="192.0.2.7")
        other = closed(
            new_id(), 5, instance_uuid=new_id(), project_id="RED", user_id="Rita", compute_host="C1", client="192.0.2.8"
        )
        store.record([mine, other])
        for name, value in {
            "server": mine.instance_uuid,
            "project_id": "red",
            "user_id": "rita",
            "host": "c1",
            "client": "192.0.2.7",
            "kind": "session_opened",
            "session": mine.session_id,
        }.items():
            assert value is not None
            assert list_all(store, **{name: value}) == [mine], name
        for filters, expected in (
            (Filters({}, since=after(5)), [other]),
            (Filters({}, until=after(5)), [mine]),
            (Filters({"project_id": "' OR 1=1"}), []),
        ):
            assert store.find_events(filters, 10, None) == (expected, False)

    def test_a_marker_that_nobody_has(self, store: HistoryStore) -> None:
        for marker in (new_id(), "x", ""):
            with pytest.raises(errors.RequestInvalid):
                store.find_events(EVERYTHING, 10, marker)

    def test_a_proxy_that_died_closes_its_sessions_once(self, store: HistoryStore, database: Database) -> None:
        mine, ended, other = new_id(), new_id(), new_id()
        store.record([opened(mine), opened(ended), closed(ended), opened(other, process="p2")])
        assert store.list_open_processes() == {"p1", "p2"}
        (event,) = store.close_presumed("p1", after(60))
        assert (event.session_id, event.opened_at) == (mine, after(0))
        assert store.close_presumed("p1", after(61)) == []
        assert count_open(database) == 1
        assert list_all(store, session=mine, kind="session_closed") == [event]

    def test_a_proxy_that_was_frozen_corrects_it(self, store: HistoryStore, database: Database) -> None:
        session = new_id()
        store.record([opened(session)])
        store.close_presumed("p1", after(60))
        assert store.reopen_presumed({"p1", "p2"}) == 1
        assert count_open(database) == 1
        assert list_all(store, kind="session_closed") == []
        assert store.reopen_presumed({"p1"}) == 0

    def test_the_real_end_takes_the_place_of_the_presumed_one(self, store: HistoryStore, database: Database) -> None:
        session = new_id()
        store.record([opened(session)])
        store.close_presumed("p1", after(60))
        real = closed(session, 5)
        assert store.record([real]) == [real]
        assert list_all(store, kind="session_closed") == [real]
        assert store.reopen_presumed({"p1"}) == 0
        assert count_open(database) == 0

    def test_old_rows_go_in_batches_and_open_sessions_stay(self, store: HistoryStore, database: Database) -> None:
        done, open_still = [new_id() for _ in range(7)], new_id()
        store.record([event for session in done for event in (opened(session), closed(session))])
        store.record([opened(open_still, 100), build_event(EventKind.TOKEN_CREATED, after(100))])
        counts = []
        while count := store.purge(after(50), 5):
            counts.append(count)
        assert counts == [10, 7, 4]
        assert len(list_all(store)) == 2
        assert count_open(database) == 1

    def test_tables_of_another_version_are_refused_and_named(self, store: HistoryStore, database: Database) -> None:
        with database.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = 'of-tomorrow'"))
        with pytest.raises(errors.HistoryUnavailable, match="newer release"):
            store.record([opened(new_id())])
        assert store.describe()[0] == HistoryState.SCHEMA
        assert schema.sync(database) == ("of-tomorrow", "of-tomorrow")

    def test_values_fit_the_columns(self) -> None:
        lengths = {column.name: column.type.length for column in EVENTS.columns if isinstance(column.type, sa.String)}
        long = {name: "x" * 5000 for name in lengths if name not in ("id", "kind", "instance_uuid", "session_id")}
        event = build_event(EventKind.MODE_CHANGED, None, **long)
        assert {name: len(getattr(event, name)) for name in long} == {name: lengths[name] for name in long}
        assert {column.name for column in SESSIONS.columns} > {"opened_at", "closed_at"}
        assert build_presumed_id("a") == build_presumed_id("a") != build_presumed_id("b")

# SPDX-License-Identifier: Apache-2.0
"""The history on a real PostgreSQL and a real MariaDB: what SQLite does in the unit tests, and what servers may do."""

import gc
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from porthole_common import errors
from porthole_consoleauth.history import schema
from porthole_consoleauth.history.database import Database
from porthole_consoleauth.history.store import HistoryStore
from support.daemons import format_conf
from support.history import new_id, opened
from support.history_contract import HistoryContract, list_all
from support.mariadb import MariaDB
from support.postgresql import PostgreSQL

# PyMySQL leaves the socket of a connection that fails to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
Server = PostgreSQL | MariaDB


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    with MariaDB() as server:
        yield server


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    yield request.getfixturevalue(request.param)
    gc.collect()


def make_database(server: Server) -> Database:
    return Database(sa.make_url(server.make_url(f"history_{secrets.token_hex(4)}")))


class TestPostgresql(HistoryContract):
    """PostgreSQL."""

    @pytest.fixture
    def database(self, postgresql: PostgreSQL) -> Iterator[Database]:
        database = make_database(postgresql)
        yield database
        database.close()


class TestMariadb(HistoryContract):
    """MariaDB, in a database whose own character set is another one."""

    @pytest.fixture
    def database(self, mariadb: MariaDB) -> Iterator[Database]:
        database = make_database(mariadb)
        yield database
        database.close()


def test_a_server_wants_the_command_and_says_so(server: Server, tmp_path: Path) -> None:
    url = server.make_url(f"history_{secrets.token_hex(4)}")
    store = HistoryStore(Database(sa.make_url(url)))
    event = opened(new_id())
    with pytest.raises(errors.HistoryUnavailable, match="no tables; run: porthole-manage db sync"):
        store.record([event])
    conf = tmp_path / "porthole.conf"
    conf.write_text(format_conf({"DEFAULT": {"state_path": tmp_path}, "database": {"connection": url}}))

    def manage(*words: str) -> str:
        argv = [sys.executable, "-m", "porthole_consoleauth.history.command", "--config-file", str(conf), "db", *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "secret" not in done.stdout + done.stderr
        return done.stdout

    assert "from version none to" in manage("sync")
    assert "nothing to do" in manage("sync")
    assert store.record([event]) == [event]
    assert "1 rows deleted" in manage("purge", "--days", "1") or list_all(store) == []
    assert f"this release needs {schema.find_newest()}" in manage("version")
    store.close()


def test_a_server_that_was_away_is_used_again(server: Server) -> None:
    database = make_database(server)
    schema.sync(database)
    store = HistoryStore(database)
    first, second = opened(new_id()), opened(new_id(), 1)
    assert store.record([first]) == [first]
    server.kill()
    with pytest.raises(errors.HistoryUnavailable):
        store.record([second])
    server.start()
    assert store.record([second]) == [second]
    assert list_all(store) == [second, first]
    store.close()


def test_a_server_that_hangs_holds_nobody_past_the_deadline(server: Server) -> None:
    database = make_database(server)
    schema.sync(database)
    store = HistoryStore(database, timeout_s=1.0)
    event = opened(new_id())
    assert store.record([]) == []
    server.pause()
    begun = time.monotonic()
    try:
        with pytest.raises(errors.HistoryUnavailable, match="did not answer"):
            store.record([event])
        assert time.monotonic() - begun < 4
    finally:
        server.resume()
    deadline = time.monotonic() + 15
    while event not in list_all(store):
        assert time.monotonic() < deadline
        store.record([event])
    # What was given up and what was sent again is one event.
    assert list_all(store) == [event]
    store.close()

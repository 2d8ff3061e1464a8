# SPDX-License-Identifier: Apache-2.0
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.diagnosis import HistoryState
from porthole_consoleauth.history.database import Database, build_url
from porthole_consoleauth.history.store import HistoryStore
from support.history import new_id, opened
from support.history_contract import HistoryContract, list_all


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(sa.URL.create("sqlite", database=str(tmp_path / "state" / "history.sqlite")))
    yield database
    database.close()


class TestSqlite(HistoryContract):
    """SQLite, as it comes."""


def test_sqlite_needs_no_command(database: Database) -> None:
    store = HistoryStore(database)
    event = opened(new_id())
    assert store.record([event]) == [event]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = HistoryStore(Database(sa.URL.create("sqlite", database=str(tmp_path / "file" / "history.sqlite"))))
    with pytest.raises(errors.HistoryUnavailable):
        store.record([opened(new_id())])
    assert store.describe()[0] == HistoryState.AWAY


def test_a_refusal_and_its_end(database: Database) -> None:
    store = HistoryStore(database)
    store.refuse("another consoleauth")
    with pytest.raises(errors.HistoryUnavailable, match="another consoleauth"):
        store.record([])
    assert store.describe() == (HistoryState.NOT_SHARED, "another consoleauth")
    store.refuse("")
    assert list_all(store) == []
    assert store.describe() == (HistoryState.OK, "")


def test_a_database_that_hangs_holds_nobody_for_long(database: Database) -> None:
    may_go_on = threading.Event()
    store = HistoryStore(database, timeout_s=1.0)
    assert list_all(store) == []

    class Frozen(Database):
        def begin(self) -> None:  # type: ignore[override]
            may_go_on.wait(30)

    store._database = Frozen(database.url)
    refusals: list[str] = []

    def ask() -> None:
        try:
            store.record([])
        except errors.HistoryUnavailable as exc:
            refusals.append(exc.reason)

    askers = [threading.Thread(target=ask) for _ in range(40)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(10)
    may_go_on.set()
    # Eight wait for it, and the others are told at once.
    assert sorted(refusals) == ["its database did not answer in 1 s"] * 8 + ["its database is busy"] * 32


def test_the_url_of_the_options(tmp_path: Path) -> None:
    conf = cfg.ConfigOpts()
    porthole_conf.register_opts(conf)
    conf([], default_config_files=[], default_config_dirs=[])
    conf.set_override("state_path", str(tmp_path))
    assert str(build_url(conf)) == f"sqlite:///{tmp_path}/history.sqlite"
    for wrong in ("nonsense", "postgresql+nodriver://u:secret@h/d", "oracle://u:secret@h/d", "mssql+pymssql://u@h/d"):
        conf.set_override("connection", wrong, group="database")
        with pytest.raises(errors.ConfigInvalid) as refused:
            build_url(conf)
        assert "secret" not in str(refused.value)
    conf.set_override("connection", "mysql+pymysql://u:secret@h/d", group="database")
    assert Database(build_url(conf)).name == "mysql+pymysql://u:***@h/d"

# SPDX-License-Identifier: Apache-2.0
"""The connection to the database: through oslo.db, made when it is first used, and with a deadline at each step.

Why an engine of its own and not oslo.db's enginefacade: that one takes the global configuration, and waits for a
database that is away at its first use. Foreign errors are mapped here, and nowhere else.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import exception as oslo_db_exception
from oslo_db.sqlalchemy import engines

from porthole_common import errors
from porthole_common.log import get_logger

LOG = get_logger(__name__)
OPTION = "[database] connection"
FILE_NAME = "history.sqlite"
# Connections of one consoleauth: as many as porthole_consoleauth.history.store has threads.
POOL_SIZE = 4
_TIMEOUT_S = 5
_CONNECT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": _TIMEOUT_S, "check_same_thread": False},
    "postgresql": {
        "connect_timeout": _TIMEOUT_S,
        "options": f"-c statement_timeout={_TIMEOUT_S}s -c lock_timeout={_TIMEOUT_S}s",
        "application_name": "porthole-consoleauth",
    },
    "mysql": {"connect_timeout": _TIMEOUT_S, "read_timeout": _TIMEOUT_S, "write_timeout": _TIMEOUT_S},
}


class Database:
    """One database. Thread-safe; a connection is made when it is needed."""

    def __init__(self, url: sa.URL) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._engine: sa.Engine | None = None

    @property
    def dialect(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql`` (MariaDB too)."""
        return self.url.get_backend_name()

    @property
    def name(self) -> str:
        """The URL without its password, for people."""
        return self.url.render_as_string(hide_password=True)

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction, which is committed at the end of the block, or rolled back.

        :raises HistoryUnavailable: when the database is away, or refuses.
        """
        try:
            with self._get_engine().begin() as connection:
                yield connection
        except (oslo_db_exception.DBError, sa.exc.SQLAlchemyError, OSError) as exc:
            raise errors.HistoryUnavailable(_explain(exc)) from exc

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _get_engine(self) -> sa.Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._make_engine()
            return self._engine

    def _make_engine(self) -> sa.Engine:
        if self.dialect == "sqlite" and self.url.database:
            Path(self.url.database).parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        # oslo.db keeps no pool for SQLite.
        is_file = self.dialect == "sqlite"
        pool = {} if is_file else {"max_pool_size": POOL_SIZE, "max_overflow": 0, "pool_timeout": _TIMEOUT_S}
        engine: sa.Engine = engines.create_engine(self.url, mysql_sql_mode="TRADITIONAL", max_retries=0, **pool)

        @sa.event.listens_for(engine, "do_connect")
        def bound_waiting(_dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
            for name, value in _CONNECT_ARGUMENTS.get(self.dialect, {}).items():
                parameters.setdefault(name, value)
            if self.dialect == "mysql":
                # oslo.db asks for "utf8", which has no character of four bytes.
                parameters["charset"] = "utf8mb4"

        if is_file:

            @sa.event.listens_for(engine, "connect")
            def let_readers_read(connection: Any, _record: Any) -> None:
                # A reader does not wait for a writer then (sqlite.org/wal.html).
                connection.execute("PRAGMA journal_mode=WAL")

        return engine


def build_url(conf: cfg.ConfigOpts) -> sa.URL:
    """Return the URL of the database that the options name.

    :raises ConfigInvalid: when it is no URL of SQLAlchemy's, or its driver is not installed.
    """
    text = conf.database.connection
    if not text:
        return sa.URL.create("sqlite", database=str(Path(conf.state_path) / FILE_NAME))
    try:
        url = sa.make_url(text)
        url.get_dialect().import_dbapi()
    except sa.exc.ArgumentError:
        # The text of the error has the URL with its password.
        raise errors.ConfigInvalid(OPTION, "it is not the URL of a database, such as sqlite:////path/file") from None
    except (sa.exc.NoSuchModuleError, ImportError) as exc:
        raise errors.ConfigInvalid(OPTION, f"its driver is not installed: {exc}") from None
    if url.get_backend_name() not in _CONNECT_ARGUMENTS:
        known = ", ".join(_CONNECT_ARGUMENTS)
        raise errors.ConfigInvalid(OPTION, f"{url.get_backend_name()} is not one of {known}")
    return url


def _explain(exc: Exception) -> str:
    """Return the database's own words, without the statement, and in one line."""
    inner = getattr(exc, "inner_exception", None) or getattr(exc, "orig", None) or exc
    inner = getattr(inner, "orig", None) or inner
    return " ".join(str(inner).split())[:200] or type(exc).__name__

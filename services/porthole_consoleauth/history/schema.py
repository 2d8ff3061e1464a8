# SPDX-License-Identifier: Apache-2.0
"""The version of the tables, and how they get to it: alembic, with the migrations beside this module.

Why SQLite is brought up by consoleauth itself, and a server only by ``porthole-manage db sync``: the file belongs to
one consoleauth, and must work as it comes; a server's tables are shared with consoleauths that may be older, so an
operator says when.
"""

import threading
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from porthole_consoleauth.history.database import Database

_SCRIPTS = Path(__file__).parent / "migrations"
CONNECTION = "connection"
# alembic keeps what it is doing in a module.
_LOCK = threading.Lock()


def find_newest() -> str:
    """Return the version that this release of Porthole has."""
    return ScriptDirectory.from_config(_build_config(None)).get_current_head() or ""


def read_version(database: Database) -> str:
    """Return the version of the tables; "" when there are none.

    :raises HistoryUnavailable: when the database does not answer.
    """
    with database.begin() as connection:
        return MigrationContext.configure(connection).get_current_revision() or ""


def knows(version: str) -> bool:
    """Return whether this release has the migration; a newer release may have others."""
    return any(
        script.revision == version for script in ScriptDirectory.from_config(_build_config(None)).walk_revisions()
    )


def sync(database: Database) -> tuple[str, str]:
    """Bring the tables up to the newest version; return the version before and after. A second call changes nothing.

    Tables of a newer release stay as they are.

    :raises HistoryUnavailable: when the database does not answer.
    """
    with _LOCK:
        before = read_version(database)
        if before == find_newest() or (before and not knows(before)):
            return before, before
        with database.begin() as connection:
            command.upgrade(_build_config(connection), "head")
        return before, read_version(database)


def _build_config(connection: sa.Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes[CONNECTION] = connection
    return config

# SPDX-License-Identifier: Apache-2.0
"""``porthole-manage``: the database of the history, for operators.

``db sync`` brings its tables up to this release, ``db version`` says where they are, ``db purge`` deletes old events.
Each may be run again. Run as the user ``porthole``, who owns a SQLite file.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import config_faults, errors
from porthole_common.service import EXIT_CONFIG, EXIT_FAILED
from porthole_consoleauth.history import schema
from porthole_consoleauth.history.database import Database, build_url
from porthole_consoleauth.history.service import PURGE_BATCH
from porthole_consoleauth.history.store import HistoryStore

PROGRAM = "porthole-manage"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 1 when the database does not answer, 78 for a wrong configuration."""
    arguments = _build_parser().parse_args(argv)
    conf = cfg.ConfigOpts()
    try:
        porthole_conf.parse(conf, PROGRAM, [f"--config-file={path}" for path in arguments.config_file])
        database = Database(build_url(conf))
        days = arguments.days if arguments.command == "purge" and arguments.days else conf.history.retention_days
    except (cfg.Error, errors.ConfigInvalid) as exc:
        sys.stderr.write(f"{PROGRAM}: {config_faults.explain(exc)}\n")
        return EXIT_CONFIG
    try:
        if arguments.command == "sync":
            said = _sync(database)
        elif arguments.command == "version":
            said = _tell_version(database)
        else:
            said = _purge(database, days)
    except errors.HistoryUnavailable as exc:
        sys.stderr.write(f"{PROGRAM}: {database.name}: {exc.reason}\n")
        return EXIT_FAILED
    finally:
        database.close()
    sys.stdout.write(said + "\n")
    return 0


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Manage the database of the history of consoles.")
    parser.add_argument(
        "--config-file", action="append", default=[], help="in the place of /etc/porthole/porthole.conf"
    )
    db = parser.add_subparsers(required=True, metavar="db").add_parser("db", help="the database")
    commands = db.add_subparsers(dest="command", required=True)
    commands.add_parser("sync", help="bring the tables up to this release")
    commands.add_parser("version", help="show the version of the tables, and the version of this release")
    purge = commands.add_parser("purge", help="delete old events")
    purge.add_argument("--days", type=_parse_days, help="keep this many days (default: [history] retention_days)")
    return parser


def _parse_days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 36500 and len(text) <= 6):
        raise argparse.ArgumentTypeError("it must be a number of days, from 1 up")
    return int(text)


def _sync(database: Database) -> str:
    before, after = schema.sync(database)
    if before != after:
        return f"{database.name}: from version {before or 'none'} to {after}"
    if not schema.knows(after):
        raise errors.HistoryUnavailable(f"its tables have version {after}, of a newer release of Porthole")
    return f"{database.name}: version {after}, nothing to do"


def _tell_version(database: Database) -> str:
    return (
        f"{database.name}: version {schema.read_version(database) or 'none'}; this release needs {schema.find_newest()}"
    )


def _purge(database: Database, days: int) -> str:
    store, count = HistoryStore(database), 0
    before = datetime.now(UTC) - timedelta(days=days)
    while deleted := store.purge(before, PURGE_BATCH):
        count += deleted
    return f"{database.name}: {count} rows deleted that were older than {days} days"


if __name__ == "__main__":
    sys.exit(main())

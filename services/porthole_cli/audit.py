# SPDX-License-Identifier: Apache-2.0
"""``porthole audit list``: what happened at the consoles, newest first.

Called by cliff through :mod:`porthole_cli.main`.
"""

import argparse
import itertools
from typing import Any

from cliff.lister import Lister

from porthole_cli.arguments import add_filters, find_value, parse_limit, read_filters
from porthole_cli.client import ComputeClient
from porthole_cli.cloud import open_cloud

# The columns, and where their values are in an event.
_COLUMNS = {
    "At": ("at",),
    "Kind": ("kind",),
    "Server": ("server", "id"),
    "User": ("user_id",),
    "Project": ("project_id",),
    "Client": ("client", "address"),
    "Session": ("session", "id"),
    "Mode": ("mode",),
    "By": ("by",),
    "Code": ("code",),
    "Reason": ("reason",),
    "ID": ("id",),
}
_FILTERS = {
    "server": "ID of a server.",
    "project-id": "ID of a project; another than your own is for administrators.",
    "user-id": "ID of a user.",
    "host": "A compute host; for administrators.",
    "client": "Address of a client.",
    "kind": "Such as session_opened, session_closed, console_refused, token_created.",
    "session": "ID of a session.",
    "since": "Time with its offset, such as 2026-07-01T12:00:00Z; included.",
    "until": "Time with its offset; not included.",
}
_DEFAULT_LIMIT = 100


class ListAudit(Lister):
    """List what happened at the consoles of your project, newest first."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the filters."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        add_filters(parser, _FILTERS)
        parser.add_argument(
            "--limit", type=parse_limit, default=_DEFAULT_LIMIT, metavar="N", help="At most N events (default: 100)."
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Return the header and one row per event."""
        filters = read_filters(parsed_args, _FILTERS)
        events = ComputeClient(open_cloud(self.app_args)).list_audit(filters, parsed_args.limit)
        rows = [
            tuple(find_value(event, path) for path in _COLUMNS.values())
            for event in itertools.islice(events, parsed_args.limit)
        ]
        return tuple(_COLUMNS), rows

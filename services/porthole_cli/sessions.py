# SPDX-License-Identifier: Apache-2.0
"""``porthole session list``, ``show`` and ``end``: who is at the consoles, and ending it.

Called by cliff through :mod:`porthole_cli.main`.
"""

import argparse
import itertools
import sys
from typing import Any

from cliff.command import Command
from cliff.lister import Lister
from cliff.show import ShowOne

from porthole_cli.arguments import add_filters, find_value, parse_limit, read_filters
from porthole_cli.client import ComputeClient
from porthole_cli.cloud import open_cloud
from porthole_cli.output import make_harmless

# The columns, and where their values are in a session.
_COLUMNS = {
    "ID": ("id",),
    "Server": ("server", "name"),
    "Server ID": ("server", "id"),
    "Type": ("type",),
    "Mode": ("mode",),
    "User": ("user_id",),
    "Project": ("project_id",),
    "Client": ("client", "address"),
    "Opened": ("opened_at",),
    "Last input": ("last_input_at",),
    "Proxy": ("proxy",),
    "Host": ("compute_host",),
}
# Of ended sessions, in the place of what only open ones have.
_ENDED_COLUMNS = {
    **{name: path for name, path in _COLUMNS.items() if name != "Last input"},
    "Ended": ("ended_at",),
    "Code": ("end", "code"),
    "Reason": ("end", "reason"),
    "By": ("end", "by"),
}
_FILTERS = {
    "server": "Name or ID of a server.",
    "project-id": "ID of a project; another than your own is for administrators.",
    "user-id": "ID of a user.",
    "host": "A compute host; for administrators.",
    "client": "Address of a client.",
    "since": "Time with its offset, such as 2026-07-01T12:00:00Z; included.",
    "until": "Time with its offset; not included.",
}
_DEFAULT_LIMIT = 1000


class ListSessions(Lister):
    """List the open console sessions, newest first; with --ended those of the history.

    A proxy that does not answer is named on standard error: its sessions are missing.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the filters."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("--ended", action="store_true", help="Sessions that have ended.")
        add_filters(parser, _FILTERS)
        parser.add_argument(
            "--limit",
            type=parse_limit,
            default=_DEFAULT_LIMIT,
            metavar="N",
            help=f"At most N sessions (default: {_DEFAULT_LIMIT}).",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Return the header and one row per session."""
        client = ComputeClient(open_cloud(self.app_args))
        filters = read_filters(parsed_args, _FILTERS)
        if "server" in filters:
            filters["server"] = client.find_server(filters["server"])["id"]
        if parsed_args.ended:
            filters["state"] = "ended"
        unreachable: list[str] = []
        sessions = client.list_sessions(filters, parsed_args.limit, unreachable)
        columns = _ENDED_COLUMNS if parsed_args.ended else _COLUMNS
        rows = [
            tuple(find_value(session, path) for path in columns.values())
            for session in itertools.islice(sessions, parsed_args.limit)
        ]
        warn_of(unreachable)
        if not rows and not unreachable:
            # On stderr: scripts read the rows on stdout, and to a person an empty table looks like an error.
            sys.stderr.write("There are no such console sessions.\n")
        return tuple(columns), rows


class ShowSession(ShowOne):
    """Show an open console session."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add ID."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("session", metavar="ID", help="ID of the session.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """Return the names and the values of the session."""
        session = ComputeClient(open_cloud(self.app_args)).get_session(parsed_args.session)
        shown = {name: find_value(session, path) for name, path in _COLUMNS.items()}
        shown |= {
            "User agent": find_value(session, ("client", "user_agent")),
            "Bytes to the client": session.get("bytes_to_client"),
            "Bytes from the client": session.get("bytes_from_client"),
        }
        return tuple(shown), tuple(shown.values())


class EndSession(Command):  # type: ignore[misc, unused-ignore]
    """End a console session, or all those of a server; its page says who ended it, and why."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add ID, or the server, and the reason."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("session", metavar="ID", nargs="?", help="ID of the session.")
        which.add_argument(
            "--server", metavar="SERVER", help="End all sessions of this server, and revoke all its console URLs."
        )
        parser.add_argument("--reason", default="", metavar="TEXT", help="Is shown to the person at the console.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """End it, and say what was done."""
        client = ComputeClient(open_cloud(self.app_args))
        if parsed_args.session is not None:
            client.end_session(parsed_args.session, parsed_args.reason)
            self.app.stdout.write(f"Session {parsed_args.session} has been ended.\n")
            return
        server = client.find_server(parsed_args.server)
        answer = client.end_sessions(server["id"], parsed_args.reason)
        self.app.stdout.write(f"{answer['ended']} sessions ended, {answer['revoked']} URLs revoked.\n")
        warn_of(answer.get("unreachable", []))


def warn_of(unreachable: list[str]) -> None:
    """Name the proxies that did not answer, each once."""
    if unreachable:
        names = ", ".join(dict.fromkeys(unreachable))
        sys.stderr.write(make_harmless(f"Not complete: no answer from {names}.\n"))

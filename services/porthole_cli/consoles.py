# SPDX-License-Identifier: Apache-2.0
"""``porthole get-vnc-console`` and ``porthole console create``: the URL of a server's screen.

Why two: the name, the arguments and the table of the first are those of ``nova get-vnc-console``, which people and
scripts already use. The type is optional here: almost every user wants the page. The second has what Nova has no words
for: URLs for watching only, and for a number of sessions. Called by cliff through :mod:`porthole_cli.main`.
"""

import argparse
import sys

from cliff.lister import Lister
from cliff.show import ShowOne

from porthole_cli.client import ComputeClient
from porthole_cli.cloud import open_cloud
from porthole_cli.errors import ApiRefused
from porthole_common.model import ConsoleMode, ConsoleType


class GetVncConsole(Lister):
    """Get a VNC console of a server: a URL that opens it, for a few minutes.

    To print only the URL: -f value -c Url. The table keeps the URL on one line, whatever the width.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add SERVER and the console type."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("server", metavar="SERVER", help="Name or ID of the server.")
        parser.add_argument(
            "console_type",
            metavar="{novnc,xvpvnc}",
            nargs="?",
            default=str(ConsoleType.NOVNC),
            choices=[str(name) for name in ConsoleType],
            help="novnc: a page for the browser, the default. xvpvnc: an address for a native VNC viewer.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, str], list[tuple[str, str]]]:
        """Return the header and the one console."""
        # cliff would fit the table to the terminal, and a URL over two lines cannot be copied.
        parsed_args.max_width = sys.maxsize
        client = ComputeClient(open_cloud(self.app_args))
        server = client.find_server(parsed_args.server)
        try:
            console = client.create_console(server["id"], parsed_args.console_type)
        except ApiRefused as exc:
            raise exc.about(server["id"], parsed_args.server) from exc
        if console.expires_at is not None and sys.stderr.isatty():
            # Only for a person at a terminal (O13), so that no script has to parse or ignore the line.
            sys.stderr.write(f"This URL opens the console until {console.expires_at:%Y-%m-%d %H:%M:%S} UTC.\n")
        return ("Type", "Url"), [(console.type, console.url)]


class CreateConsole(ShowOne):
    """Make a URL that opens a server's screen: for everything, or for watching only; once, or for a time.

    To print only the URL: -f value -c url. The table keeps the URL on one line, whatever the width.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add SERVER, and what the URL is for."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("server", metavar="SERVER", help="Name or ID of the server.")
        parser.add_argument(
            "--type",
            dest="console_type",
            default=str(ConsoleType.NOVNC),
            choices=[str(name) for name in ConsoleType],
            help="novnc: a page for the browser, the default. xvpvnc: an address for a native VNC viewer.",
        )
        parser.add_argument(
            "--view-only", action="store_true", help="Whoever has the URL sees the screen, and cannot type or click."
        )
        parser.add_argument("--one-time", action="store_true", help="The URL opens the screen once.")
        parser.add_argument(
            "--expires", metavar="SECONDS", type=int, help="How long the URL is good; at most the service's token_ttl."
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[object, ...]]:
        """Return the names and the values of the console."""
        parsed_args.max_width = sys.maxsize
        wish: dict[str, object] = {
            "type": parsed_args.console_type,
            "mode": str(ConsoleMode.VIEW if parsed_args.view_only else ConsoleMode.CONTROL),
        }
        if parsed_args.one_time:
            wish["uses"] = 1
        if parsed_args.expires is not None:
            wish["expires_in"] = parsed_args.expires
        client = ComputeClient(open_cloud(self.app_args))
        server = client.find_server(parsed_args.server)
        try:
            console = client.create_console_as_wished(server["id"], wish)
        except ApiRefused as exc:
            raise exc.about(server["id"], parsed_args.server) from exc
        expires_at = console.expires_at and console.expires_at.isoformat(timespec="seconds")
        uses = "any number" if console.uses is None else console.uses
        return ("type", "mode", "uses", "expires_at", "url"), (
            console.type,
            console.mode,
            uses,
            expires_at,
            console.url,
        )

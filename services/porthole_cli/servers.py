# SPDX-License-Identifier: Apache-2.0
"""``porthole list`` and ``porthole show``: all servers, and the properties of one.

Why: a user wants to see the name before asking for the console. Called by cliff through :mod:`porthole_cli.main`.
"""

import argparse
import sys
from typing import Any

from cliff.lister import Lister
from cliff.show import ShowOne

from porthole_cli.client import ComputeClient
from porthole_cli.cloud import open_cloud
from porthole_cli.invocation import find_command

# The rows of ``show``, in this order, and their keys in Nova's server. A key that the API omits is left out.
_SHOWN = {
    "id": "id",
    "name": "name",
    "status": "status",
    "host": "OS-EXT-SRV-ATTR:host",
    "task_state": "OS-EXT-STS:task_state",
    "project_id": "tenant_id",
    "user_id": "user_id",
    "created": "created",
    "updated": "updated",
}


class ListServers(Lister):
    """List the servers whose consoles you may open."""

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """Return the header and one row per server."""
        servers = list(ComputeClient(open_cloud(self.app_args)).list_servers(details=True))
        if not servers:
            # On stderr: scripts read the rows on stdout, and to a person an empty table looks like an error.
            sys.stderr.write(
                "There are no servers whose console you may open. "
                f"{find_command()} doctor says whether the hypervisor answers.\n"
            )
        return ("ID", "Name", "Status"), [(s["id"], s["name"], s.get("status", "")) for s in servers]


class ShowServer(ShowOne):
    """Show the properties of one server."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add SERVER."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("server", metavar="SERVER", help="Name or ID of the server.")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """Return the names and the values."""
        server = ComputeClient(open_cloud(self.app_args)).find_server(parsed_args.server)
        shown = {name: server[key] for name, key in _SHOWN.items() if key in server}
        return tuple(shown), tuple(shown.values())

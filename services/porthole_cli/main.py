# SPDX-License-Identifier: Apache-2.0
"""The ``porthole`` command: its global options, its subcommands, its log.

Why: cliff has the formats and the help. Added here are the options that find the cloud (:mod:`porthole_cli.cloud`), and
filters that keep tokens out of the terminal and the log file. Imports no service, so that ``porthole list`` starts
fast. Started by the shell as ``porthole``.
"""

import logging
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from cliff.app import App
from cliff.command import Command
from cliff.commandmanager import CommandManager

from porthole_cli import cloud
from porthole_cli.audit import ListAudit
from porthole_cli.consoles import CreateConsole, GetVncConsole
from porthole_cli.doctor.command import Doctor
from porthole_cli.errors import CloudInvalid, OutputFailed
from porthole_cli.output import STATUS_OUTPUT_LOST, finish_stdout, prepare_streams
from porthole_cli.redaction import UserInfoFilter, redact_user_info
from porthole_cli.servers import ListServers, ShowServer
from porthole_cli.sessions import EndSession, ListSessions, ShowSession
from porthole_cli.standalone import Standalone
from porthole_common.redaction import RedactingFilter

DESCRIPTION = (
    "Opens the screens of virtual machines. The cloud is found as by OpenStack's clients: with OS_* variables, with "
    "--os-cloud or OS_CLOUD and clouds.yaml, or with --os-auth-type none --os-endpoint URL. With none of these, "
    f"it is the Porthole on this machine, {cloud.DEFAULT_ENDPOINT}, without authentication."
)
COMMANDS: dict[str, type[Command]] = {
    "audit list": ListAudit,
    "console create": CreateConsole,
    "doctor": Doctor,
    "get-vnc-console": GetVncConsole,
    "list": ListServers,
    "session end": EndSession,
    "session list": ListSessions,
    "session show": ShowSession,
    "show": ShowServer,
    "standalone": Standalone,
}
_DEBUG_LEVEL = 2


class PortholeApp(App):  # type: ignore[misc, unused-ignore]
    """cliff's App with Porthole's commands."""

    NAME = "porthole"
    LOG = logging.getLogger(NAME)

    def __init__(self, argv: Sequence[str]) -> None:
        """Build the parser for ``argv``.

        :raises CloudInvalid: when the cloud or the authentication type in ``argv`` is unknown.
        """
        self._argv = argv
        self.is_stdout_closed = False
        commands = CommandManager("")
        for name, command in COMMANDS.items():
            commands.add_command(name, command)
        super().__init__(DESCRIPTION, _find_version(), commands, deferred_help=True)

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, Any] | None = None
    ) -> ArgumentParser:
        """Add the options that choose the cloud to cliff's own."""
        parser: ArgumentParser = super().build_option_parser(description, version, argparse_kwargs)
        cloud.register_options(parser, self._argv)
        return parser

    def initialize_app(self, argv: list[str]) -> None:
        """Refuse a command without a stdout, before it does anything; a standalone needs none.

        :raises OutputFailed: when stdout is closed.
        """
        if self.stdout is None and argv[:1] != ["standalone"]:
            self.is_stdout_closed = True
            raise OutputFailed("standard output is closed")

    def configure_logging(self) -> None:
        """Let cliff set up the log, then redact tokens in it. ``--debug`` shows every request."""
        if self.options.debug:
            self.options.verbose_level = _DEBUG_LEVEL
        super().configure_logging()
        for handler in logging.getLogger().handlers:
            handler.addFilter(RedactingFilter())
            handler.addFilter(UserInfoFilter())
            if isinstance(handler, logging.FileHandler) and handler.stream is not None:
                handler.stream.reconfigure(errors="backslashreplace")
            elif not isinstance(handler, logging.FileHandler) and self.options.verbose_level < _DEBUG_LEVEL:
                # The libraries' warnings only repeat the error that the user gets.
                handler.setLevel(logging.ERROR)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0; 1 after one line on stderr; 2 for a wrong command line; 3 when stdout cannot be written. The doctor has its own.
    """
    # With an empty command line, cliff would open an interactive shell.
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    prepare_streams()
    try:
        app = PortholeApp(arguments)
        status = int(app.run(arguments))
    except CloudInvalid as exc:
        sys.stderr.write(f"{redact_user_info(str(exc))}\n")
        return 1
    return finish_stdout(STATUS_OUTPUT_LOST if app.is_stdout_closed else status)


def _find_version() -> str:
    try:
        return metadata.version("porthole")
    except metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""``porthole doctor``: the command line.

Why apart from the rest: every ``porthole`` command imports this module, and only this command imports the examination.
Called by cliff through :mod:`porthole_cli.main`.
"""

import argparse
import logging
import os
import shutil
from typing import TYPE_CHECKING

from cliff.command import Command

from porthole_cli.errors import OutputFailed

if TYPE_CHECKING:
    from porthole_cli.doctor.report import Report

LOG = logging.getLogger(__name__)
# The monitoring plugins' status for "unknown". The report itself has 0, 1 and 2.
EXIT_FAILED = 3


class Doctor(Command):
    """Examine Porthole from here: configuration, RabbitMQ, every daemon, memcached, libvirt, VNC, TLS, clocks, limits.

    It says what is wrong and how to mend it; it changes nothing. It reads the configuration of this host and asks the
    daemons of all hosts over RabbitMQ, so run it as root or as the daemons' user, on any host that runs Porthole. On a
    host without a configuration it examines the porthole standalone that runs there. It ends within half a minute,
    whatever is broken. Exit status: 0 all is well, 1 there are warnings, 2 there are errors, 3 the doctor failed.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the files, the standalone and the format."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--config-file",
            metavar="PATH",
            action="append",
            default=[],
            help="Read this porthole.conf; may be repeated. Default: the daemons' own files, in /etc/porthole.",
        )
        what.add_argument(
            "--standalone",
            metavar="PID",
            nargs="?",
            type=int,
            const=0,
            help="Examine the porthole standalone on this machine. With PID: only that one. This is the default if a "
            "standalone runs and no daemon configuration exists.",
        )
        parser.add_argument(
            "-f",
            "--format",
            choices=["table", "json"],
            default="table",
            help="table: words for a terminal. json: {severity, findings: [{id, severity, host, problem, mend}], ...}.",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        """Examine, print, and return the exit status."""
        from porthole_cli.doctor import choice  # noqa: PLC0415

        if not self.app.options.debug:
            # The libraries log that a broker is unreachable; the findings say so in better words.
            for handler in logging.getLogger().handlers:
                handler.setLevel(logging.CRITICAL + 1)
        try:
            found, close = choice.examine(parsed_args.config_file, parsed_args.standalone)
            self._print(found, parsed_args.format)
            close()
        except BrokenPipeError:
            raise
        except OutputFailed as exc:
            self.app.stderr.write(f"{exc}\n")
            return EXIT_FAILED
        except Exception as exc:
            LOG.debug("The doctor failed", exc_info=True)
            self.app.stderr.write(f"porthole doctor failed: {_explain(exc)}\n")
            return EXIT_FAILED
        return found.exit_status

    def _print(self, found: "Report", output_format: str) -> None:
        from porthole_cli.doctor import report  # noqa: PLC0415

        stdout = self.app.stdout
        if output_format == "json":
            stdout.write(report.format_json(found))
        else:
            colours = stdout.isatty() and "NO_COLOR" not in os.environ
            stdout.write(report.format_text(found, shutil.get_terminal_size().columns, colours))
        stdout.flush()


def _explain(exc: Exception) -> str:
    """Return one line without the exception's own text, which may hold a password or another user's words."""
    if isinstance(exc, OSError) and exc.strerror:
        return f"{exc.strerror}."
    return f"{type(exc).__name__}. porthole --debug doctor shows where; please report that."

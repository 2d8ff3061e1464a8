# SPDX-License-Identifier: Apache-2.0
"""Standard output and standard error of the ``porthole`` command, also when they are closed or full.

Why: Python writes the buffer of stdout after the command has returned its status, so a full disk would give Python's
own exit status. And a name that the locale cannot encode would end the whole list. Called by :mod:`porthole_cli.main`.
"""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from porthole_cli.errors import OutputFailed

# The doctor uses 0, 1 and 2 for its report.
STATUS_OUTPUT_LOST = 3
_STATUS_BROKEN_PIPE = 128 + signal.SIGPIPE


class Output(io.TextIOWrapper):
    """A stdout that raises OutputFailed when a write fails; a reader that leaves is a BrokenPipeError, as usual.

    ``is_lost`` is True after the first failure.
    """

    is_lost = False

    def write(self, text: str, /) -> int:
        """Write ``text``, harmless to a terminal.

        :raises OutputFailed: when the file cannot be written.
        """
        with self._map_failure():
            return super().write(make_harmless(text))

    def flush(self) -> None:
        """Write the buffer.

        :raises OutputFailed: when the file cannot be written.
        """
        with self._map_failure():
            super().flush()

    @contextmanager
    def _map_failure(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as exc:
            self.is_lost = True
            raise OutputFailed(exc.strerror or str(exc)) from exc


def make_harmless(text: str) -> str:
    """Return ``text`` with a question mark for each character that cannot be printed, such as an escape.

    Names of servers and of users come from other people: an escape could rewrite the terminal, and a mark of direction
    the order of the words.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def prepare_streams() -> None:
    """Replace ``sys.stdout`` by an :class:`Output`, and a closed ``sys.stderr`` by a stream."""
    if sys.stderr is None:
        # The caller closed it, so no one reads the messages.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open until the process ends)
    stdout = sys.stdout
    # A test's own stream stays.
    if type(stdout) is io.TextIOWrapper:
        encoding, line_buffering = stdout.encoding, stdout.line_buffering
        sys.stdout = Output(stdout.detach(), encoding, "backslashreplace", line_buffering=line_buffering)


def finish_stdout(status: int) -> int:
    """Write the buffer of stdout; return ``status``, or the status of a failed write, now or before."""
    stdout = sys.stdout
    if not isinstance(stdout, Output):
        return status
    was_lost = stdout.is_lost
    try:
        stdout.flush()
    except BrokenPipeError:
        status = _STATUS_BROKEN_PIPE
    except OutputFailed as exc:
        if not was_lost:
            sys.stderr.write(f"{exc}\n")
    else:
        return STATUS_OUTPUT_LOST if was_lost else status
    # The text stays in the buffer, and Python would try to write it again when it exits.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stdout.fileno())
    return STATUS_OUTPUT_LOST if stdout.is_lost else status

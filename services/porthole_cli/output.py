# SPDX-License-Identifier: Apache-2.0
"""Standard output and standard error of the ``porthole`` command, whatever the shell made of them.

Why: Python writes what stdout holds after the command has given its status, so a full disk would be an exit status of
Python's own; and a name that the locale cannot write would hide the other servers. Called by
:mod:`porthole_cli.main`.
"""

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from porthole_cli.errors import OutputFailed

# The doctor's own are 0, 1 and 2.
STATUS_OUTPUT_LOST = 3
_STATUS_BROKEN_PIPE = 128 + signal.SIGPIPE


class Output(io.TextIOWrapper):
    """A stdout whose failures to write are OutputFailed; a reader that leaves is a BrokenPipeError as ever.

    ``is_lost`` is true from the first failure on.
    """

    is_lost = False

    def write(self, text: str, /) -> int:
        """Write ``text``.

        :raises OutputFailed: when the file takes no more.
        """
        with self._map_failure():
            return super().write(text)

    def flush(self) -> None:
        """Write what the buffer holds.

        :raises OutputFailed: when the file takes no more.
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


def prepare_streams() -> None:
    """Put an :class:`Output` in the place of ``sys.stdout``, and a stream in the place of a closed ``sys.stderr``."""
    if sys.stderr is None:
        # The caller closed it: nobody reads the messages.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open until the process ends)
    stdout = sys.stdout
    # A stream of a test stays what it is.
    if type(stdout) is io.TextIOWrapper:
        encoding, line_buffering = stdout.encoding, stdout.line_buffering
        sys.stdout = Output(stdout.detach(), encoding, "backslashreplace", line_buffering=line_buffering)


def finish_stdout(status: int) -> int:
    """Write what stdout still holds; return ``status``, or the status of a failure to write, now or before."""
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
    # The text stays in the buffer, and Python would try to write it once more at its end.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stdout.fileno())
    return STATUS_OUTPUT_LOST if stdout.is_lost else status

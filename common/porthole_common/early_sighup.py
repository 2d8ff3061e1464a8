# SPDX-License-Identifier: Apache-2.0
"""Keeps SIGHUP from ending a daemon that is still importing its modules; the first import of a daemon's ``main``.

Why: a daemon imports for about a second before :mod:`porthole_common.service` handles signals, and until then SIGHUP
ends a process (signal(7)). logrotate and operators send it without a look at the daemon's age. The signal is noted, and
the service reloads once it has started. Only where the program is a daemon's or ``porthole``'s own: a WSGI server has
handlers of its own.
"""

import os
import signal
import sys
from types import FrameType

_received: list[int] = []


def install() -> None:
    """Note SIGHUP instead of ending, unless the process handles or ignores it already."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _note)


def take() -> bool:
    """Return whether SIGHUP has come since the last call."""
    received = bool(_received)
    _received.clear()
    return received


def is_own_program(path: str) -> bool:
    """Return whether ``path``, as in ``sys.argv[0]``, is a command of Porthole's or the ``main`` of its packages."""
    folder, name = os.path.split(path)
    return name.partition("-")[0] == "porthole" or (
        name == "main.py" and os.path.basename(folder).startswith("porthole_")
    )


def _note(number: int, _frame: FrameType | None) -> None:
    _received.append(number)


if is_own_program(sys.argv[0]):
    install()

# SPDX-License-Identifier: Apache-2.0
"""The notifications of a daemon to systemd: sd_notify(3), and the watchdog of sd_watchdog_enabled(3).

Why: a unit of ``Type=notify`` counts as started when its daemon says so. A unit with ``WatchdogSec=`` is restarted when
its daemon has been silent for that time. The callers decide whether the daemon is ready and alive:
:mod:`porthole_common.service`, and :mod:`porthole_novncproxy.process.supervisor` for several processes. Without systemd
nothing is sent.
"""

import os
import time
from collections.abc import Callable, Mapping

import sdnotify

# While a daemon waits for a service that it depends on, each notification extends TimeoutStartSec= to this time from
# now. The notification is repeated well before.
_START_EXTENSION_S = 30.0
_REPEAT_S = 5.0
# Pings within WatchdogSec=; sd_watchdog_enabled(3) advises two.
_PINGS_PER_WATCHDOG = 3


class SystemdNotifier:
    """Sends notifications. Made before any child process, which must not send the same; any thread may use it."""

    def __init__(
        self,
        environ: Mapping[str, str] = os.environ,
        send: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the environment that systemd gives its services; ``send`` stands in for the socket."""
        if "NOTIFY_SOCKET" not in environ:
            send = _send_nothing
        self._send = send or sdnotify.SystemdNotifier().notify
        self._clock = clock
        self._sent_at_s = float("-inf")
        self.watchdog_s = _read_watchdog_s(environ)

    @property
    def ping_interval_s(self) -> float | None:
        """How often :meth:`ping` is due; None without a watchdog."""
        return self.watchdog_s / _PINGS_PER_WATCHDOG if self.watchdog_s else None

    def wait_for(self, what: str) -> None:
        """Say that the start goes on and waits for ``what``; calls that follow too soon send nothing."""
        if self._clock() - self._sent_at_s < _REPEAT_S:
            return
        self._sent_at_s = self._clock()
        self._send(f"STATUS=waits for {what}\nEXTEND_TIMEOUT_USEC={_in_microseconds(_START_EXTENSION_S)}")

    def ready(self) -> None:
        """Say that the start, or a reload, is done."""
        self._send("READY=1\nSTATUS=serving")

    def ping(self) -> None:
        """Say that the daemon is alive."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that the configuration is being reread; :meth:`ready` must follow."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={_in_microseconds(self._clock())}")

    def stopping(self, timeout_s: float) -> None:
        """Say that the daemon ends, and that it may take ``timeout_s`` from now, whatever TimeoutStopSec= says."""
        self._send(f"STOPPING=1\nSTATUS=ending\nEXTEND_TIMEOUT_USEC={_in_microseconds(timeout_s)}")


def _read_watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Return WatchdogSec= of this unit in seconds; None without a watchdog, or when it is for another process."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1e6 or None


def _in_microseconds(seconds: float) -> int:
    return int(seconds * 1e6)


def _send_nothing(_state: str) -> None:
    """Without systemd, send nothing."""

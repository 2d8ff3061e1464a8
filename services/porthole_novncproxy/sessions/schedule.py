# SPDX-License-Identifier: Apache-2.0
"""When each compute host is asked about its open consoles: spread over the interval, and sooner after an event.

Why: thousands of consoles, and all processes of the proxies, must not ask in the same moment. Thread-safe and without
I/O; the caller has the clock. Called by :mod:`porthole_novncproxy.sessions.recheck`.
"""

import random
import threading
from collections.abc import Callable, Collection

# After an event that all proxies see at once, such as the restart of a broker, hosts are asked within this time.
SPREAD_S = 1.0
# The part of the interval after which hosts are looked for that had no console before.
_DISCOVERY = 0.25
# The part of the interval by which a round may come early, so that the rounds of several proxies drift apart.
_JITTER = 0.1
# A host that left a question open is asked again after this part of the interval.
_RETRY = 0.25


class Schedule:
    """A host with a console is asked within ``interval_s`` after the console opened, and after each question."""

    def __init__(self, interval_s: float, draw: Callable[[], float] = random.random) -> None:
        """``draw`` returns a number from 0 to 1."""
        self._interval_s = interval_s
        self._draw = draw
        self._lock = threading.Lock()
        self._due_at: dict[str, float] = {}
        self._discovery_at = 0.0
        self._is_hasty = False

    def hasten(self, now: float, host: str | None = None) -> None:
        """Have ``host`` asked soon, or each host when it is None, although it is being asked now."""
        with self._lock:
            for each in [host] if host is not None else list(self._due_at):
                self._due_at[each] = min(self._due_at.get(each, now + SPREAD_S), now + self._draw() * SPREAD_S)
            if host is None:
                self._is_hasty = True
                self._discovery_at = now

    def retry(self, host: str, now: float) -> None:
        """Have ``host`` asked again before the next round, since it left a question open."""
        with self._lock:
            if host in self._due_at:
                self._due_at[host] = min(self._due_at[host], now + _RETRY * self._interval_s)

    def is_due(self, now: float) -> bool:
        """Whether a host may be due: then :meth:`take_due` wants the hosts that have consoles."""
        with self._lock:
            return now >= self._discovery_at or any(now >= due_at for due_at in self._due_at.values())

    def take_due(self, hosts: Collection[str], now: float, busy: Collection[str]) -> list[str]:
        """Return which of ``hosts``, all that have consoles, are due; those that are ``busy`` stay due."""
        with self._lock:
            delay_s = SPREAD_S if self._is_hasty else (1 - _DISCOVERY) * self._interval_s
            self._is_hasty = False
            self._discovery_at = now + _DISCOVERY * self._interval_s
            known = {host: self._due_at.get(host, now + self._draw() * delay_s) for host in hosts}
            due = [host for host, due_at in known.items() if now >= due_at and host not in busy]
            for host in due:
                known[host] = now + self._interval_s * (1 - _JITTER * self._draw())
            self._due_at = known
            return due

# SPDX-License-Identifier: Apache-2.0
"""Connections that are not admitted: how many there are, whose they are, and which one ends when there are too many.

Why: anybody may connect, and each connection costs a descriptor. A bound that refuses the newest connection would let
an attacker with silent connections keep everybody out (S41). So the oldest connection ends that waits for its client:
of the same source first, and when all are too many, of the site with the most (for IPv4 a site is a source). The oldest
of all would not do: an attacker who comes again and again is never the oldest, and a good client on a slow line is.

A connection counts from its accept until it ends or is a console. A request whose answer is being found counts too,
but nothing here ends it: :mod:`porthole_novncproxy.front.in_flight` bounds those. Pure; it is used in the loop's thread
by ``listener``, ``sender`` and :mod:`porthole_novncproxy.server`.
"""

import collections
import time
from collections.abc import Callable
from dataclasses import dataclass

from porthole_common.allowance import find_network, find_site
from porthole_common.log import get_logger
from porthole_novncproxy.front.connection import Connection, count_refused

LOG = get_logger(__name__)
# One line tells of all connections that were ended in so many seconds: an attacker must not fill the log.
_LOG_PAUSE_S = 5.0
_TOTAL, _PER_SOURCE = "[novncproxy] max_waiting_connections", "[novncproxy] max_waiting_connections_per_source"
_DESCRIPTORS = "[novncproxy] reserved_descriptors"


@dataclass(frozen=True)
class WaitingLimits:
    """The bounds, in connections.

    From the descriptor ``descriptor_mark`` on, each new connection ends the oldest one: the kernel hands out the lowest
    free number, so as many descriptors are open. None: the process has no limit.
    """

    total: int
    per_source: int
    descriptor_mark: int | None = None


@dataclass(eq=False, slots=True)
class _Idle:
    connection: Connection
    end: Callable[[], None]


class Waiting:
    """The connections of one process that are not admitted."""

    def __init__(
        self,
        limits: WaitingLimits,
        is_trusted_proxy: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``is_trusted_proxy(address)``: many clients come from there, so that the bound per source is not for it."""
        self.limits = limits
        self._is_trusted_proxy = is_trusted_proxy
        self._clock = clock
        # By descriptor: the source of each connection.
        self._sources: dict[int, str] = {}
        self._counts: collections.Counter[str] = collections.Counter()
        # By descriptor, the one that has waited for longest first; the same by source.
        self._idle: dict[int, _Idle] = {}
        self._idle_of: dict[str, dict[int, _Idle]] = {}
        # The same by site, for when all sources together have too many.
        self._idle_at: dict[str, dict[int, _Idle]] = {}
        self._ended = 0
        self._told_at_s = float("-inf")

    @property
    def total(self) -> int:
        """How many connections count now."""
        return len(self._sources)

    def enter(self, connection: Connection) -> None:
        """Count a connection that was just accepted; end older ones when there are too many."""
        source = self._sources[connection.fd] = find_network(connection.address)
        self._counts[source] += 1
        if not self._is_trusted_proxy(connection.address):
            while self._counts[source] > self.limits.per_source and source in self._idle_of:
                self._end(next(iter(self._idle_of[source].values())), _PER_SOURCE)
        while len(self._sources) > self.limits.total and self.end_oldest(_TOTAL):
            pass
        mark = self.limits.descriptor_mark
        if mark is not None and connection.fd >= mark:
            self.end_oldest()

    def leave(self, connection: Connection) -> None:
        """Count the connection no more: it has ended, or is a console. A second call does nothing."""
        self.set_busy(connection)
        if (source := self._sources.pop(connection.fd, None)) is not None:
            self._counts[source] -= 1
            if not self._counts[source]:
                del self._counts[source]

    def set_idle(self, connection: Connection, end: Callable[[], None]) -> None:
        """Note that the connection waits for its client from now on; ``end()`` ends it."""
        if connection.fd not in self._sources:
            return
        idle = self._idle[connection.fd] = _Idle(connection, end)
        self._idle_of.setdefault(self._sources[connection.fd], {})[connection.fd] = idle
        self._idle_at.setdefault(find_site(connection.address), {})[connection.fd] = idle

    def set_busy(self, connection: Connection) -> None:
        """Note that the connection does not wait for its client."""
        if self._idle.pop(connection.fd, None) is None:
            return
        for idle, key in (
            (self._idle_of, self._sources[connection.fd]),
            (self._idle_at, find_site(connection.address)),
        ):
            del idle[key][connection.fd]
            if not idle[key]:
                del idle[key]

    def end_oldest(self, limit: str = _DESCRIPTORS) -> bool:
        """End the oldest connection of the site with the most that wait; return False when none waits.

        Not of the source: a client with a site of IPv6 has as many sources as it likes, with one connection each.
        """
        if not self._idle_at:
            return False
        most = max(self._idle_at.values(), key=len)
        self._end(next(iter(most.values())), limit)
        return True

    def _end(self, idle: _Idle, limit: str) -> None:
        self.leave(idle.connection)
        self._ended += 1
        count_refused(idle.connection, limit.rpartition(" ")[2])
        now_s = self._clock()
        if now_s - self._told_at_s >= _LOG_PAUSE_S:
            LOG.warning("Waiting connections ended", client=idle.connection.address, limit=limit, count=self._ended)
            self._ended, self._told_at_s = 0, now_s
        idle.end()

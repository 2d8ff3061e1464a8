# SPDX-License-Identifier: Apache-2.0
"""The handshakes that are under way, and their deadlines.

Why: a handshake asks two daemons over the bus, and oslo.messaging has no time limit while the broker is away. Its
thread may not come back, and its client is answered in time all the same: by the loop, which looks after them all. A
thread of its own for each call, with another that waits for it, would keep deadlines too, at a sixth of the consoles
that a proxy can open in a second.
Used by :mod:`porthole_novncproxy.server`, from the loop's thread unless said otherwise.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from porthole_common.context import RequestContext
from porthole_common.thread_pool import EAGER, STALL_S, Job, Workers
from porthole_novncproxy.front.listener import Connection
from porthole_relay.loop import Loop

_STOP_POLL_S = 0.05
# The loop's own slack is added to it.
_LOOK_S = STALL_S / 2


@dataclass(eq=False)
class Handshake:
    """One request of ``connection``: it has a ``job`` in a worker, and arrived at a monotonic second."""

    connection: Connection
    context: RequestContext
    job: Job
    arrived_at: float


class Handshakes:
    """Does handshakes in at most ``threads`` threads, a few of them at a time as long as nobody is kept waiting."""

    def __init__(
        self, loop: Loop, threads: int, backlog: int, patience_s: float, on_late: Callable[[Handshake], None]
    ) -> None:
        """``patience_s``: how long a request may wait for a thread, and ``backlog`` how many may.

        ``on_late`` answers a client in the place of the thread: its connection is nobody's but the loop's by then.
        """
        self._loop = loop
        self._places = threads + backlog
        self._patience_s = patience_s
        self._on_late = on_late
        self._workers = Workers("handshake", threads, EAGER)
        self._under_way: dict[Handshake, None] = {}
        self._looks_on = False

    def begin(self, connection: Connection, context: RequestContext, work: Callable[[], None]) -> bool:
        """Have ``work()`` done, which calls ``connection.claim()`` before it answers; False when too many wait."""
        if len(self._under_way) >= self._places:
            return False

        def do() -> None:
            try:
                work()
            finally:
                self._under_way.pop(handshake, None)

        handshake = Handshake(connection, context, Job(do), time.monotonic())
        self._under_way[handshake] = None
        connection.job = handshake.job
        if not self._looks_on:
            self._looks_on = True
            self._loop.call_later(_LOOK_S, self._look)
        self._workers.start(handshake.job)
        return True

    def stop(self, timeout_s: float) -> None:
        """Wait for those under way, ``timeout_s`` seconds at most, answer the others, and end the threads.

        From any thread but theirs and the loop's.
        """
        deadline = time.monotonic() + timeout_s
        while self._under_way and time.monotonic() < deadline:
            time.sleep(_STOP_POLL_S)
        if self._under_way:
            self._loop.call_soon(lambda: self._give_up(list(self._under_way)))
            time.sleep(_STOP_POLL_S)
        self._workers.close()

    def _look(self) -> None:
        # First of all, whatever comes of the rest.
        self._looks_on = bool(self._under_way)
        if self._looks_on:
            self._loop.call_later(_LOOK_S, self._look)
        self._workers.relieve()
        now = time.monotonic()
        self._give_up([handshake for handshake in list(self._under_way) if self._is_late(handshake, now)])

    def _is_late(self, handshake: Handshake, now: float) -> bool:
        """Say whether it waits for its turn, or for a daemon, for too long."""
        job = handshake.job
        return now > (job.due_at if job.has_begun else handshake.arrived_at + self._patience_s)

    def _give_up(self, handshakes: Iterable[Handshake]) -> None:
        for handshake in handshakes:
            if self._workers.give_up(handshake.job):
                self._under_way.pop(handshake, None)
                self._on_late(handshake)

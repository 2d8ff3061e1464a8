# SPDX-License-Identifier: Apache-2.0
"""Console requests in flight: each in a thread, and all of them watched by the event loop.

Why: a console request asks two daemons over the bus, and oslo.messaging has no time limit while the broker is away. A
thread may not come back, and its client is answered in time all the same: by the loop, which looks at every deadline
ten times a second. A second thread for each call, which waits for the first one, would keep deadlines too, at a sixth
of the consoles that a proxy can open in a second.
Called by :mod:`porthole_novncproxy.server`, from the loop's thread unless said otherwise.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline, RequestAbandoned
from porthole_common.thread_pool import STALL_S, Job, ThreadPool
from porthole_novncproxy.front.connection import PendingRequest
from porthole_novncproxy.front.responses import Answer, discard
from porthole_relay.loop import Loop

# How many answers are looked for at once. More than the EAGER of other pools: requests that wait for a compute work
# little, and the more of them wait, the more questions go in the next call (doc/source/performance.rst).
_EAGER = 8
_STOP_POLL_S = 0.05
# A timer of the loop may be up to 0.1 s later.
_LOOK_S = STALL_S / 2

# Finds the answer; None when the client is to be hung up on.
Work = Callable[[Deadline], Answer | None]


@dataclass(eq=False)
class RequestInFlight:
    """A request whose answer a thread is looking for. ``arrived_at``: on the monotonic clock."""

    pending: PendingRequest
    context: RequestContext
    deadline: Deadline
    job: Job
    arrived_at: float


class RequestsInFlight:
    """Finds answers in at most ``threads`` threads, a few of them at a time as long as none has stalled."""

    def __init__(
        self,
        loop: Loop,
        threads: int,
        backlog: int,
        request_timeout_s: float,
        on_answer: Callable[[PendingRequest, Answer | None], None],
        on_late: Callable[[RequestInFlight], None],
    ) -> None:
        """``request_timeout_s``: how long a request may wait for a thread, and ``backlog`` how many may.

        ``on_answer`` and ``on_late`` own the pending request from then on. Both are called in the loop's thread, and of
        the two exactly one for each request.
        """
        self._loop = loop
        self._places = threads + backlog
        self._request_timeout_s = request_timeout_s
        self._on_answer = on_answer
        self._on_late = on_late
        self._threads = ThreadPool("handshake", threads, _EAGER)
        self._in_flight: dict[RequestInFlight, None] = {}
        self._looks_on = False

    def begin(self, pending: PendingRequest, context: RequestContext, work: Work) -> bool:
        """Have ``work(deadline)`` find the answer; False when too many requests are in flight."""
        if len(self._in_flight) >= self._places:
            return False
        deadline = Deadline()

        def do() -> None:
            answer = None
            try:
                answer = work(deadline)
            finally:
                self._finish(request, answer)

        request = RequestInFlight(pending, context, deadline, Job(do), time.monotonic())
        self._in_flight[request] = None
        if not self._looks_on:
            self._looks_on = True
            self._loop.call_later(_LOOK_S, self._look)
        self._threads.start(request.job)
        return True

    def stop(self, timeout_s: float) -> None:
        """Wait for the requests in flight, ``timeout_s`` at most, answer the others, and end the threads.

        From any thread but the loop's and the pool's.
        """
        due_at = time.monotonic() + timeout_s
        while self._in_flight and time.monotonic() < due_at:
            time.sleep(_STOP_POLL_S)
        if self._in_flight:
            self._loop.call_soon(lambda: self._give_up(list(self._in_flight)))
            time.sleep(_STOP_POLL_S)
        self._threads.close()

    def _finish(self, request: RequestInFlight, answer: Answer | None) -> None:
        """Hand the answer to the loop, unless the loop has answered. In the request's thread."""
        try:
            request.deadline.claim()
        except RequestAbandoned:
            if answer is not None:
                discard(answer)
        else:
            self._loop.call_soon(lambda: self._on_answer(request.pending, answer))
        self._in_flight.pop(request, None)

    def _look(self) -> None:
        # Set the next timer first: an error below must not stop the checks.
        self._looks_on = bool(self._in_flight)
        if self._looks_on:
            self._loop.call_later(_LOOK_S, self._look)
        self._threads.relieve()
        now = time.monotonic()
        self._give_up([request for request in list(self._in_flight) if self._is_late(request, now)])

    def _is_late(self, request: RequestInFlight, now: float) -> bool:
        """Whether the request has waited too long for a thread, or its thread for a daemon or a VNC server."""
        return now > (
            request.deadline.due_at if request.job.has_begun else request.arrived_at + self._request_timeout_s
        )

    def _give_up(self, requests: Iterable[RequestInFlight]) -> None:
        for request in requests:
            if self._threads.withdraw(request.job) or request.deadline.give_up():
                self._in_flight.pop(request, None)
                self._on_late(request)

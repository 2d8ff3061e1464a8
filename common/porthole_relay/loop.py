# SPDX-License-Identifier: Apache-2.0
"""One thread, one epoll: readiness of descriptors, timers, and calls from other threads.

Why not asyncio: the relay moves large reads with one system call each way, and asyncio's bookkeeping per event would
cost as much as the copy. Called by the modules of :mod:`porthole_novncproxy.front` that hold connections (``listener``,
``in_flight``, ``sender``) and :mod:`porthole_novncproxy.server`, and by :mod:`porthole_relay.stream_pair` and
:mod:`porthole_relay.session` for open consoles.
"""

import collections
import faulthandler
import heapq
import itertools
import math
import os
import queue
import select
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from porthole_common.log import get_logger

LOG = get_logger(__name__)
READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT
# The peer has ended its stream. Bytes that it sent before may be unread.
PEER_ENDED = select.EPOLLRDHUP
_MAX_EVENTS = 256
# How late a timer may be. So the timers of thousands of consoles, most of them for pings, wake the loop a few times a
# second together, and not one by one.
_TIMER_SLACK_S = 0.1
# Cancelled timers are swept out when there are twice as many timers as after the last sweep, and at least this many. A
# busy proxy cancels most of its timers long before they are due, and each would stay until then.
_MIN_SWEPT_TIMERS = 256
# Longer than any callback takes: a loop that has not ended by then is blocked in one.
_STOP_TIMEOUT_S = 5.0

Callback = Callable[[int], None]
Answer = TypeVar("Answer")


class Timer:
    """A call that is due later. After :meth:`cancel` it is not made."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Drop the call, and everything that it keeps alive."""
        self.action = None


class Loop:
    """An event loop. Other threads may call only :meth:`call_soon`, :meth:`ask`, :meth:`is_alive` and :meth:`stop`."""

    def __init__(self, name: str) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._soon: collections.deque[Callable[[], None]] = collections.deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._sweep_at = _MIN_SWEPT_TIMERS
        self._order = itertools.count()
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wakeup, select.EPOLLIN)
        self._stopping = False
        self._closing = threading.Lock()
        self._closed = False
        self._answered = True
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to run in a thread of its own."""
        self._thread.start()

    def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """End the loop after the calls that are due, wait for its thread, and release its descriptors.

        A thread that is blocked in a callback is waited for ``timeout_s`` seconds, and then left alone.
        """
        if self._thread.ident is not None:
            self._stopping = True
            self.call_soon(lambda: None)
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            LOG.error("Event loop blocked; its stack is on stderr")
            faulthandler.dump_traceback()
            return
        with self._closing:
            self._closed = True
            self._epoll.close()
            os.close(self._wakeup)

    def register(self, fd: int, events: int, callback: Callback) -> None:
        """Call ``callback(ready events)`` whenever ``fd`` is ready for one of ``events``."""
        self._callbacks[fd] = callback
        self._epoll.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        """Wait for other ``events`` of ``fd``; 0 waits for errors and hang-ups alone."""
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        """Forget ``fd``, before it is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_soon(self, action: Callable[[], None]) -> None:
        """Have ``action`` called by the loop's thread; from any thread. After the end of the loop it is dropped."""
        self._soon.append(action)
        with self._closing:
            if not self._closed:
                os.eventfd_write(self._wakeup, 1)

    def ask(self, question: Callable[[], Answer], timeout_s: float) -> Answer:
        """Return what ``question`` returns in the loop's thread; from any other thread.

        :raises TimeoutError: when there is no answer within ``timeout_s``: the loop is blocked, or has ended.
        """
        answered: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.call_soon(lambda: answered.put(question()))
        try:
            return answered.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError("the event loop has not answered") from None

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Timer:
        """Have ``action`` called in ``delay_s`` seconds."""
        if len(self._timers) >= self._sweep_at:
            self._sweep_timers()
        timer = Timer(action)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), timer))
        return timer

    def is_alive(self) -> bool:
        """Whether the loop has turned since the last call, which one thread alone makes. A loop at rest is alive."""
        if self._thread.ident is None or self._closed:
            return True
        answered = self._answered
        if answered:
            self._answered = False
            self.call_soon(self._answer)
        return answered

    def _answer(self) -> None:
        self._answered = True

    def _run(self) -> None:
        while not self._stopping or self._soon:
            for fd, events in self._epoll.poll(self._until_timer_s(), _MAX_EVENTS):
                if fd == self._wakeup:
                    os.eventfd_read(self._wakeup)
                    continue
                callback = self._callbacks.get(fd)
                # An earlier callback of this round may have closed it.
                if callback is not None:
                    self._guard(callback, events)
            # Calls that these calls ask for wait for the next turn, behind the other connections.
            for _ in range(len(self._soon)):
                self._guard(self._soon.popleft())
            self._run_timers()

    def _until_timer_s(self) -> float:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1
        due_at = math.ceil(self._timers[0][0] / _TIMER_SLACK_S) * _TIMER_SLACK_S
        return max(0.0, due_at - time.monotonic())

    def _sweep_timers(self) -> None:
        self._timers = [entry for entry in self._timers if entry[2].action is not None]
        heapq.heapify(self._timers)
        self._sweep_at = max(2 * len(self._timers), _MIN_SWEPT_TIMERS)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            action = heapq.heappop(self._timers)[2].action
            if action is not None:
                self._guard(action)

    def _guard(self, action: Callable[..., None], *arguments: int) -> None:
        """Run one callback; an error in one connection must not end the loop of all of them."""
        try:
            action(*arguments)
        except Exception:
            LOG.exception("Event loop callback failed")

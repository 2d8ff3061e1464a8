# SPDX-License-Identifier: Apache-2.0
"""Deadlines around code that has none: work runs in a worker thread, and its caller waits so long and no longer.

Why: oslo.messaging connects, declares and waits for a free connection without a time limit, so a thread that
calls it while the broker is away may not come back. With this the caller does, at its deadline; the worker
comes back with the broker. The number of workers is bounded, so a broker that stays away costs so many threads.
Called by :mod:`porthole_common.rpc`. Code that has time limits of its own shares one deadline among them by
:func:`get_remaining_s`.
"""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")
Job = tuple[Future[Any], Callable[[], Any]]


def get_remaining_s(deadline: float) -> float:
    """Return how many seconds are left until ``deadline``, a moment of the monotonic clock.

    :raises TimeoutError: when none are.
    """
    remaining_s = deadline - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError("the deadline has passed")
    return remaining_s


class DeadlinePassed(Exception):
    """The work was not done in time. It was dropped if it had not begun; else it goes on and nobody hears of it."""


class Workers:
    """At most ``limit`` daemon threads, started when they are needed and kept.

    Daemon threads, which concurrent.futures does not have: one that is stuck must not keep the process from ending.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._count = 0

    def run(self, work: Callable[[], Result], timeout_s: float) -> Result:
        """Return what ``work()`` returns, or raise what it raises.

        :raises DeadlinePassed: when ``timeout_s`` seconds have gone by before it has.
        """
        future: Future[Result] = Future()
        self._jobs.put((future, work))
        self._provide_worker()
        try:
            return future.result(timeout_s)
        except TimeoutError:
            # The work may itself have raised it.
            if future.done() and not future.cancelled():
                return future.result()
            future.cancel()
            raise DeadlinePassed from None
        finally:
            # An exception refers to this frame, and the frame to the future that holds the exception.
            del future

    def close(self) -> None:
        """Let the threads end: at once those that are idle, the others after their work."""
        with self._lock:
            for _ in range(self._count):
                self._jobs.put(None)
            self._count = self._limit

    def _provide_worker(self) -> None:
        if self._idle.acquire(blocking=False):
            return
        with self._lock:
            if self._count >= self._limit:
                return
            self._count += 1
            name = f"{self._name}-{self._count}"
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as exc:  # noqa: BLE001 (the caller raises it)
                    future.set_exception(exc)
            del job, future, work
            self._idle.release()

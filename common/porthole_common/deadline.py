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
from typing import Any, TypeVar

Result = TypeVar("Result")


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


class _Job:
    """Work, and what came of it. Locks and not concurrent.futures' conditions, which cost a call as much as a hop."""

    __slots__ = ("_claim", "_done", "_error", "_result", "_work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        # Who takes it decides whether the work is done or dropped; nobody gives it back.
        self._claim = threading.Lock()
        # Held until the work is done.
        self._done = threading.Lock()
        self._done.acquire()

    def do(self) -> None:
        """Do the work, unless it has been dropped."""
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._result = self._work()
        except BaseException as exc:  # noqa: BLE001 (the caller raises it)
            self._error = exc
        self._done.release()

    def wait(self, timeout_s: float) -> Any:
        """Return what the work returned, or raise what it raised.

        :raises DeadlinePassed: when that took too long; work that has not begun is dropped.
        """
        if not self._done.acquire(timeout=timeout_s):
            self._claim.acquire(blocking=False)
            raise DeadlinePassed
        if self._error is None:
            return self._result
        # An exception refers to this frame, and the frame to the job.
        error, self._error = self._error, None
        try:
            raise error
        finally:
            del error


class Workers:
    """At most ``limit`` daemon threads, started when they are needed and kept.

    Daemon threads, which concurrent.futures does not have: one that is stuck must not keep the process from ending.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._count = 0

    def run(self, work: Callable[[], Result], timeout_s: float) -> Result:
        """Return what ``work()`` returns, or raise what it raises.

        :raises DeadlinePassed: when ``timeout_s`` seconds have gone by before it has.
        """
        job = _Job(work)
        self._jobs.put(job)
        self._provide_worker()
        result: Result = job.wait(timeout_s)
        return result

    def close(self) -> None:
        """Let the threads end: at once those that are idle, the others after their work."""
        with self._lock:
            for _ in range(self._count):
                self._jobs.put(None)
            self._count = self._limit

    def _provide_worker(self) -> None:
        with self._lock:
            if self._idle:
                self._idle -= 1
                return
            if self._count >= self._limit:
                return
            self._count += 1
            name = f"{self._name}-{self._count}"
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.do()
            del job
            with self._lock:
                self._idle += 1

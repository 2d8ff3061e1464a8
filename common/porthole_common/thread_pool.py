# SPDX-License-Identifier: Apache-2.0
"""Threads for work that may be stuck: who waits for it, waits so long and no longer.

Why: oslo.messaging connects, declares and waits for a free connection without a time limit, so a thread that
calls it while the broker is away may not come back. With this the caller does, at its deadline; the worker
comes back with the broker. The number of workers is bounded, so a broker that stays away costs so many threads.

Why no more than a few of them at a time, where that is asked for: a hundred threads that all have something to do
spend a good part of their time in handing Python's lock to each other (doc/source/performance.rst has the figures).
Those that have waited for somebody for a moment do not count, so that nothing waits long behind a host that is silent.

Called by :mod:`porthole_common.rpc`, and for the handshakes of :mod:`porthole_novncproxy.server`.
"""

import collections
import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from porthole_common.deadline import DeadlinePassed
from porthole_common.log import get_logger

LOG = get_logger(__name__)
Result = TypeVar("Result")
# So many begin at once, where few are to: doc/source/performance.rst has other numbers.
EAGER = 4
# Work that has taken so long waits for somebody, and others may begin beside it.
STALL_S = 0.1
_local = threading.local()


class Job:
    """Work, and what came of it. Locks and not concurrent.futures' conditions, which cost a call as much as a hop."""

    __slots__ = ("_done", "_error", "_fate", "_result", "_work", "begun_at", "due_at", "subject")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        # Held by whoever was first to say what becomes of it; nobody gives it back.
        self._fate = threading.Lock()
        # Held until the work is done.
        self._done = threading.Lock()
        self._done.acquire()
        # On the monotonic clock; when it began, and when the call should be over that it makes: of what, and when.
        self.begun_at = math.inf
        self.due_at = math.inf
        self.subject: Any = None

    @property
    def has_begun(self) -> bool:
        """Whether a worker has it."""
        return self.begun_at < math.inf

    def settle(self) -> bool:
        """Decide what becomes of it, and say whether one was the first to: who waits gives up, or the worker answers.

        What is given up goes on as far as its next or present :meth:`call`, and nobody hears of it.
        """
        return self._fate.acquire(blocking=False)

    def call(self, work: Callable[[], Result], timeout_s: float, subject: Any) -> Result:
        """Do a part of the work, in its thread, which should take ``timeout_s`` at most; who waits may look it up.

        :raises DeadlinePassed: when the job was given up meanwhile; what ``work()`` did is done.
        """
        self.subject = subject
        self.due_at = time.monotonic() + timeout_s
        try:
            return work()
        finally:
            self.due_at = math.inf
            if self._fate.locked():
                raise DeadlinePassed(subject)

    def do(self) -> None:
        """Do the work."""
        _local.job = self
        try:
            self._result = self._work()
        except BaseException as exc:  # noqa: BLE001 (the caller raises it)
            self._error = exc
        _local.job = None
        self._done.release()

    def wait(self, timeout_s: float) -> bool:
        """Say whether it is done within ``timeout_s``."""
        return self._done.acquire(timeout=timeout_s)

    def get_result(self) -> Any:
        """Return what the work returned, or raise what it raised."""
        if self._error is None:
            return self._result
        # An exception refers to this frame, and the frame to the job.
        error, self._error = self._error, None
        try:
            raise error
        finally:
            del error


def get_current_job() -> Job | None:
    """Return the job that this thread works on; None where it is not a worker."""
    return getattr(_local, "job", None)


class Workers:
    """At most ``limit`` daemon threads, started when they are needed and kept.

    Of them at most ``eager`` begin while none has been at its work for longer than :data:`STALL_S`, and beside such as
    have as many again. Daemon threads, which concurrent.futures does not have: one that is stuck must not keep the
    process from ending.
    """

    def __init__(self, name: str, limit: int, eager: int | None = None) -> None:
        self._name = name
        self._limit = limit
        self._eager = limit if eager is None else min(eager, limit)
        self._lock = threading.Lock()
        self._waiting: collections.deque[Job] = collections.deque()
        self._running: dict[Job, None] = {}
        # The last one first: its stack is still in the processor's caches.
        self._idle: list[_Worker] = []
        self._count = 0
        self._closed = False

    def run(self, work: Callable[[], Result], timeout_s: float) -> Result:
        """Return what ``work()`` returns, or raise what it raises.

        :raises DeadlinePassed: when ``timeout_s`` seconds have gone by before it has, or the time of its present call.
        """
        job = Job(work)
        self.start(job)
        deadline = time.monotonic() + timeout_s
        while (left_s := min(deadline, job.due_at) - time.monotonic()) > 0:
            # It may begin a call meanwhile, or wait for others that are stalled by now.
            if job.wait(min(left_s, STALL_S)):
                result: Result = job.get_result()
                return result
            self.relieve()
        self.give_up(job)
        raise DeadlinePassed(job.subject)

    def start(self, job: Job) -> None:
        """Have it done, and return at once. Who waits for it calls :meth:`relieve` every :data:`STALL_S` or so."""
        with self._lock:
            self._waiting.append(job)
            self._begin_waiting()

    def withdraw(self, job: Job) -> bool:
        """Say whether it had not begun; then it never does."""
        with self._lock:
            if job.has_begun:
                return False
            self._waiting.remove(job)
            return True

    def give_up(self, job: Job) -> bool:
        """Say whether it is nobody's any more: it never begins, or nobody hears of what comes of it."""
        return self.withdraw(job) or job.settle()

    def relieve(self) -> None:
        """Have work begin that waits behind such as has been stalled meanwhile."""
        with self._lock:
            self._begin_waiting()

    def close(self) -> None:
        """Let the threads end: at once those that are idle, the others after their work and what waits behind it."""
        with self._lock:
            self._closed = True
            for worker in self._idle:
                worker.give(None)
            self._idle.clear()

    def get_next(self, worker: "_Worker", done: Job) -> Job | None:
        """Return what ``worker`` is to do next; None when it is to wait for that, or to end."""
        with self._lock:
            del self._running[done]
            if self._waiting and self._may_begin():
                return self._begin(self._waiting.popleft())
            if self._closed:
                worker.give(None)
            else:
                self._idle.append(worker)
            return None

    def _begin_waiting(self) -> None:
        while self._waiting and self._may_begin() and (self._idle or self._add_worker()):
            self._idle.pop().give(self._begin(self._waiting.popleft()))

    def _begin(self, job: Job) -> Job:
        job.begun_at = time.monotonic()
        self._running[job] = None
        return job

    def _may_begin(self) -> bool:
        if len(self._running) < self._eager:
            return True
        before = time.monotonic() - STALL_S
        stalled = sum(job.begun_at <= before for job in self._running)
        # In numbers that double: many that wait for one silent host are soon all under way.
        return len(self._running) - stalled < max(self._eager, stalled)

    def _add_worker(self) -> bool:
        """Say whether there is one more: there may be enough, or no more to be had."""
        if self._count >= self._limit:
            return False
        worker = _Worker(self)
        try:
            threading.Thread(target=worker.serve, name=f"{self._name}-{self._count + 1}", daemon=True).start()
        except RuntimeError as exc:
            # What waits goes on when a worker is free, or is given up.
            LOG.error("No thread can be started", part=self._name, threads=self._count, reason=exc)
            return False
        self._count += 1
        self._idle.append(worker)
        return True


class _Worker:
    """One thread's side of it: it sleeps on a lock of its own, so that the right one is woken."""

    __slots__ = ("_job", "_wake", "_workers")

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._job: Job | None = None
        self._wake = threading.Lock()
        self._wake.acquire()

    def give(self, job: Job | None) -> None:
        """Wake it for ``job``; None ends it."""
        self._job = job
        self._wake.release()

    def serve(self) -> None:
        """Work."""
        while True:
            self._wake.acquire()
            job, self._job = self._job, None
            if job is None:
                return
            while job is not None:
                job.do()
                job = self._workers.get_next(self, job)

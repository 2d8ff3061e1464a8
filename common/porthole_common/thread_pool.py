# SPDX-License-Identifier: Apache-2.0
"""A thread pool for work that may block for good, and whose caller waits only until a deadline.

Why: oslo.messaging connects, declares and waits for a free connection without a time limit, so a thread that calls
oslo.messaging while the broker is away may not come back. With a pool the caller returns at its deadline, and the
pool's thread returns with the broker. The number of threads is bounded, so a broker that stays away costs so many.

Why few threads work at once, where the pool is asked for that: a hundred busy threads spend a good part of their time
on handing Python's lock to each other (doc/source/performance.rst has the figures). A thread that has been at its work
for a moment waits for another process, and does not count. So no work waits long behind a host that is silent.

Called by :mod:`porthole_common.rpc`, :mod:`porthole_novncproxy.front.in_flight` and
:mod:`porthole_novncproxy.admission.dial`.
"""

import collections
import itertools
import math
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from porthole_common import pools
from porthole_common.deadline import Deadline, DeadlinePassed
from porthole_common.log import get_logger

LOG = get_logger(__name__)
Result = TypeVar("Result")
# The number of jobs that an eager pool runs at once: doc/source/performance.rst has other numbers.
EAGER = 4
# A job that has run for so long is taken to wait for another process, and others may begin beside it.
STALL_S = 0.1
# A thread without work for so long ends: what a crowd needed is given back once the crowd has gone.
IDLE_S = 10.0


class Job:
    """Work for a pool, and its result. Locks, since the conditions of concurrent.futures double the cost of a call."""

    __slots__ = ("_done", "_error", "_result", "_work", "begun_at")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        # Held until the work is done.
        self._done = threading.Lock()
        self._done.acquire()
        # By the pool's clock.
        self.begun_at = math.inf

    @property
    def has_begun(self) -> bool:
        """Whether a thread has taken the job."""
        return self.begun_at < math.inf

    @property
    def error(self) -> BaseException | None:
        """The error that the work has raised, until :meth:`get_result` raises it."""
        return self._error

    def do(self) -> None:
        """Do the work."""
        try:
            self._result = self._work()
        except BaseException as exc:  # noqa: BLE001 (the caller raises it)
            self._error = exc
        self._done.release()

    def wait(self, timeout_s: float) -> bool:
        """Return whether the work is done within ``timeout_s``."""
        return self._done.acquire(timeout=timeout_s)

    def get_result(self) -> Any:
        """Return the result of the work, or raise its error."""
        if self._error is None:
            return self._result
        # An exception refers to this frame, and the frame to the job.
        error, self._error = self._error, None
        try:
            raise error
        finally:
            del error


class ThreadPool:
    """At most ``limit`` daemon threads, started when they are needed; each ends after ``idle_s`` without work.

    At most ``eager`` jobs run at once, unless a running job has stalled: each job that has run for longer than
    :data:`STALL_S` lets another one begin. Daemon threads, which concurrent.futures does not have: a thread that is
    stuck must not keep the process from ending.
    """

    def __init__(
        self,
        name: str,
        limit: int,
        eager: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        idle_s: float = IDLE_S,
    ) -> None:
        """``name`` is the first part of the threads' names; ``clock`` says how long a job has run."""
        self.name = name
        self.limit = limit
        self._eager = limit if eager is None else min(eager, limit)
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: collections.deque[Job] = collections.deque()
        self._running: dict[Job, None] = {}
        # The last one first: its stack is still in the processor's caches.
        self._idle: list[_PoolThread] = []
        # The number of each thread, which is the last part of its name.
        self._numbers: set[int] = set()
        self._idle_s = idle_s
        self._closed = False
        pools.watch(self)

    @property
    def busy(self) -> int:
        """The number of jobs that run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """The number of jobs that have not begun."""
        return len(self._waiting)

    def run(self, work: Callable[[], Result], deadline: Deadline) -> Result:
        """Run ``work()``; return its result, or raise its error. The work may narrow ``deadline`` step by step.

        :raises DeadlinePassed: when the deadline passes first; the work is given up.
        """
        job = Job(work)
        self.start(job)
        while (left_s := deadline.due_at - time.monotonic()) > 0:
            # The work may begin a shorter step meanwhile, or wait behind jobs that have stalled by now.
            if job.wait(min(left_s, STALL_S)):
                result: Result = job.get_result()
                return result
            self.relieve()
        if not self.withdraw(job):
            deadline.give_up()
        raise DeadlinePassed

    def start(self, job: Job) -> None:
        """Have the job done, and return at once. The caller calls :meth:`relieve` every :data:`STALL_S` until then."""
        with self._lock:
            self._waiting.append(job)
            self._begin_waiting()

    def withdraw(self, job: Job) -> bool:
        """Keep a job that has not begun from ever beginning; return False when it has begun."""
        with self._lock:
            if job.has_begun:
                return False
            self._waiting.remove(job)
            return True

    def relieve(self) -> None:
        """Begin jobs that wait behind jobs that have stalled meanwhile."""
        with self._lock:
            self._begin_waiting()

    def close(self) -> None:
        """End the threads: idle threads at once, the others when all work is done."""
        with self._lock:
            self._closed = True
            for thread in self._idle:
                thread.give(None)
            self._idle.clear()

    def get_next(self, thread: "_PoolThread", done: Job) -> Job | None:
        """Return the next job of ``thread``; None when the thread is to wait for one, or to end."""
        with self._lock:
            del self._running[done]
            if self._waiting and self._may_begin():
                return self._begin(self._waiting.popleft())
            if self._closed:
                thread.give(None)
            else:
                self._idle.append(thread)
            return None

    def retire(self, thread: "_PoolThread") -> bool:
        """Give up a thread that is idle; return False when it has been given something meanwhile."""
        with self._lock:
            if thread not in self._idle:
                return False
            self._idle.remove(thread)
            self._numbers.remove(thread.number)
            return True

    def _begin_waiting(self) -> None:
        while self._waiting and self._may_begin() and (self._idle or self._add_thread()):
            self._idle.pop().give(self._begin(self._waiting.popleft()))

    def _begin(self, job: Job) -> Job:
        job.begun_at = self._clock()
        self._running[job] = None
        return job

    def _may_begin(self) -> bool:
        if len(self._running) < self._eager:
            return True
        before = self._clock() - STALL_S
        stalled = sum(job.begun_at <= before for job in self._running)
        # In numbers that double: of many jobs that wait for one silent host, all have soon begun.
        return len(self._running) - stalled < max(self._eager, stalled)

    def _add_thread(self) -> bool:
        """Start one more thread; return False when there are enough, or the system has none to give."""
        if len(self._numbers) >= self.limit:
            return False
        number = next(number for number in itertools.count(1) if number not in self._numbers)
        thread = _PoolThread(self, number, self._idle_s)
        try:
            threading.Thread(target=thread.serve, name=f"{self.name}-{number}", daemon=True).start()
        except RuntimeError as exc:
            # Jobs that wait go on when a thread is free, or are given up.
            LOG.error("Thread not started", part=self.name, threads=len(self._numbers), reason=exc)
            return False
        self._numbers.add(number)
        self._idle.append(thread)
        return True


class _PoolThread:
    """One thread's side of the pool: the thread sleeps on a lock of its own, so that the right one is woken."""

    __slots__ = ("_idle_s", "_job", "_pool", "_wake", "number")

    def __init__(self, pool: ThreadPool, number: int, idle_s: float) -> None:
        self._pool = pool
        self._idle_s = idle_s
        self.number = number
        self._job: Job | None = None
        self._wake = threading.Lock()
        self._wake.acquire()

    def give(self, job: Job | None) -> None:
        """Wake the thread for ``job``; None ends it."""
        self._job = job
        self._wake.release()

    def serve(self) -> None:
        """Do one job after the other, until there has been none for a while."""
        while True:
            if not self._wake.acquire(timeout=self._idle_s):
                if self._pool.retire(self):
                    return
                continue
            job, self._job = self._job, None
            if job is None:
                return
            while job is not None:
                job.do()
                job = self._pool.get_next(self, job)

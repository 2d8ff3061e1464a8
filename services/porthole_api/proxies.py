# SPDX-License-Identifier: Apache-2.0
"""The proxies' open sessions, gathered: which processes there are, and what each of them answers.

Why gathered at each request: the proxies are the truth about sessions, so no list of what is open is kept. Only the
names of the processes are: each one tells of itself at its start, and all are asked again every
:data:`ASK_INTERVAL_S` by discovery (:mod:`porthole_common.discovery`). All are asked side by side. Who does not answer
within a second is named in the answer, and is not asked again for a moment, so that a frozen proxy costs the others
little. A name is forgotten after :data:`FORGET_S`. A user has few requests under way at once: they hold threads here,
and work in each proxy.
"""

import collections
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from porthole_common import errors
from porthole_common.context import RequestContext, serving
from porthole_common.discovery import DaemonProcess, DiscoveryWatch
from porthole_common.log import get_logger
from porthole_common.open_session import OpenSession, SessionFilter
from porthole_common.recent import Recent
from porthole_common.rpc import Rpc
from porthole_common.thread_pool import Job, ThreadPool
from porthole_novncproxy.rpcapi import SESSIONS_TIMEOUT_S, TOPIC

LOG = get_logger(__name__)
PROXY = "novncproxy"
ASK_INTERVAL_S = 30.0
# How long a process that has not answered discovery is named as unreachable, if it does not answer requests either.
FORGET_S = 600.0
# How long the first answers may take.
FIRST_ANSWERS_S = 1.0
# A process that was silent is not asked again for so long.
SILENCE_PAUSE_S = 2.0
# It guards the memory: a site has some dozens of processes.
MAX_PROCESSES = 1000
# The processes that are asked at once, by all requests of users; a silent one keeps a thread for a second.
MAX_CALLS = 64
# How many lists and ends of one user may be under way at once.
MAX_PER_USER = 2
LIMIT = "requests for console sessions at once"
_MAX_NAME_CHARS = 255
# What a call may take beyond its own deadline, on a busy machine.
_GRACE_S = 0.2
Result = TypeVar("Result")


class ProxyCalls(Protocol):
    """The part of :class:`porthole_novncproxy.rpcapi.NovncProxyAPI` that is used here."""

    def list_sessions(  # noqa: D102
        self, context: RequestContext, server: str, asked: SessionFilter, limit: int, marker: str | None
    ) -> list[OpenSession]: ...

    def end_sessions(  # noqa: D102
        self,
        context: RequestContext,
        server: str,
        asked: SessionFilter,
        user_id: str | None,
        name: str | None,
        reason: str,
    ) -> int: ...


class Roster:
    """The processes of the proxy, by their names on the bus. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: Recent[str] = Recent(clock, FORGET_S, MAX_PROCESSES)
        self._asked_at: float | None = None
        self._lock = threading.Lock()

    def take(self, answer: DaemonProcess) -> None:
        """Take one answer of discovery, in an RPC thread."""
        name = answer.server
        if answer.daemon != PROXY or not 0 < len(name) <= _MAX_NAME_CHARS or not name.isprintable():
            return
        with self._lock:
            self._heard.add(name)

    def note_asked(self) -> None:
        """Note that all were asked, for the first time or again."""
        with self._lock:
            if self._asked_at is None:
                self._asked_at = self._clock()

    def list_names(self) -> list[str]:
        """Return the names that are known, in order."""
        with self._lock:
            return sorted(self._heard.list_keys())

    def missing_s(self) -> float | None:
        """Return how long the first answers may still be on their way; None when nobody was asked yet."""
        with self._lock:
            return None if self._asked_at is None else max(0.0, self._asked_at + FIRST_ANSWERS_S - self._clock())


def build_watch(rpc: Rpc, roster: Roster, server: str, interval_s: float = ASK_INTERVAL_S) -> DiscoveryWatch:
    """Return the thread that asks; ``server`` is the name of its subscription on the bus, the same at each start."""
    return DiscoveryWatch(rpc, server, (TOPIC,), interval_s, roster.take, on_asked=roster.note_asked)


class ProxySessions:
    """Asks all processes side by side; one per api process. Thread-safe."""

    def __init__(
        self,
        roster: Roster,
        proxies: ProxyCalls,
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = SESSIONS_TIMEOUT_S + _GRACE_S,
    ) -> None:
        """``timeout_s``: how long a request waits for the slowest process."""
        self._roster = roster
        self._proxies = proxies
        self._clock = clock
        self._timeout_s = timeout_s
        self._pool = ThreadPool("proxy-sessions", MAX_CALLS)
        self._silent: Recent[str] = Recent(clock, SILENCE_PAUSE_S, MAX_PROCESSES)
        self._under_way: collections.Counter[str | None] = collections.Counter()
        self._lock = threading.Lock()

    def list_sessions(
        self, context: RequestContext, asked: SessionFilter, limit: int, marker: str | None = None
    ) -> tuple[list[OpenSession], bool, list[str]]:
        """Return a page, newest first; whether there are more; and the processes that did not answer.

        :raises RateReached: when the user has too many such requests under way.
        :raises RpcUnavailable: when there has been no broker since the start.
        """
        pages, unreachable = self._ask_all(
            context, lambda server: self._proxies.list_sessions(context, server, asked, limit + 1, marker)
        )
        found = {session.id: session for page in pages for session in page}
        newest = [found[key] for key in sorted(found, reverse=True)]
        return newest[:limit], len(newest) > limit, unreachable

    def end_sessions(
        self, context: RequestContext, asked: SessionFilter, reason: str, proxy: str | None = None
    ) -> tuple[int, list[str]]:
        """End the sessions that ``asked`` lets through; return how many, and the processes that did not answer.

        ``proxy``: the only process to ask, also when it was silent lately.

        :raises RateReached: when the user has too many such requests under way.
        :raises RpcUnavailable: when there has been no broker since the start.
        """
        counts, unreachable = self._ask_all(
            context,
            lambda server: self._proxies.end_sessions(
                context, server, asked, context.user_id, context.user_name, reason
            ),
            proxy,
        )
        return sum(counts), unreachable

    def _ask_all(
        self, context: RequestContext, ask: Callable[[str], Result], only: str | None = None
    ) -> tuple[list[Result], list[str]]:
        with self._one_more(context.user_id):
            missing_s = self._roster.missing_s()
            if missing_s is None:
                raise errors.RpcUnavailable(TOPIC, "report_presence")
            if missing_s and only is None:
                time.sleep(missing_s)
            names = self._roster.list_names() if only is None else [only]
            with self._lock:
                skipped = {name for name in names if self._silent.has(name)} - {only}
            jobs = {name: self._begin(context, ask, name) for name in names if name not in skipped}
            due_at = self._clock() + self._timeout_s
            # A job can be waited for once.
            done = {name for name, job in jobs.items() if job.wait(max(0.0, due_at - self._clock()))}
            return self._collect(names, jobs, done)

    @contextlib.contextmanager
    def _one_more(self, user_id: str | None) -> Iterator[None]:
        with self._lock:
            if self._under_way[user_id] >= MAX_PER_USER:
                raise errors.RateReached(LIMIT, 1)
            self._under_way[user_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way[user_id] -= 1
                if not self._under_way[user_id]:
                    del self._under_way[user_id]

    def _begin(self, context: RequestContext, ask: Callable[[str], Result], name: str) -> Job:
        def call() -> Result:
            with serving(context):
                return ask(name)

        job = Job(call)
        self._pool.start(job)
        return job

    def _collect(self, names: Sequence[str], jobs: dict[str, Job], done: set[str]) -> tuple[list[Result], list[str]]:
        results: list[Result] = []
        unreachable: list[str] = []
        for name in names:
            job = jobs.get(name)
            if job is None:
                unreachable.append(name)
                continue
            # What has not begun says nothing about its process: too much is asked at once.
            was_asked = job.has_begun
            try:
                if name not in done:
                    self._pool.withdraw(job)
                    raise errors.RpcUnavailable(TOPIC, "sessions")
                results.append(job.get_result())
            except errors.PortholeError as exc:
                unreachable.append(name)
                if was_asked:
                    self._note_silence(name, exc)
            except Exception:
                # One process's answer must not cost the answers of the others.
                LOG.exception("Sessions of a proxy not known, by an internal error", proxy=name)
                unreachable.append(name)
        return results, unreachable

    def _note_silence(self, name: str, reason: errors.PortholeError) -> None:
        with self._lock:
            self._silent.add(name)
        LOG.warning("Sessions of a proxy not known", proxy=name, reason=reason)

# SPDX-License-Identifier: Apache-2.0
"""The proxies' open sessions, gathered: which processes there are, and what each of them answers.

Why gathered at each request: the proxies are the truth about sessions, so no list of what is open is kept. Only the
names of the processes are: each one tells of itself at its start, and all are asked again every
:data:`ASK_INTERVAL_S` by discovery (:mod:`porthole_common.discovery`). All are asked side by side. Who does not answer
within a second is named in the answer, and is not asked again for a moment, so that a frozen proxy costs the others
little. A name is forgotten after :data:`FORGET_S`.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from porthole_common import errors
from porthole_common.context import RequestContext, build_daemon_context, serving
from porthole_common.discovery import DISCOVERY_TOPIC, DaemonProcess, DiscoveryAnswers, ask_processes
from porthole_common.log import get_logger
from porthole_common.open_session import OpenSession, SessionFilter
from porthole_common.recent import Recent
from porthole_common.rpc import Rpc, RpcServer
from porthole_common.thread_pool import STALL_S, Job, ThreadPool
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
EAGER_CALLS = 8
# What a call may take beyond its own deadline, on a busy machine.
_GRACE_S = 0.2
_STOP_S = 2.0
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
        self._names: set[str] = set()
        self._asked_at: float | None = None
        self._lock = threading.Lock()

    def take(self, answer: DaemonProcess) -> None:
        """Take one answer of discovery, in an RPC thread."""
        if answer.daemon != PROXY:
            return
        with self._lock:
            self._heard.add(answer.server)
            self._names.add(answer.server)

    def note_asked(self) -> None:
        """Note that all were asked, for the first time or again."""
        with self._lock:
            if self._asked_at is None:
                self._asked_at = self._clock()

    def list_names(self) -> list[str]:
        """Return the names that are known, in order."""
        with self._lock:
            self._names = {name for name in self._names if self._heard.has(name)}
            return sorted(self._names)

    def missing_s(self) -> float | None:
        """Return how long the first answers may still be on their way; None when nobody was asked yet."""
        with self._lock:
            return None if self._asked_at is None else max(0.0, self._asked_at + FIRST_ANSWERS_S - self._clock())


class RosterWatch:
    """The thread that asks, and this api's subscription to the answers."""

    def __init__(self, rpc: Rpc, roster: Roster, server: str, interval_s: float = ASK_INTERVAL_S) -> None:
        """``server`` is the name of the subscription on the bus, the same at each start."""
        self._rpc = rpc
        self._roster = roster
        self._interval_s = interval_s
        self._server: RpcServer = rpc.get_server(DISCOVERY_TOPIC, server, [DiscoveryAnswers(roster.take)], threads=1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy-roster", daemon=True)

    def start(self) -> None:
        """Begin to ask; does not wait for the broker."""
        self._thread.start()

    def stop(self) -> None:
        """Stop asking."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)
            self._server.stop()

    def _run(self) -> None:
        try:
            self._server.start()
        except errors.RpcUnavailable:
            # The process ends, and has never had a broker.
            return
        while not self._stopping.is_set():
            context = build_daemon_context()
            try:
                with serving(context):
                    ask_processes(self._rpc, context, (TOPIC,))
                self._roster.note_asked()
            except errors.PortholeError as exc:
                LOG.debug("Proxies not asked for their names", reason=exc)
            except Exception:
                # The thread must live on.
                LOG.exception("Proxies not asked for their names, by an internal error")
            self._stopping.wait(self._interval_s)


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
        self._pool = ThreadPool("proxy-sessions", MAX_CALLS, EAGER_CALLS)
        self._silent: Recent[str] = Recent(clock, SILENCE_PAUSE_S, MAX_PROCESSES)

    def list_sessions(
        self, context: RequestContext, asked: SessionFilter, limit: int, marker: str | None = None
    ) -> tuple[list[OpenSession], bool, list[str]]:
        """Return a page, newest first; whether there are more; and the processes that did not answer.

        :raises RequestInvalid: when the marker is malformed.
        :raises RpcUnavailable: when there has been no broker since the start.
        """
        pages, unreachable = self._ask_all(
            context, lambda server: self._proxies.list_sessions(context, server, asked, limit + 1, marker)
        )
        found = {session.id: session for page in pages for session in page}
        newest = [found[key] for key in sorted(found, reverse=True)]
        return newest[:limit], len(newest) > limit, unreachable

    def end_sessions(self, context: RequestContext, asked: SessionFilter, reason: str) -> tuple[int, list[str]]:
        """End the sessions that ``asked`` lets through; return how many, and the processes that did not answer.

        :raises RpcUnavailable: when there has been no broker since the start.
        """
        counts, unreachable = self._ask_all(
            context,
            lambda server: self._proxies.end_sessions(
                context, server, asked, context.user_id, context.user_name, reason
            ),
        )
        return sum(counts), unreachable

    def close(self) -> None:
        """End the threads."""
        self._pool.close()

    def _ask_all(self, context: RequestContext, ask: Callable[[str], Result]) -> tuple[list[Result], list[str]]:
        missing_s = self._roster.missing_s()
        if missing_s is None:
            raise errors.RpcUnavailable(TOPIC, "report_presence")
        if missing_s:
            time.sleep(missing_s)
        names = self._roster.list_names()
        jobs = {name: self._begin(context, ask, name) for name in names if not self._silent.has(name)}
        due_at = self._clock() + self._timeout_s
        waiting = list(jobs.values())
        while waiting and (left_s := due_at - self._clock()) > 0:
            # Behind calls that have stalled the pool begins others.
            if waiting[0].wait(min(left_s, STALL_S)):
                waiting.pop(0)
            else:
                self._pool.relieve()
        return self._collect(names, jobs, set(map(id, waiting)))

    def _begin(self, context: RequestContext, ask: Callable[[str], Result], name: str) -> Job:
        def call() -> Result:
            with serving(context):
                return ask(name)

        job = Job(call)
        self._pool.start(job)
        return job

    def _collect(self, names: Sequence[str], jobs: dict[str, Job], waiting: set[int]) -> tuple[list[Result], list[str]]:
        results: list[Result] = []
        unreachable: list[str] = []
        for name in names:
            job = jobs.get(name)
            if job is None:
                unreachable.append(name)
                continue
            try:
                if id(job) in waiting and not job.wait(0):
                    self._pool.withdraw(job)
                    raise errors.RpcUnavailable(TOPIC, "sessions")
                results.append(job.get_result())
            except errors.Unavailable as exc:
                unreachable.append(name)
                if isinstance(exc, errors.RpcUnavailable):
                    self._silent.add(name)
                LOG.warning("Sessions of a proxy not known", proxy=name, reason=exc)
        return results, unreachable

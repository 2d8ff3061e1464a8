# SPDX-License-Identifier: Apache-2.0
"""Asks the compute hosts again about the open consoles, and ends those that are no longer valid.

Why: a revocation is a message, and a message may be missed while the broker restarts or this process stands still. So
whether a console is still valid can be looked up at any time, and this module looks: after every new subscription to
the revocations, after a compute host has started, and besides at an interval. A host that does not answer says nothing
about its consoles: they go on, and the host is asked again.

The answer to an older question never ends a younger console, since a question is about sessions and not about their
instances. Made by :mod:`porthole_novncproxy.daemon`; :mod:`~porthole_novncproxy.sessions.schedule` says when a host is
asked, and :mod:`~porthole_novncproxy.sessions.registry` has the sessions.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from porthole_common import errors
from porthole_common.context import RequestContext, build_daemon_context, serving
from porthole_common.log import get_logger
from porthole_common.model import Claim, ConnectInfo, RevocationReason, Target, TokenReason
from porthole_common.thread_pool import STALL_S, Job, ThreadPool
from porthole_compute.rpcapi import MAX_CONSOLES
from porthole_novncproxy.admission.gate import Admission
from porthole_novncproxy.sessions.schedule import Schedule
from porthole_relay.session import Session

LOG = get_logger(__name__)
# Hosts that are asked at once. Of these a few work at a time, and the others wait for hosts that are silent: a silent
# host keeps its thread for the deadline of a call.
MAX_HOSTS_AT_ONCE = 32
EAGER_HOSTS = 4
# How often the subscription is looked at: a new one is noticed after this time.
LOOK_S = 1.0
# Between two calls to one host, so that a host with thousands of consoles is not asked about all of them at once.
BATCH_PAUSE_S = 0.1
# How long the loop may take to list its sessions. It lists them in its next turn.
LIST_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 2.0
_REASONS = {str(TokenReason.OWNER_CHANGED): RevocationReason.OWNER_CHANGED}

OpenConsole = tuple[Session, Admission]


class OpenConsoles(Protocol):
    """The part of :class:`porthole_novncproxy.sessions.registry.SessionRegistry` that is used here."""

    def list_open(self, timeout_s: float) -> list[OpenConsole]: ...  # noqa: D102

    def end(self, sessions: Sequence[Session], reason: RevocationReason) -> None: ...  # noqa: D102


class ConsolesValidator(Protocol):
    """The part of :class:`porthole_compute.rpcapi.ComputeAPI` that is used here."""

    def validate_consoles(  # noqa: D102
        self, context: RequestContext, compute_host: str, consoles: Sequence[ConnectInfo], *, log_failures: bool
    ) -> list[Target | errors.PortholeError]: ...


class Recheck:
    """A thread that asks, and the threads in which several hosts are asked side by side."""

    def __init__(
        self,
        sessions: OpenConsoles,
        compute: ConsolesValidator,
        schedule: Schedule,
        get_subscription: Callable[[], object | None],
        clock: Callable[[], float] = time.monotonic,
        batch_pause_s: float = BATCH_PAUSE_S,
    ) -> None:
        """``get_subscription`` returns a new object after each new subscription, and None while there is none."""
        self._sessions = sessions
        self._compute = compute
        self._schedule = schedule
        self._get_subscription = get_subscription
        self._clock = clock
        self._batch_pause_s = batch_pause_s
        self._subscription: object | None = None
        self._pool = ThreadPool("recheck", MAX_HOSTS_AT_ONCE, EAGER_HOSTS)
        self._asking: dict[str, Job] = {}
        # Hosts that have left a question open, until they have answered all: the loss is logged once.
        self._silent: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recheck", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask nothing more; a question under way ends by its deadline, and its answer ends no console."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)
        self._pool.close()

    def on_host_started(self, host: str) -> None:
        """Ask ``host`` soon, since its compute has started; returns at once. Any thread may call it."""
        self._schedule.hasten(self._clock(), host)

    def look(self) -> bool:
        """Begin to ask the hosts that are due; return whether a question is under way."""
        now = self._clock()
        subscription = self._get_subscription()
        if subscription is not None and subscription is not self._subscription:
            self._schedule.hasten(now)
        self._subscription = subscription
        for host in [host for host, job in self._asking.items() if job.wait(0)]:
            self._finish(host, self._asking.pop(host))
        # Without a subscription there is no broker either: a question would keep a thread for as long.
        if subscription is not None and self._schedule.is_due(now):
            self._begin(now)
        if self._asking:
            self._pool.relieve()
        return bool(self._asking)

    def ask(self, host: str, consoles: Sequence[OpenConsole]) -> str:
        """Ask ``host`` about ``consoles`` of it, and end those that are not valid; in the calling thread.

        Return why there is no answer about some or all of them; "" when there is one about all.
        """
        reason = ""
        context = build_daemon_context()
        with serving(context):
            for batch in self._split(consoles):
                try:
                    answers = self._compute.validate_consoles(
                        context, host, [same[0][1].connect_info for same in batch], log_failures=False
                    )
                except errors.Unavailable as exc:
                    return str(exc)
                if self._stopping.is_set():
                    break
                reason = next((str(answer) for answer in answers if isinstance(answer, errors.Unavailable)), reason)
                self._end(host, batch, answers)
        return reason

    def _begin(self, now: float) -> None:
        by_host: dict[str, list[OpenConsole]] = {}
        try:
            consoles = self._sessions.list_open(LIST_TIMEOUT_S)
        except TimeoutError:
            # The loop is blocked, which the watchdog sees, or has ended.
            return
        for console in consoles:
            by_host.setdefault(console[1].connect_info.compute_host, []).append(console)
        self._silent &= by_host.keys()
        for host in self._schedule.take_due(by_host, now, self._asking):
            self._asking[host] = job = Job(lambda host=host: self.ask(host, by_host[host]))  # type: ignore[misc]
            self._pool.start(job)

    def _finish(self, host: str, job: Job) -> None:
        try:
            reason = job.get_result()
        except Exception:
            # A fault about one host must not keep the others from being asked.
            LOG.exception("Open consoles not rechecked", compute=host)
            return
        if reason:
            self._schedule.retry(host, self._clock())
            if host not in self._silent:
                self._silent.add(host)
                LOG.warning("Open consoles not validated; asking again", compute=host, reason=reason)
        elif host in self._silent:
            self._silent.discard(host)
            LOG.info("Open consoles validated again", compute=host)

    def _split(self, consoles: Sequence[OpenConsole]) -> Iterator[list[list[OpenConsole]]]:
        """Yield batches of questions; the consoles with the same answer are one question."""
        same: dict[Claim, list[OpenConsole]] = {}
        for console in consoles:
            same.setdefault(console[1].connect_info.claim, []).append(console)
        questions = list(same.values())
        for first in range(0, len(questions), MAX_CONSOLES):
            if first and self._stopping.wait(self._batch_pause_s):
                return
            yield questions[first : first + MAX_CONSOLES]

    def _end(
        self, host: str, batch: Sequence[list[OpenConsole]], answers: Sequence[Target | errors.PortholeError]
    ) -> None:
        ended: dict[RevocationReason, list[Session]] = {}
        for same, answer in zip(batch, answers, strict=True):
            # Nothing else ends a console: a guest that migrates is not ready, and shows its screen until it has moved.
            if isinstance(answer, errors.TokenInvalid):
                reason = _REASONS.get(answer.reason, RevocationReason.ENDED)
                ended.setdefault(reason, []).extend(session for session, _ in same)
        for reason, sessions in ended.items():
            LOG.info("Open consoles no longer valid", compute=host, reason=reason, sessions=len(sessions))
            self._sessions.end(sessions, reason)

    def _run(self) -> None:
        is_asking = False
        while not self._stopping.wait(STALL_S if is_asking else LOOK_S):
            try:
                is_asking = self.look()
            except Exception:
                # This thread must live on: no other one finds a revocation that was missed.
                LOG.exception("Open consoles not rechecked")

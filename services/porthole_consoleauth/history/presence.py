# SPDX-License-Identifier: Apache-2.0
"""Which processes of the proxy live: the sessions of one that died are closed in the history.

A process counts as dead when it has left :data:`ROUNDS` questions unanswered, which go out by discovery
(:mod:`porthole_common.discovery`) over ``[history] proxy_timeout``. A question counts only when this consoleauth has
heard its own answer to it: then the broker took the question, and answers arrive here. So no proxy is taken for dead
because a broker or this consoleauth was away, and a clock that is set changes nothing. A process that was frozen, or
cut off, and answers again has its sessions opened again; what it has reported meanwhile stays.

The same answers show a consoleauth on another host, beside which no SQLite file may be used. A thread of its own.
"""

import threading
from collections import Counter
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Protocol

from porthole_common.discovery import DaemonProcess, DiscoveryWatch
from porthole_common.history.event import HistoryEvent
from porthole_common.log import get_logger
from porthole_common.notifications import REVOCATIONS_TOPIC
from porthole_common.rpc import Rpc
from porthole_consoleauth.rpcapi import TOPIC

LOG = get_logger(__name__)
# How many questions a process may leave unanswered.
ROUNDS = 6
PROXY, CONSOLEAUTH = "novncproxy", "consoleauth"


class Store(Protocol):
    """The part of :class:`porthole_consoleauth.history.store.HistoryStore` that is used here."""

    @property
    def is_local(self) -> bool: ...  # noqa: D102

    def refuse(self, reason: str) -> None: ...  # noqa: D102
    def list_open_processes(self) -> set[str]: ...  # noqa: D102
    def close_presumed(self, process: str, now: datetime) -> list[HistoryEvent]: ...  # noqa: D102
    def reopen_presumed(self, processes: Collection[str]) -> int: ...  # noqa: D102


class Presence:
    """The rules, without a thread and without a bus: :meth:`take` an answer, :meth:`judge` a round."""

    def __init__(self, store: Store, host: str, process: str, on_closed: Callable[[list[HistoryEvent]], None]) -> None:
        """``host`` and ``process`` are this consoleauth's; ``on_closed`` gets the events of presumed ends."""
        self._store = store
        self._host = host
        self._process = process
        self._on_closed = on_closed
        self._lock = threading.Lock()
        self._answers: dict[str, DaemonProcess] = {}
        self._missed: Counter[str] = Counter()
        self._rounds_alone = 0

    def take(self, answer: DaemonProcess) -> None:
        """Take one answer, in an RPC thread."""
        with self._lock:
            self._answers[answer.process] = answer

    def judge(self) -> None:
        """Judge the round that ends now.

        :raises HistoryUnavailable: when the database is away; the next round judges the same.
        """
        with self._lock:
            answers, self._answers = self._answers, {}
        if self._process not in answers:
            return
        if self._store.is_local:
            self._judge_neighbours(answers.values())
        alive = {answer.process for answer in answers.values() if answer.daemon == PROXY}
        if alive and (reopened := self._store.reopen_presumed(alive)):
            LOG.warning("Sessions open again; their proxy answers again", sessions=reopened)
        silent = self._store.list_open_processes() - alive
        self._missed = Counter({process: self._missed[process] + 1 for process in silent})
        for process, missed in self._missed.items():
            if missed >= ROUNDS:
                closed = self._store.close_presumed(process, datetime.now(UTC))
                LOG.warning("Sessions closed; their proxy stopped answering", process=process, sessions=len(closed))
                self._on_closed(closed)

    def _judge_neighbours(self, answers: Collection[DaemonProcess]) -> None:
        others = sorted({each.host for each in answers if each.daemon == CONSOLEAUTH and each.host != self._host})
        self._rounds_alone = 0 if others else self._rounds_alone + 1
        if others:
            self._store.refuse(
                f"consoleauth also runs on {', '.join(others)}, and SQLite serves one host; "
                "give all of them one server in [database] connection"
            )
        elif self._rounds_alone >= ROUNDS:
            self._store.refuse("")


def build_watch(rpc: Rpc, presence: Presence, server: str, timeout_s: float) -> DiscoveryWatch:
    """Return the thread that asks; ``server`` is the name of its subscription on the bus, the same at each start."""
    topics = (REVOCATIONS_TOPIC, TOPIC)
    return DiscoveryWatch(rpc, server, topics, timeout_s / ROUNDS, presence.take, on_round=presence.judge)

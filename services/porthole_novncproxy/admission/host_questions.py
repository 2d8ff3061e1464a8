# SPDX-License-Identifier: Apache-2.0
"""Questions to compute hosts about consoles: those that come while a host is being asked go to it together.

Why: each console needs two answers of its host, one before its VNC server is dialled and one once the connection
stands. Under load the calls grow, and their number does not: a question that had to wait for its turn waits for others
too, for :data:`GATHER_S`. No question waits long behind another one: a call that has not returned after
:data:`STALL_S` is not waited for, and a guest that its hypervisor did not answer about is asked about alone.

A question is never part of a call that was sent before: its answer is younger than the question.
Called by :mod:`porthole_novncproxy.admission.gate`, in the threads of requests.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline
from porthole_common.model import Claim, ConnectInfo, Target
from porthole_common.recent import Recent
from porthole_common.rpc_client import GRACE_S
from porthole_common.thread_pool import STALL_S
from porthole_compute.rpcapi import MAX_CONSOLES

# How long a compute may wait for one guest before it answers about the other guests of a call.
BATCH_TIMEOUT_S = 0.5
# How long a question whose turn it is lets others come along. A call costs the daemons and the broker more than this.
GATHER_S = 0.002
# How long that guest is then asked about alone: longer than the question may hold a thread of the compute.
_GUEST_ALONE_S = 10.0
# And how long a compute whose version knows no such call is asked about each guest alone.
_HOST_ALONE_S = 60.0
# It guards the memory: the first one is asked about together with others again.
_MAX_ALONE = 1024
_METHOD = ("compute", "validate_consoles")
Answer = Target | errors.PortholeError


class ConsoleValidator(Protocol):
    """The part of :class:`porthole_compute.rpcapi.ComputeAPI` that is used here."""

    def validate_console(  # noqa: D102
        self, context: RequestContext, compute_host: str, claim: Claim, deadline: Deadline
    ) -> Target: ...

    def validate_consoles(  # noqa: D102
        self,
        context: RequestContext,
        compute_host: str,
        consoles: Sequence[ConnectInfo],
        deadline: Deadline,
        timeout_s: float,
    ) -> list[Answer]: ...


class _Question:
    """One question; its thread is woken when there is the answer, or when it is to make the next call."""

    __slots__ = ("answer", "info", "is_woken")

    def __init__(self, info: ConnectInfo) -> None:
        self.info = info
        self.answer: Answer | None = None
        # Held until its thread has something to do.
        self.is_woken = threading.Lock()
        self.is_woken.acquire()

    def wake(self) -> None:
        """Wake the thread; under the lock of the questions, so that no other thread does it at the same time."""
        if self.is_woken.locked():
            self.is_woken.release()


@dataclass(eq=False)
class _Call:
    asked: list[_Question]


class _Host:
    """The questions that wait for a host, and the call that they wait for: the last one that was begun."""

    __slots__ = ("call", "waiting")

    def __init__(self) -> None:
        self.call: _Call | None = None
        self.waiting: list[_Question] = []

    def begin(self, own: _Question) -> _Call:
        """Return the next call, with all questions that wait, or as many as one message may have.

        ``own`` waits too, and is always among them: the thread that makes the call waits for no other one.
        """
        others = [question for question in self.waiting if question is not own]
        self.call = _Call([own, *others[: MAX_CONSOLES - 1]])
        self.waiting = others[MAX_CONSOLES - 1 :]
        return self.call


class HostQuestions:
    """Asks through ``compute``; one per process. Thread-safe."""

    def __init__(
        self,
        compute: ConsoleValidator,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        stall_s: float = STALL_S,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """``timeout_s``: of one call. ``stall_s``: how long a question waits for the call under way.

        ``pause`` waits for some seconds.
        """
        self._compute = compute
        self._timeout_s = timeout_s
        self._clock = clock
        self._stall_s = stall_s
        self._pause = pause
        self._hosts: dict[str, _Host] = {}
        self._guests_alone: Recent[str] = Recent(clock, _GUEST_ALONE_S, _MAX_ALONE)
        self._hosts_alone: Recent[str] = Recent(clock, _HOST_ALONE_S, _MAX_ALONE)
        self._lock = threading.Lock()

    def ask(self, context: RequestContext, info: ConnectInfo, deadline: Deadline) -> Target:
        """Return where the VNC server of ``info`` listens now: what ``validate_console`` returns.

        :raises PortholeError: what ``validate_console`` raises.
        """
        if self._is_alone(info):
            return self._ask_alone(context, info, deadline)
        question = _Question(info)
        asked = self._enter(question) or self._wait(question, deadline)
        if asked is not None:
            self._make_call(context, question, asked, deadline)
        answer = question.answer
        if isinstance(answer, Target):
            return answer
        if isinstance(answer, errors.HypervisorUnavailable | errors.RemoteFailure) and self._is_alone(info):
            return self._ask_alone(context, info, deadline)
        try:
            raise answer or errors.RpcUnavailable(*_METHOD)
        finally:
            # An error refers to this frame.
            del answer, question

    def _enter(self, question: _Question) -> _Call | None:
        """Return a new call for ``question``; None when it has to wait for the call under way."""
        with self._lock:
            host = self._hosts.setdefault(question.info.compute_host, _Host())
            host.waiting.append(question)
            return host.begin(question) if host.call is None else None

    def _wait(self, question: _Question, deadline: Deadline) -> _Call | None:
        """Wait for the answer, or for the turn to make the next call and return that call."""
        longest_s = 2 * self._stall_s + self._timeout_s + GRACE_S
        due_at = self._clock() + longest_s
        with deadline.step(longest_s, errors.RpcUnavailable(*_METHOD)):
            while question.answer is None and self._clock() < due_at:
                # Woken for the answer or for its turn; or the call under way has stalled.
                is_woken = question.is_woken.acquire(timeout=self._stall_s)
                if is_woken and question.answer is None:
                    self._pause(GATHER_S)
                with self._lock:
                    host = self._hosts.get(question.info.compute_host)
                    if host is not None and question in host.waiting:
                        return host.begin(question)
        return None

    def _make_call(self, context: RequestContext, own: _Question, call: _Call, deadline: Deadline) -> None:
        """Ask the questions of ``call``, give each thread its answer, and have the next call begun."""
        infos = [question.info for question in call.asked]
        name = own.info.compute_host
        answers: Sequence[Answer] = [errors.RpcUnavailable(*_METHOD)] * len(infos)
        try:
            if len(infos) == 1:
                answers = [self._ask_alone(context, own.info, deadline)]
            else:
                answers = self._compute.validate_consoles(context, name, infos, deadline, BATCH_TIMEOUT_S)
        except errors.PortholeError as exc:
            answers = [exc if question is own else exc.local() for question in call.asked]
            if isinstance(exc, errors.RemoteFailure) and len(infos) > 1:
                with self._lock:
                    self._hosts_alone.add(name)
        finally:
            self._finish(call, answers)

    def _finish(self, call: _Call, answers: Sequence[Answer]) -> None:
        name = call.asked[0].info.compute_host
        with self._lock:
            if len(answers) > 1:
                for question, answer in zip(call.asked, answers, strict=True):
                    if isinstance(answer, errors.HypervisorUnavailable):
                        self._guests_alone.add(question.info.instance_uuid)
            host = self._hosts.get(name)
            # Unless another call was begun beside this one.
            if host is not None and host.call is call:
                if host.waiting:
                    host.waiting[0].wake()
                else:
                    del self._hosts[name]
            for question, answer in zip(call.asked, answers, strict=True):
                question.answer = answer
                question.wake()

    def _ask_alone(self, context: RequestContext, info: ConnectInfo, deadline: Deadline) -> Target:
        return self._compute.validate_console(context, info.compute_host, info.claim, deadline)

    def _is_alone(self, info: ConnectInfo) -> bool:
        return self._hosts_alone.has(info.compute_host) or self._guests_alone.has(info.instance_uuid)

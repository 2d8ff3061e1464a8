# SPDX-License-Identifier: Apache-2.0
"""Questions with a deadline, to a library whose calls have none: at most one at a time about each subject.

Why: libvirtd may hold the lock of one domain for as long as a QEMU does not answer. Meanwhile it answers keepalives,
but no call about that domain, and no list of all domains. Here the caller goes on at a deadline, and the call goes on
in its thread. No other question about that subject is asked until the call has returned. Called by
:mod:`porthole_compute.drivers.libvirt_host`; uses no library.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from porthole_common import pools
from porthole_common.log import get_logger
from porthole_common.thread_pool import Job

LOG = get_logger(__name__)
Result = TypeVar("Result")


class NoAnswer(Exception):
    """A question about ``subject`` is open, and its deadline has passed; or too many questions are open."""

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self.subject = subject

    def __str__(self) -> str:
        return f"a question about {self.subject} has no answer"


class _Question(Job):
    """A call, and its result once ``is_done``; ``is_overdue`` once its deadline has passed before."""

    def __init__(self, subject: str, work: Callable[[], Any], begun_at_s: float) -> None:
        super().__init__(work)
        self.subject = subject
        self.begun_at = begun_at_s
        self.is_done = False
        self.is_overdue = False


class Questions:
    """At most ``limit`` calls at once, in as many daemon threads, which are started when they are needed.

    A caller waits up to ``timeout_s`` for its turn, and up to ``timeout_s`` for the answer. ``on_change`` is called
    when a question becomes overdue, and when its answer comes after all; it returns at once.
    """

    # For the metrics.
    name = "questions"
    waiting = 0

    def __init__(self, limit: int, timeout_s: float, on_change: Callable[[], None]) -> None:
        self.limit = limit
        self._timeout_s = timeout_s
        self._on_change = on_change
        # By subject.
        self._open: dict[str, _Question] = {}
        self._condition = threading.Condition()
        self._given: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._threads = 0
        self._is_closed = False
        pools.watch(self)

    @property
    def busy(self) -> int:
        """The number of questions that are open."""
        return len(self._open)

    def ask(self, subject: str, work: Callable[[], Result]) -> Result:
        """Run ``work()`` in a thread of this object; return its result, or raise its error.

        :raises NoAnswer: when the deadline passes, or a question about ``subject`` is overdue already.
        """
        with self._condition:
            self._wait_for_turn(subject)
            question = self._begin(subject, work)
            self._condition.wait_for(lambda: question.is_done, self._timeout_s)
            if not question.is_done:
                question.is_overdue = True
                # The callers that wait for their turn about this subject go on too.
                self._condition.notify_all()
        if question.is_overdue:
            LOG.warning("Answer overdue", subject=subject, timeout_s=self._timeout_s)
            self._on_change()
            raise NoAnswer(subject)
        result: Result = question.get_result()
        return result

    def get_overdue(self) -> list[str]:
        """Return the subjects of the questions whose deadline has passed and whose call has not returned."""
        with self._condition:
            return [question.subject for question in self._open.values() if question.is_overdue]

    def close(self) -> None:
        """Answer no more questions, and end the threads; a call that does not return keeps its thread."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
            for _ in range(self._threads):
                self._given.put(None)

    def _wait_for_turn(self, subject: str) -> None:
        deadline = time.monotonic() + self._timeout_s
        while not self._is_free(subject):
            remaining_s = deadline - time.monotonic()
            if self._is_hopeless(subject) or remaining_s <= 0:
                raise NoAnswer(subject)
            self._condition.wait(remaining_s)
        if self._is_closed:
            raise NoAnswer(subject)

    def _is_free(self, subject: str) -> bool:
        return self._is_closed or (subject not in self._open and len(self._open) < self.limit)

    def _is_hopeless(self, subject: str) -> bool:
        """Whether waiting is in vain: the question that is in the way is overdue, or all questions are."""
        before = self._open.get(subject)
        if before is not None:
            return before.is_overdue
        return all(question.is_overdue for question in self._open.values())

    def _begin(self, subject: str, work: Callable[[], Any]) -> _Question:
        if len(self._open) == self._threads:
            self._start_thread(subject)
        question = self._open[subject] = _Question(subject, work, time.monotonic())
        self._given.put(question)
        return question

    def _start_thread(self, subject: str) -> None:
        try:
            threading.Thread(target=self._answer, name=f"questions-{self._threads + 1}", daemon=True).start()
        except RuntimeError as exc:
            LOG.error("Thread not started", part="questions", threads=self._threads, reason=exc)
            raise NoAnswer(subject) from exc
        self._threads += 1

    def _answer(self) -> None:
        while (question := self._given.get()) is not None:
            question.do()
            with self._condition:
                question.is_done = True
                del self._open[question.subject]
                self._condition.notify_all()
            if question.is_overdue:
                seconds = round(time.monotonic() - question.begun_at)
                LOG.warning("Overdue answer arrived", subject=question.subject, seconds=seconds, error=question.error)
                self._on_change()
            # The answer may hold a connection, which would otherwise stay open until the next question.
            del question

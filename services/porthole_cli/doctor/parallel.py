# SPDX-License-Identifier: Apache-2.0
"""Several questions at once, with one deadline for all of them.

Why not concurrent.futures: its threads keep the process from ending while one of them is stuck. Called by
:mod:`examination`.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

Result = TypeVar("Result")
AT_ONCE = 16


class NotDone(Exception):
    """A question without an answer at the deadline."""


def gather(questions: Sequence[Callable[[], Result]], timeout_s: float) -> list[Result | BaseException]:
    """Return what each question returned or raised, in their order; :class:`NotDone` after ``timeout_s``."""
    answers: list[Result | BaseException] = [NotDone() for _ in questions]
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    done = threading.Semaphore(0)
    for number in range(len(questions)):
        waiting.put(number)

    def work() -> None:
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                answers[number] = questions[number]()
            except BaseException as exc:  # noqa: BLE001 (the caller decides what it means)
                answers[number] = exc
            done.release()

    for _ in range(min(AT_ONCE, len(questions))):
        threading.Thread(target=work, name="doctor", daemon=True).start()
    deadline = time.monotonic() + timeout_s
    for _ in questions:
        if not done.acquire(timeout=max(0.0, deadline - time.monotonic())):
            break
    # A copy: a late answer must not change the result.
    return list(answers)

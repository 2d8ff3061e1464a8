# SPDX-License-Identifier: Apache-2.0
"""Deadlines: a moment that several steps share, and the deadline of one request.

Why an object: the thread that does a request's work may be stuck in a library that knows no time limit. The request's
deadline travels as a parameter to every step that may block; each step says how long it may take and which error its
lateness means. The thread that waits for the work looks at the same object, and gives up late work.
Called by :mod:`porthole_common.thread_pool`, :mod:`porthole_common.rpc` and the proxy's admission.
"""

import contextlib
import math
import threading
import time
from collections.abc import Iterator

from porthole_common import errors


def get_remaining_s(due_at: float) -> float:
    """Return how many seconds are left until ``due_at``, a moment of the monotonic clock.

    :raises TimeoutError: when none are.
    """
    remaining_s = due_at - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError("the deadline has passed")
    return remaining_s


class DeadlinePassed(Exception):
    """The work was not done in time. It was dropped if it had not begun; else it goes on, and its result is dropped."""


class RequestAbandoned(Exception):
    """The request was late and has been answered already: the thread that worked on it must not answer it."""


class Deadline:
    """When the work on one request is due, what the work waits for, and whether the work was given up.

    ``due_at``: on the monotonic clock, of the step under way or of the whole, whichever comes first; infinity without a
    bound. ``waits_for``: the error that the request ends in when the last step that was begun is late; None before the
    first step. One thread works, and alone calls :meth:`step` and :meth:`claim`; another alone calls :meth:`give_up`.
    """

    __slots__ = ("_all_due_at", "_claimed", "_decided", "due_at", "waits_for")

    def __init__(self, timeout_s: float = math.inf) -> None:
        self._all_due_at = self.due_at = time.monotonic() + timeout_s
        self.waits_for: errors.PortholeError | None = None
        # The first to take the lock decides who answers the request; the lock is never released.
        self._decided = threading.Lock()
        self._claimed = False

    @property
    def given_up(self) -> bool:
        """True once the work was given up; false for good once it was claimed."""
        return self._decided.locked() and not self._claimed

    @contextlib.contextmanager
    def step(self, timeout_s: float, late: errors.PortholeError) -> Iterator[None]:
        """Do one step of the work within the block: after ``timeout_s`` the step fails with ``late``."""
        self.waits_for = late
        self.due_at = min(self._all_due_at, time.monotonic() + timeout_s)
        try:
            yield
        finally:
            self.due_at = self._all_due_at

    def claim(self) -> None:
        """Take the right to answer the request. A second claim does nothing.

        :raises RequestAbandoned: when the work was given up before.
        """
        if not self._claimed:
            # Between the two lines the request counts as given up, but only this thread reads that.
            if not self._decided.acquire(blocking=False):
                raise RequestAbandoned
            self._claimed = True

    def give_up(self) -> bool:
        """Take the right to answer the request away from the work; return False when the work has claimed it."""
        return self._decided.acquire(blocking=False)

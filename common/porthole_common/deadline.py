# SPDX-License-Identifier: Apache-2.0
"""Deadlines that several steps share, each of which has a time limit of its own."""

import time
from typing import Any


def get_remaining_s(deadline: float) -> float:
    """Return how many seconds are left until ``deadline``, a moment of the monotonic clock.

    :raises TimeoutError: when none are.
    """
    remaining_s = deadline - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError("the deadline has passed")
    return remaining_s


class DeadlinePassed(Exception):
    """The work was not done in time. It was dropped if it had not begun; else it goes on and nobody hears of it.

    ``subject`` is what it was about, where the work has said so.
    """

    def __init__(self, subject: Any = None) -> None:
        super().__init__(subject)
        self.subject = subject

# SPDX-License-Identifier: Apache-2.0
"""The signals that a daemon receives, in a queue for its main thread.

Why not queue.Queue: Python runs a signal handler in the main thread, between two instructions. A main thread that
sleeps in a lock runs no handler if the kernel gave the signal to another thread, or to the main thread just before it
slept. The daemon would notice the signal together with the next one. Called by :mod:`porthole_common.service`.
"""

import collections
import contextlib
import os
import signal
import socket
import time

# The main thread looks for signals this often even if nothing wakes it.
LOOK_UP_S = 5.0


class Signals:
    """One per process, made in the main thread. Handlers call :meth:`put`; a byte in a socket wakes the main thread."""

    def __init__(self) -> None:
        self._numbers: collections.deque[int] = collections.deque()
        self._wakened, waker = socket.socketpair()
        waker.setblocking(False)
        # From here on the descriptor belongs to the signal module.
        signal.set_wakeup_fd(waker.detach(), warn_on_full_buffer=False)

    def put(self, number: int) -> None:
        """Note a signal; from its handler."""
        self._numbers.append(number)

    def get(self, timeout_s: float | None) -> int | None:
        """Return the oldest signal in the queue; None when none arrives for ``timeout_s`` seconds."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._numbers:
            left_s = LOOK_UP_S if deadline is None else min(LOOK_UP_S, deadline - time.monotonic())
            if left_s <= 0:
                return None
            self._wakened.settimeout(left_s)
            with contextlib.suppress(TimeoutError):
                self._wakened.recv(1024)
        return self._numbers.popleft()

    def close(self) -> None:
        """Stop receiving signals."""
        os.close(signal.set_wakeup_fd(-1))
        self._wakened.close()

# SPDX-License-Identifier: Apache-2.0
"""The signals that a daemon was sent, for its main thread to wait for.

Why not a queue that handlers put into: a handler runs in the main thread, when that gets round to it, and one that
sleeps in a lock does not, if the kernel gave the signal to another thread, or to this one just before it fell asleep.
The signal would be seen with the next one. Called by :mod:`porthole_common.service`.
"""

import collections
import contextlib
import os
import signal
import socket
import time

# The main thread looks up this often even if nothing wakes it.
LOOK_UP_S = 5.0


class Signals:
    """One per process, made in the main thread. Handlers call :meth:`put`; a byte in a socket says that one will."""

    def __init__(self) -> None:
        self._numbers: collections.deque[int] = collections.deque()
        self._wakened, waker = socket.socketpair()
        waker.setblocking(False)
        # The descriptor is the signal module's from here on.
        signal.set_wakeup_fd(waker.detach(), warn_on_full_buffer=False)

    def put(self, number: int) -> None:
        """Note a signal; from its handler."""
        self._numbers.append(number)

    def get(self, timeout_s: float | None) -> int | None:
        """Return the oldest signal that nobody has got; None when there was none for ``timeout_s`` seconds."""
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
        """Wait for no more of them."""
        os.close(signal.set_wakeup_fd(-1))
        self._wakened.close()

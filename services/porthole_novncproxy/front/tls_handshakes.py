# SPDX-License-Identifier: Apache-2.0
"""The steps of TLS handshakes, in a thread of their own, one source after the other.

Why: a step that signs with an RSA key of 4096 bits takes five milliseconds, and a client can ask for it with a recorded
packet. In the event loop, 200 of them in a second would stop every open console (S40). OpenSSL works without Python's
lock, so the loop goes on beside this thread. Each source has its turn: the next client waits for one step of each other
source, however many connections they have. Called by :mod:`porthole_novncproxy.front.listener`, from the loop's thread.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from porthole_common.log import get_logger
from porthole_novncproxy.front.turns import Turns
from porthole_relay.loop import Loop
from porthole_relay.tls_socket import TlsSocket

LOG = get_logger(__name__)
# More than a step takes on any machine.
_STEP_TIMEOUT_S = 5.0


@dataclass(eq=False, slots=True)
class Step:
    """One call of ``do_handshake`` on a socket that does not block.

    ``on_done(error)`` is called in the loop's thread: None when the handshake is done, else what the call has raised.
    """

    source: str
    sock: TlsSocket
    on_done: Callable[[OSError | None], None]


class HandshakeThread:
    """Makes steps of handshakes; the thread begins with the first one."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._condition = threading.Condition()
        # The listener bounds how many connections a source has.
        self._waiting: Turns[Step] = Turns()
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, step: Step) -> None:
        """Have the step made; until its end, or :meth:`withdraw`, the socket is the thread's."""
        with self._condition:
            self._waiting.add(step.source, step)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tls", daemon=True)
                self._thread.start()
            self._condition.notify()

    def withdraw(self, step: Step) -> bool:
        """Keep a step from being made; return False when it is under way, or made: then ``on_done`` is called."""
        with self._condition:
            return self._waiting.remove(step.source, step)

    def close(self) -> None:
        """End the thread after the step under way, whose ``on_done`` is then due in the loop."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join(_STEP_TIMEOUT_S)

    def _run(self) -> None:
        while (step := self._take()) is not None:
            self._make(step)

    def _take(self) -> Step | None:
        with self._condition:
            while not self._waiting and not self._closed:
                self._condition.wait()
            return None if self._closed else self._waiting.take()

    def _make(self, step: Step) -> None:
        error: OSError | None = None
        try:
            step.sock.do_handshake()
        except OSError as exc:
            error = exc
        except Exception:
            # A fault in one handshake ends no thread.
            LOG.exception("TLS handshake step failed")
            error = ConnectionAbortedError("the step failed")
        self._loop.call_soon(lambda: step.on_done(error))

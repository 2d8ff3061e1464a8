# SPDX-License-Identifier: Apache-2.0
"""The steps of a handshake, and the one place that runs a handshake: bytes in, bytes out, no I/O.

Why a generator and a driver beside it: the generator reads from top to bottom like the RFC. The driver knows where the
bytes are cut. The caller knows how long to wait. Called by :mod:`porthole_novncproxy.admission.vencrypt` and
:mod:`porthole_relay.viewer_handshake`.
"""

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

# No handshake asks for more at once, whatever a peer announces (S12).
MAX_READ_BYTES = 1024

Result = TypeVar("Result")


class Peer(Enum):
    """The two sides of a console."""

    SERVER = "The VNC server"
    VIEWER = "The viewer"

    @property
    def other(self) -> "Peer":
        """The peer on the other side."""
        return Peer.VIEWER if self is Peer.SERVER else Peer.SERVER


@dataclass(frozen=True)
class Read:
    """Wants exactly ``size`` bytes of ``peer``, at least one."""

    peer: Peer
    size: int


@dataclass(frozen=True)
class Write:
    """Sends ``data``, one message, to ``peer``."""

    peer: Peer
    data: bytes


@dataclass(frozen=True)
class StartTls:
    """Starts TLS with the VNC server; ``anonymous`` when the server has no certificate.

    The handshake is sent the bytes that the server sent before TLS. An attacker may have put them there, so that they
    are taken for bytes inside TLS.
    """

    anonymous: bool


Handshake = Generator[Read | Write | StartTls, bytes, Result]


class HandshakeDriver(Generic[Result]):
    """Runs one handshake. Its methods raise what the handshake raises; nothing may be fed afterwards."""

    __slots__ = ("_buffers", "_steps", "_wanted", "is_over", "result")

    def __init__(self, handshake: Handshake[Result]) -> None:
        self._steps = handshake
        self._buffers = {peer: bytearray() for peer in Peer}
        self._wanted: Read | None = None
        self.is_over = False
        # The result of the handshake, once it is over.
        self.result: Result | None = None

    def start(self) -> list[Write | StartTls]:
        """Begin; return the steps to do before bytes are wanted."""
        return self._go_on(None)

    def feed(self, peer: Peer, data: bytes | bytearray | memoryview) -> list[Write | StartTls]:
        """Take bytes of ``peer``, cut anywhere; return the steps to do next, in order.

        Bytes that are not wanted yet are held. The caller bounds them: :meth:`missing_bytes` says how many are wanted.

        :raises RfbInvalid: when a peer breaks the protocol.
        :raises VncSecurityUnsuitable: when the VNC server offers nothing that is allowed.
        """
        self._buffers[peer] += data
        taken = self._take_wanted()
        return [] if taken is None else self._go_on(taken)

    def missing_bytes(self, peer: Peer) -> int:
        """Return how many more bytes of ``peer`` are wanted now; 0 when it is not its turn."""
        if self._wanted is None or self._wanted.peer is not peer:
            return 0
        return self._wanted.size - len(self._buffers[peer])

    def held_bytes(self, peer: Peer) -> int:
        """Return how many bytes of ``peer`` are held."""
        return len(self._buffers[peer])

    def take_rest(self, peer: Peer) -> bytes:
        """Return the bytes of ``peer`` behind the handshake, and drop them here."""
        rest = bytes(self._buffers[peer])
        self._buffers[peer].clear()
        return rest

    def _take_wanted(self) -> bytes | None:
        """Return the wanted bytes, or None while some of them are missing, or when none are wanted."""
        if self._wanted is None or self.missing_bytes(self._wanted.peer) > 0:
            return None
        buffer = self._buffers[self._wanted.peer]
        taken = bytes(buffer[: self._wanted.size])
        del buffer[: self._wanted.size]
        return taken

    def _go_on(self, answer: bytes | None) -> list[Write | StartTls]:
        """Run the handshake as far as the held bytes go."""
        done: list[Write | StartTls] = []
        self._wanted = None
        try:
            while True:
                step = self._steps.send(answer)  # type: ignore[arg-type] # None is what starts a generator
                answer = b""
                if isinstance(step, Read):
                    if not 0 < step.size <= MAX_READ_BYTES:
                        raise ValueError(f"{step.size} bytes are more, or less, than any message has")
                    self._wanted = step
                    answer = self._take_wanted()
                    if answer is None:
                        return done
                    continue
                done.append(step)
                if isinstance(step, StartTls):
                    answer = bytes(self._buffers[Peer.SERVER])
        except StopIteration as end:
            self._wanted = None
            self.is_over = True
            self.result = end.value
            return done

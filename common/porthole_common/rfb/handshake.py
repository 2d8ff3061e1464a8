# SPDX-License-Identifier: Apache-2.0
"""What a talk may ask for, and the one place that runs a talk: bytes in, bytes out, no I/O.

Why a generator and this beside it: the talk reads from top to bottom as the RFC has it, and where the bytes are cut,
who waits, and for how long, is somebody else's.
"""

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

# No talk asks for more at once, whatever a peer announces (S12).
MAX_READ_BYTES = 1024

Result = TypeVar("Result")


class Peer(Enum):
    """The two sides of a console."""

    SERVER = "The VNC server"
    VIEWER = "The viewer"

    @property
    def other(self) -> "Peer":
        """The one on the other side."""
        return Peer.VIEWER if self is Peer.SERVER else Peer.SERVER


@dataclass(frozen=True)
class Read:
    """Exactly ``size`` bytes of ``peer`` are wanted, at least one."""

    peer: Peer
    size: int


@dataclass(frozen=True)
class Write:
    """``data``, one message, is for ``peer``."""

    peer: Peer
    data: bytes


@dataclass(frozen=True)
class StartTls:
    """TLS begins with the VNC server, here and now; ``anonymous`` when it has no certificate.

    The talk is sent what the server said before, which can only be an attempt to have it believed as if it were inside.
    """

    anonymous: bool


Handshake = Generator[Read | Write | StartTls, bytes, Result]


class HandshakeDriver(Generic[Result]):
    """One talk under way. Its methods raise what the talk raises; nothing may be fed afterwards."""

    __slots__ = ("_buffers", "_talk", "_wanted", "is_over", "result")

    def __init__(self, talk: Handshake[Result]) -> None:
        self._talk = talk
        self._buffers = {peer: bytearray() for peer in Peer}
        self._wanted: Read | None = None
        self.is_over = False
        # What the talk has come to, once it is over.
        self.result: Result | None = None

    def start(self) -> list[Write | StartTls]:
        """Begin; return what is to be done before bytes are wanted."""
        return self._go_on(None)

    def feed(self, peer: Peer, data: bytes | bytearray | memoryview) -> list[Write | StartTls]:
        """Take bytes of ``peer``, cut anywhere; return what is to be done next, in order.

        What is not wanted yet is kept: whoever feeds decides how much that may be (:meth:`missing_bytes`).

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
        """Return how many bytes of ``peer`` are kept."""
        return len(self._buffers[peer])

    def take_rest(self, peer: Peer) -> bytes:
        """Return, once, what ``peer`` said beyond the talk."""
        rest = bytes(self._buffers[peer])
        self._buffers[peer].clear()
        return rest

    def _take_wanted(self) -> bytes | None:
        """Return the bytes that are wanted, or None when they are not all here, or none are."""
        if self._wanted is None or self.missing_bytes(self._wanted.peer) > 0:
            return None
        buffer = self._buffers[self._wanted.peer]
        taken = bytes(buffer[: self._wanted.size])
        del buffer[: self._wanted.size]
        return taken

    def _go_on(self, answer: bytes | None) -> list[Write | StartTls]:
        """Run the talk as far as the bytes that are here go."""
        done: list[Write | StartTls] = []
        self._wanted = None
        try:
            while True:
                step = self._talk.send(answer)  # type: ignore[arg-type] # None is what starts a generator
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

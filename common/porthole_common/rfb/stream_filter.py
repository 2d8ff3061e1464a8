# SPDX-License-Identifier: Apache-2.0
"""A filter of one direction of an RFB stream: some bytes go on, some are dropped, some are replaced. No I/O.

Why a generator and a filter beside it: the generator reads the messages from top to bottom like the RFC, and decides.
The filter knows where the bytes are cut, and moves the body of a long message without collecting it. Its memory is
bounded by :data:`MAX_READ_BYTES`, whatever a client sends.
Called by :mod:`porthole_novncproxy.sessions.view_only`.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass

# The longest head of a message that is looked at before it goes on.
MAX_READ_BYTES = 64


@dataclass(frozen=True)
class Take:
    """Wants exactly ``size`` bytes, from 1 to :data:`MAX_READ_BYTES`. They do not go on by themselves."""

    size: int


@dataclass(frozen=True)
class Emit:
    """Sends ``data`` on."""

    data: bytes


@dataclass(frozen=True)
class Pass:
    """Sends the next ``size`` bytes on as they are; None for all that follow, for ever."""

    size: int | None = None


@dataclass(frozen=True)
class Drop:
    """Drops the next ``size`` bytes."""

    size: int


# It is sent the bytes of a Take, and b"" for the other steps. It ends with a Pass of all, or with an error.
Script = Generator[Take | Emit | Pass | Drop, bytes, None]


class StreamFilter:
    """Runs one script over a stream that is cut anywhere: a :class:`porthole_relay.pipe.Interceptor`.

    The first bytes start the script: the frames of its generators would be a fifth of a silent console's memory.
    """

    __slots__ = ("_build", "_held", "_left", "_script", "_step")

    def __init__(self, build: Callable[[], Script]) -> None:
        """``build`` returns the script."""
        self._build: Callable[[], Script] | None = build
        # The bytes of a Take that has begun.
        self._held = b""
        self._step: Take | Pass | Drop | None = None
        self._left: int | None = 0

    @property
    def is_done(self) -> bool:
        """True once all further bytes go on as they are."""
        return self._left is None

    def feed(self, data: memoryview) -> bytes | memoryview:
        """Return the bytes that go on in place of ``data``.

        :raises RfbInvalid: what the script raises; nothing may be fed afterwards.
        """
        if self._build is not None:
            self._start(self._build)
        kept: list[bytes | memoryview] = []
        while data:
            part = data[: self._left]
            data = data[len(part) :]
            if isinstance(self._step, Take):
                self._held += part
            elif isinstance(self._step, Pass):
                kept.append(part)
            if self._left is not None:
                self._left -= len(part)
                if not self._left:
                    self._go_on(kept)
        return b"".join(kept)

    def _start(self, build: Callable[[], Script]) -> None:
        self._build = None
        self._script: Script = build()
        first = next(self._script)
        if isinstance(first, Emit):
            raise ValueError("a script begins with bytes of the stream: before them there is nothing to send on")
        self._begin(first)

    def _go_on(self, kept: list[bytes | memoryview]) -> None:
        """Run the script up to the next step that wants bytes; a step of no bytes is done at once."""
        script = self._script
        held, self._held = self._held, b""
        step = script.send(held)
        while isinstance(step, Emit) or step.size == 0:
            if isinstance(step, Emit):
                kept.append(step.data)
            step = script.send(b"")
        self._begin(step)

    def _begin(self, step: Take | Pass | Drop) -> None:
        self._step = step
        # How many bytes it still wants; None for all that follow.
        self._left = step.size

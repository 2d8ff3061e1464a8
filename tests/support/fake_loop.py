# SPDX-License-Identifier: Apache-2.0
"""The event loop and the streams of a console without a thread, a socket or a clock: a test moves them by hand.

Why: what a relay does at a cut between two bytes, or while a peer takes nothing, can be said exactly only when nothing
happens by itself. :class:`FakeLoop` is as strict as epoll: it fails where epoll would raise.
"""

import collections
import select
from collections.abc import Callable, Sequence
from typing import cast

from porthole_relay.loop import PEER_ENDED, WRITE, Answer, Callback, Loop, Timer


class FakeLoop:
    """Has the methods of :class:`porthole_relay.loop.Loop`; time is :attr:`now`, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.callbacks: dict[int, Callback] = {}
        self.masks: dict[int, int] = {}
        self.soon: collections.deque[Callable[[], None]] = collections.deque()
        self.timers: list[tuple[float, Timer]] = []

    def register(self, fd: int, events: int, callback: Callback) -> None:
        """Fail on a descriptor that is registered, as epoll does."""
        assert fd not in self.callbacks, f"descriptor {fd} is registered twice"
        self.callbacks[fd] = callback
        self.masks[fd] = events

    def modify(self, fd: int, events: int) -> None:
        """Fail on a descriptor that is not registered, as epoll does."""
        assert fd in self.callbacks, f"descriptor {fd} is not registered"
        self.masks[fd] = events

    def unregister(self, fd: int) -> None:
        """Forget a descriptor, known or not."""
        self.callbacks.pop(fd, None)
        self.masks.pop(fd, None)

    def call_soon(self, action: Callable[[], None]) -> None:
        """Keep ``action`` for :meth:`run_soon`."""
        self.soon.append(action)

    def ask(self, question: Callable[[], Answer], timeout_s: float) -> Answer:
        """Wait for :meth:`run_soon` in another thread."""
        return Loop.ask(cast(Loop, self), question, timeout_s)

    def call_later(self, delay_s: float, action: Callable[[], None]) -> Timer:
        """Keep ``action`` for :meth:`advance`."""
        timer = Timer(action)
        self.timers.append((self.now + delay_s, timer))
        return timer

    def run_soon(self) -> None:
        """Make the calls that are due now."""
        while self.soon:
            self.soon.popleft()()

    def advance(self, seconds: float) -> None:
        """Let time pass, and make the calls that fall due, in order; not those that they ask for in their turn."""
        self.now += seconds
        due = sorted((entry for entry in self.timers if entry[0] <= self.now), key=lambda entry: entry[0])
        self.timers = [entry for entry in self.timers if entry[0] > self.now]
        for _at, timer in due:
            if timer.action is not None:
                timer.action()
        self.run_soon()

    @property
    def pending_timers(self) -> int:
        """How many timers have neither been called nor cancelled."""
        return sum(timer.action is not None for _at, timer in self.timers)


class FakeStream:
    """Has the methods of :class:`porthole_relay.stream.Stream`.

    ``incoming``: what its peer sent: bytes, b"" for its end, an OSError for a broken connection. ``room_bytes``: what
    its peer takes yet; None is without bound. ``broken``: raised by writes.
    """

    def __init__(self, fd: int, *incoming: bytes | OSError, room_bytes: int | None = None) -> None:
        self.fd = fd
        self.mask = 0
        self.watched = False
        self.tls = False
        self.incoming = collections.deque(incoming)
        # Over TLS, the rest of a record that was read in part: epoll knows nothing of it.
        self.hidden = b""
        self.room_bytes = room_bytes
        self.broken: OSError | None = None
        self.written = bytearray()
        self.taken_bytes = 0
        self.closed = 0
        self.ended = False

    def read_into(self, buffer: memoryview) -> int | None:
        """Return what is there as far as ``buffer`` goes."""
        assert not self.closed, "a closed stream is read"
        assert len(buffer) > 0, "an empty read would pass for the end"
        if not (self.hidden or self.incoming):
            return None
        chunk = self.hidden or self.incoming[0]
        if isinstance(chunk, OSError):
            raise chunk
        if not chunk:
            return 0
        size = min(len(buffer), len(chunk))
        buffer[:size] = chunk[:size]
        self.taken_bytes += size
        self._keep(chunk[size:])
        return size

    def _keep(self, rest: bytes) -> None:
        if not self.hidden:
            self.incoming.popleft()
        if self.tls:
            self.hidden = rest
        elif rest:
            self.incoming.appendleft(rest)

    def has_buffered(self) -> bool:
        """Say whether there is something that epoll does not tell of."""
        return bool(self.hidden)

    def free_bytes(self) -> int:
        """Return what the peer takes yet; over TLS nobody knows, and it is 0."""
        if self.tls:
            return 0
        return 1 << 20 if self.room_bytes is None else self.room_bytes

    def write(self, parts: Sequence[bytes | memoryview]) -> int:
        """Take what there is room for."""
        assert not self.closed, "a closed stream is written"
        assert not self.ended, "something is written after the end was told"
        if self.broken:
            raise self.broken
        data = b"".join(parts)
        size = len(data) if self.room_bytes is None else min(len(data), self.room_bytes)
        self.written += data[:size]
        if self.room_bytes is not None:
            self.room_bytes -= size
        return size

    def write_end(self) -> None:
        """Note that the peer was told of the end."""
        if self.broken:
            raise self.broken
        self.ended = True

    def close(self) -> None:
        """Note the close."""
        self.closed += 1

    @property
    def ready(self) -> int:
        """What epoll would say of it, whatever is asked."""
        events = select.EPOLLIN if self.incoming else 0
        # Its end is known before what it said is read.
        events |= PEER_ENDED if b"" in self.incoming else 0
        return events | (WRITE if self.room_bytes is None or self.room_bytes else 0)


def pump(loop: FakeLoop, *streams: FakeStream, rounds: int = 10_000) -> None:
    """Call the callbacks of ready streams until nothing is ready that is waited for.

    :raises AssertionError: when that does not end: the relay spins.
    """
    for _ in range(rounds):
        loop.run_soon()
        moved = False
        for stream in streams:
            events = stream.ready & loop.masks.get(stream.fd, 0)
            if events:
                moved = True
                loop.callbacks[stream.fd](events)
        if not moved and not loop.soon:
            return
    raise AssertionError(f"still busy after {rounds} rounds")

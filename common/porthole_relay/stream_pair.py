# SPDX-License-Identifier: Apache-2.0
"""The two streams of a session, and the bytes between them: reads and writes, as the event loop says they can be done.

Why apart from :mod:`porthole_relay.session`: a session decides (its state, its end, its words for the client) and needs
no epoll; a stream pair moves bytes and decides nothing. It reads a side only when the other side takes its bytes, and
gives the bytes to the pipe of that direction. It tells the session what only a session can answer: that a side has
ended, has broken its protocol, or has taken everything. Called by the event loop, and by its session.
"""

import itertools
import time
from collections.abc import Callable
from typing import Protocol

from porthole_common.errors import FrameInvalid, RfbInvalid
from porthole_relay import frames
from porthole_relay.codec import Codec
from porthole_relay.liveness import EndSession, Liveness, SendPing
from porthole_relay.loop import PEER_ENDED, READ, WRITE, Loop
from porthole_relay.pipe import Intake, Pipe, ServerIntake
from porthole_relay.states import State
from porthole_relay.stream import Stream

_READS_PER_TURN = 4


class Events(Protocol):
    """What a stream pair asks and tells its session, a :class:`porthole_relay.session.Session`."""

    state: State

    def may_relay(self) -> bool:
        """Say whether bytes of the client may go on to the VNC server."""

    def on_server_end(self) -> None:
        """Answer the end of the VNC server's stream."""

    def on_server_lost(self) -> None:
        """Answer a broken connection to the VNC server."""

    def on_server_flushed(self) -> None:
        """Go on when nothing is held for the VNC server any more."""

    def on_client_end(self) -> None:
        """Answer the end of the client's stream."""

    def on_client_close(self, event: frames.Close) -> None:
        """Answer the client's close frame; nothing comes behind it (RFC 6455 section 5.5.1)."""

    def on_client_lost(self, outcome: str) -> None:
        """Answer a broken connection to the client; ``outcome`` says how it broke."""

    def on_client_flushed(self) -> None:
        """Go on when nothing is held for the client any more."""

    def on_breach(self, breach: FrameInvalid | RfbInvalid) -> None:
        """Answer a side that has broken its protocol."""

    def on_fault(self, fault: Exception) -> None:
        """Answer an error of the relay's own."""


class StreamPair:
    """The streams of one session. Every method is called from the loop's thread."""

    __slots__ = (
        "_buffer",
        "_events",
        "_liveness",
        "_loop",
        "_unfed",
        "client",
        "codec",
        "from_client",
        "from_server",
        "server",
        "to_client",
        "to_server",
    )

    def __init__(
        self,
        *,
        loop: Loop,
        buffer: memoryview,
        client: Stream,
        server: Stream,
        codec: Codec,
        to_client: Pipe,
        to_server: Pipe,
        liveness: Liveness,
        events: Events,
    ) -> None:
        """``buffer``: bytes are read into it; all sessions of a loop share it. ``codec`` is that of the client."""
        self._loop = loop
        self._buffer = buffer
        self._liveness = liveness
        self._events = events
        # Bytes of the client whose turn has not come: frames beyond the codec's bound.
        self._unfed = b""
        self.client = client
        self.server = server
        self.codec = codec
        self.to_client = to_client
        self.to_server = to_server
        # Where the bytes of each side go: to the pipes, or before that to the handshake.
        self.from_server: ServerIntake = to_client
        self.from_client: Intake = to_server

    def run(self, action: Callable[[], None]) -> None:
        """Run one step, tell the session when it fails, and wait for the right events next."""
        events = self._events
        if not events.state.has_client:
            return
        try:
            action()
        except OSError as exc:
            events.on_client_lost(f"the client's connection broke ({type(exc).__name__})")
        except RfbInvalid as exc:
            events.on_breach(exc)
        except Exception as exc:  # noqa: BLE001 - the session logs it
            # The error must not come again with every event of a descriptor that stays ready.
            events.on_fault(exc)
        if events.state.has_client:
            self._watch()

    def take(self, from_server: bytes, from_client: bytes) -> None:
        """Take bytes that were read elsewhere."""
        if from_server:
            self.from_server.relay((memoryview(from_server),))
        if from_client:
            self._take_client(memoryview(from_client))

    def use_pipes(self) -> None:
        """Give each side's bytes to the pipe of its direction."""
        self.from_server, self.from_client = self.to_client, self.to_server

    def exchange_server(self, server: Stream) -> None:
        """Go on with another VNC server; bytes that the old one has not taken are dropped with it."""
        self._drop(self.server)
        self.server = server
        self.to_server.connect(server)
        self.to_client.at_end = False

    def drop_server(self) -> None:
        """Close the connection to the VNC server; what comes for it is dropped."""
        self._drop(self.server)
        self.to_server.cut()
        self.use_pipes()

    def close(self) -> None:
        """Close both descriptors, and drop what is held."""
        self.drop_server()
        self._drop(self.client)
        self.to_client.cut()

    def flush_client(self) -> None:
        """Write what is held for the client."""
        if self.to_client.flush():
            self._events.on_client_flushed()

    def flush_server(self) -> None:
        """Write what is held for the VNC server."""
        if self.to_server.flush():
            self._events.on_server_flushed()

    # What epoll waits for.

    def check_liveness(self, now: float) -> EndSession | None:
        """Send a ping that is due; return why the session must end, or None. ``now``: monotonic seconds."""
        if not self.from_client.may_read():
            # The proxy has stopped reading this client, so a missing pong is not the client's fault.
            self._liveness.heard(now)
        due = self._liveness.check(now)
        if not isinstance(due, SendPing):
            return due
        # A client that does not take its bytes would not take a ping either.
        if not self.to_client.held:
            self.to_client.append(self.codec.build_ping())
            self.run(self.flush_client)
        return None

    def _watch(self) -> None:
        """Wait for the events that can make progress: read a side only when the other takes its bytes."""
        if self._events.state.has_server:
            server = self.server
            readable = self.from_server.may_read()
            resumes = readable and not server.mask & READ and server.has_buffered()
            self._set_mask(
                server, (READ if readable else 0) | (WRITE if self.to_server.held else 0), self._on_server_ready
            )
            if resumes:
                self._loop.call_soon(self._resume_server)
        client, held = self.client, self.to_client.held
        # Stop reading a client that floods pings and reads no pong.
        may_feed = self.from_client.may_read() and len(held) < 2 * self.to_client.high_bytes
        readable = may_feed and not self._unfed
        # Watch for the browser's end even while the VNC server takes nothing. A native viewer may half-close.
        otherwise = 0 if self.codec.half_close else PEER_ENDED
        resumes = readable and client.mask & READ != READ and client.has_buffered()
        self._set_mask(client, (READ if readable else otherwise) | (WRITE if held else 0), self._on_client_ready)
        if resumes or (may_feed and self._unfed):
            self._loop.call_soon(self._resume_client)

    def _set_mask(self, stream: Stream, mask: int, callback: Callable[[int], None]) -> None:
        if not stream.watched:
            stream.watched = True
            self._loop.register(stream.fd, mask, callback)
        elif stream.mask != mask:
            self._loop.modify(stream.fd, mask)
        stream.mask = mask

    def _unwatch(self, stream: Stream) -> None:
        if stream.watched:
            stream.watched = False
            self._loop.unregister(stream.fd)

    def _drop(self, stream: Stream) -> None:
        self._unwatch(stream)
        stream.close()

    # From the VNC server to the client.

    def _on_server_ready(self, events: int) -> None:
        if events & WRITE and self.to_server.held:
            self.run(self.flush_server)
        if not self._events.state.has_server:
            return
        if self.server.mask & READ:
            self.run(self._read_server)
        elif events & ~(READ | WRITE):
            # Hung up while nothing may be read from it: epoll would say so again and again.
            self._unwatch(self.server)

    def _resume_server(self) -> None:
        """Read what waits within TLS, unless the client has come to hold the VNC server up again."""
        if self._events.state.has_server and self.server.mask & READ:
            self.run(self._read_server)

    def _read_server(self) -> None:
        for turn in itertools.count(1):
            room = self.from_server.room_bytes(len(self._buffer))
            if not room:
                return
            try:
                size = self.server.read_into(self._buffer[:room])
            except OSError:
                self.to_client.at_end = True
                self._events.on_server_lost()
                return
            if size is None:
                return
            if size == 0:
                self.to_client.at_end = True
                self._events.on_server_end()
                return
            self._liveness.moved(time.monotonic())
            self.from_server.relay((self._buffer[:size],))
            if not (self._events.state.has_server and self.from_server.may_read()):
                return
            # The rest of a TLS record is read now or never: epoll does not tell of it.
            if not self.server.has_buffered() and (self.to_client.held or size < room or turn >= _READS_PER_TURN):
                return

    # From the client to the VNC server.

    def _on_client_ready(self, events: int) -> None:
        if events & WRITE and self.to_client.held:
            # The client took bytes, so a slow client counts as alive.
            self._liveness.heard(time.monotonic())
            self.run(self.flush_client)
        if not self._events.state.has_client:
            return
        if self.client.mask & READ == READ:
            self.run(self._read_client)
        elif events & ~WRITE:
            self._events.on_client_lost("the client vanished")

    def _resume_client(self) -> None:
        """Feed what is left, or read what waits within TLS; unless the VNC server holds the client up again."""
        if not self._events.state.has_client:
            return
        if self._unfed and self.from_client.may_read():
            self.run(self._feed_rest)
        elif self.client.mask & READ == READ:
            self.run(self._read_client)

    def _feed_rest(self) -> None:
        unfed, self._unfed = self._unfed, b""
        self._take_client(memoryview(unfed))

    def _read_client(self) -> None:
        limit = self.to_server.high_bytes
        for turn in itertools.count(1):
            size = self.client.read_into(self._buffer[:limit])
            if size is None:
                return
            if size == 0:
                self.to_server.at_end = True
                self._events.on_client_end()
                return
            self._liveness.heard(time.monotonic())
            self._take_client(self._buffer[:size])
            if self._unfed or not (self._events.state.has_client and self.from_client.may_read()):
                return
            # The rest of a TLS record is read now or never: epoll does not tell of it.
            if not self.client.has_buffered() and (size < limit or turn >= _READS_PER_TURN):
                return

    def _take_client(self, data: memoryview) -> None:
        """Act on the client's bytes: payload goes on in one write, and pings are answered in one write."""
        if not self._events.state.hears_client:
            return
        payload: list[memoryview] = []
        pongs: list[bytes] = []
        closed: frames.Close | None = None
        try:
            for event in self.codec.feed(data):
                if isinstance(event, frames.Data):
                    payload.append(event.payload)
                elif isinstance(event, frames.Ping):
                    pongs.append(frames.build_pong(event.payload))
                elif isinstance(event, frames.Close):
                    closed = event
                    break
            self._unfed = self.codec.take_rest() if closed is None else b""
        except FrameInvalid as exc:
            self._events.on_breach(exc)
            return
        if payload and self._events.may_relay():
            self._liveness.typed(time.monotonic())
            self.from_client.relay(payload)
        if pongs and self._events.state.has_server:
            self.to_client.append(*pongs)
            self.flush_client()
        if closed is not None:
            self._events.on_client_close(closed)

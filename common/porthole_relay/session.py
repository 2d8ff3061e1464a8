# SPDX-License-Identifier: Apache-2.0
"""Open consoles: bytes from the VNC server to the client and back, in one thread for all of them.

Why: a process or a thread per console costs megabytes; here a console that is silent costs two descriptors and
a few small objects. What was read from one side is written to the other at once from one shared buffer; only
what the other side does not take is kept, and until it has taken it nothing more is read (O6): a viewer that
stops reading stops its own VNC server, and nobody else's.

A session is *open* (bytes flow), *closing* (the close frame is on its way, the client has
``CLOSE_TIMEOUT_S`` to answer), or *ended* (both descriptors closed). The VNC leg is closed the moment a
session leaves *open*, except for a native viewer, where each side may end on its own.

One class of more than the usual size: each method changes the same few fields, and what must hold between them is
easier to see in one place than across several.

Where the proxy secures the VNC leg, a session begins as *opening*: the client goes through RFB's security handshake
with :mod:`porthole_common.rfb.presentation`, by a deadline. That is a state here and not a thread's work: it lasts as
long as somebody looks for a password, and a revocation, a drain or the client's end must reach it all the same.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from porthole_common.context import RequestContext, build_request_context
from porthole_common.errors import FrameInvalid, RfbInvalid
from porthole_common.log import get_logger
from porthole_common.rfb.conversation import Conversation, Peer, StartTls, Talk, Write
from porthole_relay import frames
from porthole_relay.codec import Codec
from porthole_relay.frames import CloseCode
from porthole_relay.liveness import Liveness, Ping
from porthole_relay.loop import PEER_ENDED, READ, WRITE, Loop, Timer
from porthole_relay.stream import Leg

LOG = get_logger(__name__)
# How long a client may take to answer a close frame, or to take what stands before it.
CLOSE_TIMEOUT_S = 2.0
SERVER_ENDED = "The VNC server ended the session"
_READS_PER_TURN = 4
# sendmsg takes a limited number of buffers; more parts than this are small and are joined.
_MAX_PARTS = 64


@dataclass(frozen=True)
class Marks:
    """Back-pressure: with more than ``high_bytes`` held for the client its VNC server is not read, until at most
    ``low_bytes`` are held. Towards the VNC server nothing more is read while anything is held.
    """  # noqa: D205

    high_bytes: int
    low_bytes: int


@dataclass(frozen=True, slots=True)
class Subject:
    """What a session is about, for its lines in the log: ``client`` is an address, the rest are names and ids."""

    instance_uuid: str
    console_type: str
    client: str
    request_id: str | None = None
    user_id: str | None = None
    project_id: str | None = None


class Session:
    """One open console. Every method is called from the loop's thread."""

    __slots__ = (
        "_buffer",
        "_bytes_down",
        "_bytes_up",
        "_client",
        "_client_closed",
        "_client_unheard",
        "_close_code",
        "_closing",
        "_codec",
        "_ended",
        "_farewell_s",
        "_farewell_timer",
        "_liveness",
        "_loop",
        "_marks",
        "_on_end",
        "_opened_at",
        "_opening",
        "_opening_timer",
        "_outcome",
        "_server",
        "_server_unheard",
        "_timer",
        "_to_client",
        "_to_server",
        "subject",
    )

    def __init__(
        self,
        *,
        loop: Loop,
        buffer: memoryview,
        client: Leg,
        server: Leg,
        codec: Codec,
        marks: Marks,
        liveness: Liveness,
        subject: Subject,
        on_end: Callable[["Session"], None],
        farewell_s: float = 0.0,
    ) -> None:
        """``farewell_s``: how long after the VNC server's end somebody may still say why; see :meth:`_server_ended`."""
        self.subject = subject
        self._loop = loop
        self._buffer = buffer
        self._client = client
        self._server = server
        self._codec = codec
        self._marks = marks
        self._liveness = liveness
        self._on_end = on_end
        self._farewell_s = farewell_s
        self._farewell_timer: Timer | None = None
        self._to_client: bytes | memoryview = b""
        self._to_server: bytes | memoryview = b""
        self._closing = False
        self._ended = False
        # After a breach of the protocol nothing the client says has a meaning; after a failed write the VNC
        # server hears nothing more, though what it has said already is still relayed.
        self._client_unheard = False
        self._server_unheard = False
        # It has sent its close frame, behind which nothing comes (RFC 6455 section 5.5.1).
        self._client_closed = False
        self._timer: Timer | None = None
        # The security handshake with the client, until it is over.
        self._opening: Conversation[None] | None = None
        self._opening_timer: Timer | None = None
        self._bytes_down = self._bytes_up = 0
        self._opened_at = time.monotonic()
        self._close_code: int | None = None
        self._outcome = "ended"

    @property
    def context(self) -> RequestContext:
        """The request that opened the session, and its user and project, for the log.

        Built on demand: it is much larger than its inputs.
        """
        subject = self.subject
        return build_request_context(
            request_id=subject.request_id, user_id=subject.user_id, project_id=subject.project_id
        )

    @property
    def server_has_ended(self) -> bool:
        """Say whether the VNC server has ended the session of its own accord."""
        return self._server.at_end

    def start(self, from_server: bytes, from_client: bytes) -> None:
        """Begin to relay, with bytes that were read from either side before."""
        self._to_client = self._codec.build_header(len(from_server)) + from_server if from_server else b""
        self._guard(lambda: self._take_client(memoryview(from_client)))
        self._guard(self._flush_client)
        self._schedule_check()

    def start_with_talk(self, talk: Talk[None], timeout_s: float, from_server: bytes, from_client: bytes) -> None:
        """Begin with a security handshake that the client has ``timeout_s`` for, then relay as from :meth:`start`."""
        opening = self._opening = Conversation(talk)
        self._opening_timer = self._loop.call_later(timeout_s, self._give_up_opening)
        self._guard(lambda: self._act(opening.start()))
        self._guard(lambda: self._converse(Peer.SERVER, memoryview(from_server)))
        self._guard(lambda: self._take_client(memoryview(from_client)))
        self._schedule_check()

    def close(self, code: CloseCode, reason: str) -> None:
        """Hang up on the VNC server now, tell the client why, and end when it has answered or has had its time."""
        if not (self._closing or self._ended):
            self._begin_close(int(code), reason, self._codec.build_close(code, reason))
            self._guard(self._flush_client)

    def _begin_close(self, code: int, outcome: str, farewell: bytes) -> None:
        self._closing = True
        self._close_code, self._outcome = code, outcome
        self._end_opening()
        self._end_farewell()
        self._unwatch(self._server)
        self._server.close()
        self._to_server = b""
        self._to_client = bytes(self._to_client) + farewell
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, self.end)

    def end(self) -> None:
        """Close both descriptors at once."""
        if self._ended:
            return
        self._ended = True
        self._end_opening()
        self._end_farewell()
        if self._timer is not None:
            self._timer.cancel()
        for leg in (self._client, self._server):
            self._unwatch(leg)
            leg.close()
        self._to_client = self._to_server = b""
        LOG.info(
            "Console closed",
            context=self.context,
            instance=self.subject.instance_uuid,
            console_type=self.subject.console_type,
            client=self.subject.client,
            code=self._close_code,
            reason=self._outcome,
            bytes_to_client=self._bytes_down,
            bytes_from_client=self._bytes_up,
            seconds=time.monotonic() - self._opened_at,
        )
        self._on_end(self)

    def _end_farewell(self) -> None:
        if self._farewell_timer is not None:
            self._farewell_timer.cancel()
            self._farewell_timer = None

    def _schedule_check(self) -> None:
        delay_s = self._liveness.due_in_s(time.monotonic())
        if delay_s is not None and not (self._closing or self._ended):
            self._timer = self._loop.call_later(delay_s, self._check)

    def _check(self) -> None:
        """Do what is due: a ping, or the end of a session that is idle, over its time, or whose client is gone."""
        now = time.monotonic()
        if self._holds_client():
            # Its pong waits behind what the VNC server has not taken, or not answered: the silence is ours.
            self._liveness.heard(now)
        due = self._liveness.check(now)
        if isinstance(due, Ping):
            # Behind what the client has not taken, a ping would only be more of the same.
            if not self._to_client:
                self._to_client = self._codec.build_ping()
                self._guard(self._flush_client)
        elif due is not None:
            self.close(due.code, due.reason)
        self._schedule_check()

    def _on_server_ready(self, events: int) -> None:
        if events & WRITE and self._to_server:
            self._guard(self._flush_server)
        if self._ended or self._closing:
            return
        if self._server.mask & READ:
            self._guard(self._read_server)
        elif events & ~(READ | WRITE):
            # Hung up while nothing may be read from it: epoll would say so again and again.
            self._unwatch(self._server)

    def _on_client_ready(self, events: int) -> None:
        if events & WRITE and self._to_client:
            # Its kernel was full and is not any more: a viewer that takes its bytes slowly is there, without a word.
            self._liveness.heard(time.monotonic())
            self._guard(self._flush_client)
        if self._ended:
            return
        if self._client.mask & READ == READ:
            self._guard(self._read_client)
        elif events & ~WRITE:
            self._outcome = "the client vanished"
            self.end()

    def _guard(self, action: Callable[[], None]) -> None:
        """Run one step; end the session when its client is gone, and wait for the right things next."""
        if self._ended:
            return
        try:
            action()
        except OSError as exc:
            self._outcome = f"the client's connection broke ({type(exc).__name__})"
            self.end()
        except Exception:
            # A fault of ours must not come again with every event of a descriptor that stays ready.
            instance_uuid = self.subject.instance_uuid
            LOG.exception("Console ends by a fault of the proxy", context=self.context, instance=instance_uuid)
            self._outcome = "a fault of the proxy"
            self.end()
        if not self._ended:
            self._watch()

    def _read_server(self) -> None:
        for turn in itertools.count(1):
            room = self._room_for_client()
            if not room:
                return
            try:
                size = self._server.read_into(self._buffer[:room])
            except OSError:
                self.close(CloseCode.INTERNAL_ERROR, "The connection to the VNC server was lost")
                return
            if size is None:
                return
            if size == 0:
                self._server_ended()
                return
            self._bytes_down += size
            self._liveness.moved(time.monotonic())
            if self._opening is None:
                self._write_client(self._codec.build_header(size), self._buffer[:size])
            else:
                self._converse(Peer.SERVER, self._buffer[:size])
            if self._ended or self._closing or len(self._to_client) > self._marks.low_bytes:
                return
            # The rest of a TLS record is read now or never: epoll does not tell of it.
            if not self._server.has_buffered() and (self._to_client or size < room or turn >= _READS_PER_TURN):
                return

    def _resume_server(self) -> None:
        """Read what waits within TLS, unless the client has come to hold the VNC server up again."""
        if not (self._ended or self._closing) and self._server.mask & READ:
            self._guard(self._read_server)

    def _room_for_client(self) -> int:
        """Return how much to read for the client: what its kernel takes at once, and the high mark on top of it.

        Large reads are what makes a stream cheap; the bound is what keeps a viewer that stops from being held more
        than the high mark. In the handshake it is what that wants and not a byte more; 0 when that is nothing.
        """
        if self._opening is not None:
            return self._opening.missing_bytes(Peer.SERVER)
        held = len(self._to_client)
        return max(1, min(len(self._buffer), self._marks.high_bytes - held + max(0, self._client.free_bytes())))

    def _write_client(self, header: bytes, payload: memoryview) -> None:
        """Write to the client, behind what it has not taken yet; keep what it does not take now."""
        head = b"".join((self._to_client, header)) if self._to_client else header
        sent = self._client.write((head, payload) if head else (payload,))
        if sent < len(head):
            self._to_client = b"".join((head[sent:], payload))
        else:
            self._to_client = bytes(payload[sent - len(head) :])

    def _flush_client(self) -> None:
        while self._to_client:
            sent = self._client.write((self._to_client,))
            if not sent:
                return
            self._to_client = memoryview(self._to_client)[sent:] if sent < len(self._to_client) else b""
        if self._client_closed:
            self.end()
        elif self._codec.half_close and (self._closing or self._server.at_end):
            self._end_client_stream()

    def _server_ended(self) -> None:
        self._server.at_end = True
        if self._opening is not None:
            self.close(CloseCode.INTERNAL_ERROR, "The VNC server ended the security handshake")
        elif not self._codec.half_close and self._farewell_s:
            # The VNC server of a guest that has moved ends before its host has told anybody that it moved.
            self._farewell_timer = self._loop.call_later(self._farewell_s, self._close_normally)
        elif not self._codec.half_close:
            self._close_normally()
        elif not self._to_client:
            self._end_client_stream()

    def _close_normally(self) -> None:
        self.close(CloseCode.NORMAL, SERVER_ENDED)

    def _end_client_stream(self) -> None:
        """Tell a native viewer that no more comes; over TLS only the end of the whole session says so."""
        if self._client.tls:
            self._outcome = self._outcome if self._closing else "the VNC server ended the session"
            self.end()
            return
        self._client.write_end()
        self._end_if_both_ended()

    def _read_client(self) -> None:
        for turn in itertools.count(1):
            size = self._client.read_into(self._buffer[: self._marks.high_bytes])
            if size is None:
                return
            if size == 0:
                self._client_ended()
                return
            self._liveness.heard(time.monotonic())
            self._take_client(self._buffer[:size])
            if self._ended or self._holds_client():
                return
            # The rest of a TLS record is read now or never: epoll does not tell of it.
            if not self._client.has_buffered() and (size < self._marks.high_bytes or turn >= _READS_PER_TURN):
                return

    def _resume_client(self) -> None:
        """Read what waits within TLS, unless the VNC server has come to hold the client up again."""
        if not self._ended and self._client.mask & READ == READ:
            self._guard(self._read_client)

    def _take_client(self, data: memoryview) -> None:
        """Act on the client's bytes: payload goes to the VNC server in one write, pings are answered in one."""
        if self._client_unheard or self._client_closed:
            return
        payload: list[memoryview] = []
        pongs: list[bytes] = []
        closed: frames.Close | None = None
        try:
            for event in self._codec.feed(data):
                if isinstance(event, frames.Data):
                    payload.append(event.payload)
                elif isinstance(event, frames.Ping):
                    pongs.append(frames.build_pong(event.payload))
                elif isinstance(event, frames.Close):
                    closed = event
                    break
        except FrameInvalid as exc:
            self._client_unheard = True
            self.close(CloseCode(exc.code), exc.reason)
            return
        if self._opening is None:
            self._write_server(payload)
        elif payload:
            self._converse(Peer.VIEWER, memoryview(b"".join(payload)))
        if pongs and not self._closing:
            self._to_client = b"".join((self._to_client, *pongs))
            self._flush_client()
        if closed is not None:
            self._finish_close(closed)

    def _write_server(self, payload: list[memoryview]) -> None:
        """Write to the VNC server, behind what it has not taken yet; keep what it does not take now."""
        if self._closing or self._ended or self._server_unheard or not payload:
            return
        size = sum(map(len, payload))
        self._bytes_up += size
        self._liveness.moved(time.monotonic())
        if self._to_server:
            self._to_server = b"".join((self._to_server, *payload))
            return
        parts = payload if len(payload) <= _MAX_PARTS else [memoryview(b"".join(payload))]
        try:
            sent = self._server.write(parts)
        except OSError:
            self._lose_server()
            return
        if sent < size:
            self._to_server = b"".join(parts)[sent:]

    def _lose_server(self) -> None:
        """Give up writing; what the VNC server said before it went is still read, and its end ends the session."""
        self._server_unheard = True
        self._to_server = b""
        self._end_if_both_ended()

    def _flush_server(self) -> None:
        try:
            while self._to_server:
                sent = self._server.write((self._to_server,))
                if not sent:
                    return
                self._to_server = memoryview(self._to_server)[sent:] if sent < len(self._to_server) else b""
            if self._client.at_end:
                self._server.write_end()
                self._end_if_both_ended()
        except OSError:
            self._lose_server()

    def _finish_close(self, event: frames.Close) -> None:
        """Finish the closing handshake (RFC 6455 section 7.1.2): answer the client's close, or take its answer.

        The answer comes behind what the client has not taken yet, and the client has its time for that.
        """
        self._client_closed = True
        if not self._closing:
            code = CloseCode.NORMAL if event.code == 1005 else event.code
            self._begin_close(event.code, "the client closed", frames.build_close(code, ""))
            self._flush_client()
        else:
            self.end()

    def _client_ended(self) -> None:
        self._client.at_end = True
        if self._closing:
            self.end()
        elif not self._codec.half_close or self._opening is not None:
            self._outcome = "the client left"
            self.end()
        elif not self._to_server:
            self._flush_server()

    def _converse(self, peer: Peer, data: memoryview) -> None:
        """Go on with the security handshake, and relay as soon as it is over."""
        if self._opening is None:
            return
        try:
            steps = self._opening.feed(peer, data)
        except RfbInvalid as exc:
            broken_by_client = exc.peer == Peer.VIEWER.value
            self._client_unheard = broken_by_client
            self.close(CloseCode.PROTOCOL_ERROR if broken_by_client else CloseCode.INTERNAL_ERROR, str(exc))
            return
        self._act(steps)

    def _act(self, steps: Sequence[Write | StartTls]) -> None:
        """Send what the handshake has to say, each message in a frame of its own; then what came behind it."""
        for step in steps:
            if isinstance(step, Write):
                self._write_to(step.peer, step.data)
        opening = self._opening
        if opening is not None and opening.is_over:
            self._end_opening()
            for peer in Peer:
                self._write_to(peer, opening.take_rest(peer.other))

    def _write_to(self, peer: Peer, data: bytes) -> None:
        if peer is Peer.SERVER:
            self._write_server([memoryview(data)] if data else [])
        elif data and not self._ended:
            self._write_client(self._codec.build_header(len(data)), memoryview(data))

    def _end_opening(self) -> None:
        self._opening = None
        if self._opening_timer is not None:
            self._opening_timer.cancel()
            self._opening_timer = None

    def _give_up_opening(self) -> None:
        self.close(CloseCode.IDLE, "The security handshake was not finished in time")

    def _holds_client(self) -> bool:
        """Say whether the VNC server has to take, or to answer, what it has got before the client is read on."""
        awaited = self._opening is not None and self._opening.missing_bytes(Peer.SERVER) > 0
        return awaited or bool(self._to_server)

    def _end_if_both_ended(self) -> None:
        if self._client.at_end and self._server.at_end and not (self._to_client or self._to_server):
            self._outcome = "both sides ended"
            self.end()

    def _watch(self) -> None:
        """Wait for what can make progress: read a side only when the other has taken everything."""
        if not self._closing:
            readable = not self._server.at_end and len(self._to_client) <= self._marks.low_bytes
            readable = readable and (self._opening is None or self._opening.missing_bytes(Peer.SERVER) > 0)
            resumes = readable and not self._server.mask & READ and self._server.has_buffered()
            mask = (READ if readable else 0) | (WRITE if self._to_server else 0)
            self._set_mask(self._server, mask, self._on_server_ready)
            if resumes:
                self._loop.call_soon(self._resume_server)
        # A client that floods pings and reads no pong is not read for ever.
        readable = not (self._client.at_end or self._holds_client())
        readable = readable and len(self._to_client) < 2 * self._marks.high_bytes
        # Nor is a browser held that closed while its VNC server takes nothing; a native viewer may end first.
        otherwise = 0 if self._codec.half_close else PEER_ENDED
        mask = (READ if readable else otherwise) | (WRITE if self._to_client else 0)
        resumes = readable and self._client.mask & READ != READ and self._client.has_buffered()
        self._set_mask(self._client, mask, self._on_client_ready)
        if resumes:
            self._loop.call_soon(self._resume_client)

    def _set_mask(self, leg: Leg, mask: int, callback: Callable[[int], None]) -> None:
        if not leg.watched:
            leg.watched = True
            self._loop.register(leg.fd, mask, callback)
        elif leg.mask != mask:
            self._loop.modify(leg.fd, mask)
        leg.mask = mask

    def _unwatch(self, leg: Leg) -> None:
        if leg.watched:
            leg.watched = False
            self._loop.unregister(leg.fd)

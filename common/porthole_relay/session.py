# SPDX-License-Identifier: Apache-2.0
"""One open console: its state, what changes the state, and what the client is told at the end.

Why one loop for all: a process or a thread per console costs megabytes; here a silent console costs two descriptors and
a few small objects. A viewer that stops reading stops its own VNC server, and no other (O6).

A session has a :class:`~porthole_relay.states.State`, whose table says what each state reads, writes and ends with; a
:class:`~porthole_relay.stream_pair.StreamPair`, which moves the bytes and tells the session what happens to them; and a
:class:`~porthole_relay.pipe.Pipe` for each direction. Built by an owner such as
:mod:`porthole_novncproxy.sessions.registry`.
"""

import time
from collections.abc import Callable

from porthole_common.errors import FrameInvalid, RfbInvalid
from porthole_common.rfb.handshake import Handshake, Peer
from porthole_relay import frames
from porthole_relay.codec import Codec, RawCodec
from porthole_relay.frames import CloseCode
from porthole_relay.liveness import EndSession, Liveness
from porthole_relay.loop import Loop, Timer
from porthole_relay.pipe import Interceptor, Pipe, Watermarks
from porthole_relay.states import State
from porthole_relay.stream import Stream
from porthole_relay.stream_pair import StreamPair
from porthole_relay.subject import Outcome, Subject, log_end, log_fault
from porthole_relay.viewer_handshake import ViewerHandshake

# How long a client may take to answer a close frame, or to take the bytes before it.
CLOSE_TIMEOUT_S = 2.0
SERVER_ENDED = "The VNC server ended the session"
# A VNC server's bytes have no frames around them.
_SERVER_CODEC = RawCodec()


class Session:
    """One open console. Every method is called from the loop's thread."""

    __slots__ = (
        "_check_timer",
        "_close_code",
        "_close_grace_s",
        "_codec",
        "_deadline",
        "_find_end",
        "_liveness",
        "_loop",
        "_on_end",
        "_opened_at",
        "_outcome",
        "_streams",
        "state",
        "subject",
    )

    def __init__(
        self,
        *,
        loop: Loop,
        buffer: memoryview,
        client: Stream,
        server: Stream,
        codec: Codec,
        watermarks: Watermarks,
        liveness: Liveness,
        subject: Subject,
        on_end: Callable[["Session"], None],
        find_end: Callable[["Session"], EndSession | None] = lambda _session: None,
        close_grace_s: float = 0.0,
        to_client_interceptor: Interceptor | None = None,
        to_server_interceptor: Interceptor | None = None,
    ) -> None:
        """``codec`` is that of the client, and ``buffer`` that of the loop: its sessions share it.

        ``close_grace_s``: how long the state GRACE lasts; 0 for never. ``on_end`` is called once, when both descriptors
        are closed. ``find_end`` says why the session must end, or None; before the client's bytes go on, it is asked.
        The interceptors stand behind the proxy's own security handshake.
        """
        self.subject = subject
        self.state = State.OPEN
        self._loop = loop
        self._codec = codec
        self._liveness = liveness
        self._on_end = on_end
        self._find_end = find_end
        self._close_grace_s = close_grace_s
        # The deadline of the state, where it has one.
        self._deadline: Timer | None = None
        self._check_timer: Timer | None = None
        self._opened_at = time.monotonic()
        self._close_code: int | None = None
        self._outcome = "ended"
        # A client that breaks ends its session. A VNC server that takes no more may still have said something.
        high_bytes, low_bytes = watermarks.high_bytes, watermarks.low_bytes
        to_client = Pipe(client, codec, high_bytes, low_bytes, interceptor=to_client_interceptor)
        to_server = Pipe(server, _SERVER_CODEC, high_bytes, 0, outlives_sink=True, interceptor=to_server_interceptor)
        self._streams = StreamPair(
            loop=loop,
            buffer=buffer,
            client=client,
            server=server,
            codec=codec,
            to_client=to_client,
            to_server=to_server,
            liveness=liveness,
            events=self,
        )

    @property
    def server_has_ended(self) -> bool:
        """Whether the VNC server has ended the session, or the connection to it is broken."""
        return self._streams.to_client.at_end

    @property
    def numbers(self) -> tuple[int, int, int | None]:
        """The bytes that were relayed to the client, and from it; the code of the close frame, None without one."""
        return self._streams.to_client.relayed_bytes, self._streams.to_server.relayed_bytes, self._close_code

    @property
    def input_at(self) -> float | None:
        """When the client last sent RFB bytes, on the monotonic clock; None before."""
        return self._liveness.input_at

    @property
    def outcome(self) -> Outcome:
        """How the session stands now; in ``on_end``, how it has ended."""
        to_client, from_client, code = self.numbers
        return Outcome(code, self._outcome, to_client, from_client, time.monotonic() - self._opened_at)

    def start(self, from_server: bytes, from_client: bytes) -> None:
        """Begin to relay, with bytes that were read from either side before; or close, when the session must end."""
        if not self.may_relay():
            # Behind the last bytes of a client there may be its close frame, or a part of a frame.
            from_server = b""
        self._streams.run(lambda: self._streams.take(from_server, from_client))
        self._schedule_check()

    def start_with_handshake(
        self, handshake: Handshake[None], timeout_s: float, from_server: bytes, from_client: bytes
    ) -> None:
        """Begin with a security handshake that the client has ``timeout_s`` for, then relay as from :meth:`start`."""
        if not self.may_relay():
            self.start(b"", from_client)
            return
        streams = self._streams
        stage = ViewerHandshake(handshake, streams.to_client, streams.to_server, self.may_relay, self._finish_handshake)
        streams.from_server, streams.from_client = stage.from_server, stage.from_client
        self._enter(State.HANDSHAKE, timeout_s, self._give_up_handshake)
        streams.run(stage.start)
        self.start(from_server, from_client)

    def exchange_server(self, server: Stream, from_server: bytes = b"") -> bool:
        """Go on with another connection to a VNC server; return whether that can be, otherwise ``server`` is closed.

        Nothing calls this yet: it is for consoles that follow a live migration.

        The client does not notice: the bytes that are held for it come first, then ``from_server``, then the bytes of
        ``server``. Bytes that the old server has not taken are dropped: they may begin within a message. The session
        must be OPEN or in its GRACE, and a native viewer must not have been told of the old server's end.
        """
        was_told = self._codec.half_close and self.server_has_ended
        if self.state not in (State.OPEN, State.GRACE) or was_told:
            server.close()
            return False
        self._enter(State.OPEN)
        self._streams.exchange_server(server)
        self._streams.run(lambda: self._streams.take(from_server, b""))
        # The old server alone was told that a native viewer's stream had ended.
        self._streams.run(self._streams.flush_server)
        return True

    def close(self, code: CloseCode, reason: str) -> None:
        """Hang up on the VNC server now, tell the client why, and end when it has answered or has had its time."""
        if self.state.has_server:
            self._hang_up(State.CLOSING, code, reason)

    def end(self) -> None:
        """Close both descriptors at once."""
        if self.state is State.ENDED:
            return
        self._enter(State.ENDED)
        self._cancel_check()
        self._streams.close()
        log_end(self.subject, self.outcome)
        self._on_end(self)

    # What the stream pair asks and tells (porthole_relay.stream_pair.Events).

    def may_relay(self) -> bool:
        """Whether the client's bytes may go on. A session that must end is closed here, by the first byte that asks."""
        if not self.state.has_server:
            return False
        end = self._liveness.find_limit(time.monotonic()) or self._find_end(self)
        if end is not None:
            self.close(end.code, end.reason)
        return end is None

    def on_server_end(self) -> None:
        """Tell the client that the VNC server has ended, at once or when the reason has had time to come."""
        if self.state is State.HANDSHAKE:
            self.close(CloseCode.INTERNAL_ERROR, "The VNC server ended the security handshake")
        elif self._codec.half_close:
            self._streams.flush_client()
        else:
            # The VNC server of a guest that has moved ends before its host has reported the move.
            self._await_reason(self._close_normally)

    def on_server_lost(self) -> None:
        """Close, at once or when the reason has had time to come: the connection to the VNC server is broken."""
        if self.state is State.HANDSHAKE or self._codec.half_close:
            self._close_lost()
        else:
            # A QEMU that ends with bytes of the viewer unread resets the connection: its guest may just have stopped.
            self._await_reason(self._close_lost)

    def on_server_flushed(self) -> None:
        """Tell the VNC server of the end of a native viewer's stream, behind all that the viewer said."""
        if self._streams.to_server.at_end:
            self._streams.to_server.write_end()
            self._end_if_both_ended()

    def on_client_end(self) -> None:
        """End the session; a native viewer may end its stream and still be told the rest."""
        if not self.state.has_server:
            self.end()
        elif not self._codec.half_close or self.state is State.HANDSHAKE:
            self._end_with("the client left")
        else:
            self._streams.flush_server()

    def on_client_close(self, event: frames.Close) -> None:
        """Finish the closing handshake (RFC 6455 section 7.1.2): answer the client's close, or take its answer.

        The answer comes behind the bytes that the client has not taken yet, and the client has its time for that.
        """
        if self.state is State.CLOSING:
            self.end()
        elif self.state.has_server:
            code = CloseCode.NORMAL if event.code == frames.NO_CODE else event.code
            self._begin_close(State.ANSWERING, event.code, "the client closed", self._codec.build_close(code, ""))

    def on_client_lost(self, outcome: str) -> None:
        """End: nothing more can be said to the client."""
        self._end_with(outcome)

    def on_client_flushed(self) -> None:
        """End when the answer to a close frame is out; tell a native viewer of the end behind all that it was told."""
        if self.state is State.ANSWERING:
            self.end()
        elif self._codec.half_close and (self.server_has_ended or not self.state.has_server):
            self._end_client_stream()

    def on_breach(self, breach: FrameInvalid | RfbInvalid) -> None:
        """Close the session: further bytes of that side have no meaning."""
        if isinstance(breach, RfbInvalid) and breach.peer != Peer.VIEWER.value:
            self.close(CloseCode.INTERNAL_ERROR, str(breach))
        elif not self.state.has_server:
            # A close frame is on its way already, by its deadline.
            self.state = State.REJECTING
        elif isinstance(breach, FrameInvalid):
            self._hang_up(State.REJECTING, breach.code, breach.reason)
        else:
            self._hang_up(State.REJECTING, CloseCode.PROTOCOL_ERROR, str(breach))

    def on_fault(self, fault: Exception) -> None:
        """End, and log an error of the relay's own."""
        log_fault(self.subject, fault)
        self._end_with("an internal error of the proxy")

    # Transitions.

    def _enter(self, state: State, timeout_s: float = 0.0, on_timeout: Callable[[], None] | None = None) -> None:
        """Change the state; its deadline takes the place of the last one's."""
        self.state = state
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if on_timeout is None else self._loop.call_later(timeout_s, on_timeout)

    def _finish_handshake(self, from_server: bytes, from_client: bytes) -> None:
        """Relay from here on, beginning with the bytes that came behind the handshake."""
        self._enter(State.OPEN)
        self._streams.use_pipes()
        self._streams.from_client.relay((memoryview(from_client),))
        self._streams.from_server.relay((memoryview(from_server),))

    def _give_up_handshake(self) -> None:
        self.close(CloseCode.IDLE, "The security handshake was not finished in time")

    def _await_reason(self, close: Callable[[], None]) -> None:
        """Give a revocation its time to say why the VNC server is gone; ``close()`` when none comes."""
        if self._close_grace_s:
            self._enter(State.GRACE, self._close_grace_s, close)
        else:
            close()

    def _close_normally(self) -> None:
        self.close(CloseCode.NORMAL, SERVER_ENDED)

    def _close_lost(self) -> None:
        self.close(CloseCode.INTERNAL_ERROR, "The connection to the VNC server was lost")

    def _hang_up(self, state: State, code: int, reason: str) -> None:
        self._begin_close(state, code, reason, self._codec.build_close(code, reason))

    def _begin_close(self, state: State, code: int, outcome: str, frame: bytes) -> None:
        """Hang up on the VNC server, and put a close frame behind the bytes that are held for the client."""
        self._close_code, self._outcome = int(code), outcome
        self._enter(state, CLOSE_TIMEOUT_S, self.end)
        self._cancel_check()
        self._streams.drop_server()
        self._streams.to_client.append(frame)
        self._streams.run(self._streams.flush_client)

    def _end_with(self, outcome: str) -> None:
        self._outcome = outcome
        self.end()

    def _end_client_stream(self) -> None:
        """Tell a native viewer that the stream has ended. Over TLS only the end of the whole session can tell that."""
        if self._streams.client.tls:
            self._end_with("the VNC server ended the session" if self.state.has_server else self._outcome)
            return
        self._streams.to_client.write_end()
        self._end_if_both_ended()

    def _end_if_both_ended(self) -> None:
        pipes = (self._streams.to_client, self._streams.to_server)
        if all(pipe.at_end and not pipe.held for pipe in pipes):
            self._end_with("both sides ended")

    # Liveness.

    def _schedule_check(self) -> None:
        delay_s = self._liveness.due_in_s(time.monotonic())
        if delay_s is not None and self.state.has_server:
            self._check_timer = self._loop.call_later(delay_s, self._check)

    def _cancel_check(self) -> None:
        if self._check_timer is not None:
            self._check_timer.cancel()
            self._check_timer = None

    def _check(self) -> None:
        """Send a due ping, or close a session that is idle, past its limit or without a pong."""
        end = self._streams.check_liveness(time.monotonic())
        if end is not None:
            self.close(end.code, end.reason)
        self._schedule_check()

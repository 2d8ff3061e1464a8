# SPDX-License-Identifier: Apache-2.0
"""All open consoles of this process: it opens their sessions, and revocations and the end of the process close them.

:meth:`SessionRegistry.open` is called in the loop's thread once 101 is sent, :meth:`SessionRegistry.close_instance` in
RPC threads, and :meth:`SessionRegistry.stop` in the main thread. :mod:`~porthole_novncproxy.sessions.recheck` calls
:meth:`SessionRegistry.list_open` and :meth:`SessionRegistry.end` in threads of its own. The sessions themselves live in
the loop's thread.
"""

import math
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from porthole_common.context import RequestContext, get_current
from porthole_common.log import get_logger
from porthole_common.model import ConsoleMode, RevocationReason
from porthole_common.open_session import build_session_id
from porthole_common.rfb.viewer_handshake import offer_security
from porthole_novncproxy.admission.gate import Admission
from porthole_novncproxy.sessions.tally import Tally
from porthole_novncproxy.sessions.view_only import build_filters
from porthole_relay.codec import Codec
from porthole_relay.frames import CloseCode
from porthole_relay.liveness import EndSession, Liveness, LivenessPolicy
from porthole_relay.loop import Loop
from porthole_relay.pipe import Watermarks
from porthole_relay.session import CLOSE_TIMEOUT_S, SERVER_ENDED, Session
from porthole_relay.stream import Stream
from porthole_relay.subject import Subject

LOG = get_logger(__name__)
# The largest read: doc/source/performance.rst has the figures of other sizes.
_BUFFER_BYTES = 4 * 1024 * 1024
# How long a revocation is remembered, for consoles that are being opened when it comes: longer than opening takes.
_REVOCATION_MEMORY_S = 1000.0
# Old revocations are forgotten when there are twice as many as after the last time, and at least this many: when a host
# with thousands of guests ends, each revocation must not look at all others.
_MIN_SWEPT = 256
# How long the loop may take to list sessions for a user, or to end them: it does so in its next turn.
LOOP_TIMEOUT_S = 0.6
# The reason in the close frame; the console page has a longer text for each.
REVOKED_WORDS = {
    RevocationReason.ENDED: "The console was revoked",
    RevocationReason.MOVED: "The instance has moved to another host",
    RevocationReason.OWNER_CHANGED: "The instance has another owner",
}

_STOPPING = EndSession(CloseCode.GOING_AWAY, "The console proxy is stopping")
# What is remembered of an instance that was not revoked.
_NEVER = (-math.inf, RevocationReason.ENDED)


class SessionObserver(Protocol):
    """What is told of each session, in the loop's thread: both methods return at once, and raise nothing."""

    def on_opened(self, session: Session, admission: Admission) -> None: ...  # noqa: D102
    def on_closed(self, session: Session, admission: Admission) -> None: ...  # noqa: D102


class SessionRegistry:
    """The open sessions of one loop."""

    def __init__(
        self,
        loop: Loop,
        watermarks: Watermarks,
        liveness: LivenessPolicy,
        enforce_session_timeout: bool,
        security_timeout_s: float,
        close_grace_s: float = 0.0,
        force_shared: bool = False,
        observer: SessionObserver | None = None,
    ) -> None:
        """``enforce_session_timeout``: end a console when its token expires.

        ``security_timeout_s`` bounds the security handshake with a viewer. ``close_grace_s``: how long after a VNC
        server's end a revocation may still tell the reason. ``force_shared``: no viewer has the VNC server throw out
        the others. ``observer`` is told of each session.
        """
        self._observer = observer
        self._loop = loop
        self._watermarks = watermarks
        self._liveness = liveness
        self._enforce_session_timeout = enforce_session_timeout
        self._security_timeout_s = security_timeout_s
        self._close_grace_s = close_grace_s
        self._force_shared = force_shared
        # One for all sessions: a session holds no buffer between two turns of the loop.
        self._buffer = memoryview(bytearray(max(_BUFFER_BYTES, watermarks.high_bytes)))
        self._sessions: dict[Session, Admission] = {}
        # The consoles' numbers for the metrics.
        self.tally = Tally(loop)
        # By instance, and host or None for all of them. Written by the thread that receives a revocation, at once: the
        # loop looks here before a client's bytes go on, and its call to close the sessions may come later.
        self._revoked: dict[tuple[str, str | None], tuple[float, RevocationReason]] = {}
        self._sweep_at = _MIN_SWEPT
        self._lock = threading.Lock()
        self._all_ended = threading.Event()
        self._draining = self._stopping = False

    def open(self, client: socket.socket, from_client: bytes, admission: Admission, codec: Codec) -> None:
        """Relay between ``client`` and the admitted VNC server; both sockets belong to the relay from here on.

        ``from_client``: bytes the client sent behind its request.
        """
        self._loop.call_soon(lambda: self._open(client, from_client, admission, codec))

    def close_instance(
        self,
        instance_uuid: str,
        compute_host: str | None = None,
        reason: RevocationReason = RevocationReason.ENDED,
    ) -> None:
        """End every console of the instance with 4401, also those that are being opened.

        With ``compute_host`` only those to that host: an instance that has moved may have new consoles elsewhere.
        """
        context = get_current()
        now = time.monotonic()
        with self._lock:
            if len(self._revoked) >= self._sweep_at:
                self._sweep_revoked(now)
            self._revoked[instance_uuid, compute_host] = now, reason
        self._loop.call_soon(lambda: self._close_instance(instance_uuid, compute_host, reason, context))

    def _sweep_revoked(self, now: float) -> None:
        """Forget old revocations; under the lock. The loop looks without it, hence a copy."""
        self._revoked = {place: end for place, end in self._revoked.items() if now - end[0] < _REVOCATION_MEMORY_S}
        self._sweep_at = max(2 * len(self._revoked), _MIN_SWEPT)

    def list_open(self, timeout_s: float) -> list[tuple[Session, Admission]]:
        """Return the open consoles, as the loop lists them in its next turn.

        :raises TimeoutError: when the loop has not done so within ``timeout_s``.
        """
        return self._loop.ask(lambda: list(self._sessions.items()), timeout_s)

    def end(self, sessions: Sequence[Session], reason: RevocationReason) -> None:
        """End these sessions as a revocation does; those that have ended meanwhile stay as they are."""

        def end() -> None:
            for session in sessions:
                if session in self._sessions:
                    _revoke(session, reason)

        self._loop.call_soon(end)

    def end_by(
        self, sessions: Sequence[Session], user: str, end: EndSession, on_ended: Callable[[Session, Admission], None]
    ) -> int:
        """End those of ``sessions`` that are still open, in the name of ``user``, and return how many.

        ``on_ended`` is called for each of them in the loop's thread, also when the loop comes to it late.

        :raises TimeoutError: when the loop has not done so within :data:`LOOP_TIMEOUT_S`; it still will.
        """

        def end_all() -> int:
            count = 0
            for session in sessions:
                admission = self._sessions.get(session)
                # Not one that has ended, and waits for the client's answer.
                if admission is not None and session.state.has_server:
                    admission.ended_by = user
                    session.close(end.code, end.reason)
                    on_ended(session, admission)
                    count += 1
            return count

        return self._loop.ask(end_all, LOOP_TIMEOUT_S)

    def stop(self, drain_timeout_s: float) -> None:
        """Wait ``drain_timeout_s`` for the consoles to end, then end the remaining ones with 1001."""
        self._loop.call_soon(self._drain)
        if drain_timeout_s and not self._all_ended.wait(0):
            LOG.info("Drain started", sessions=len(self._sessions), seconds=drain_timeout_s)
            self._all_ended.wait(drain_timeout_s)
        self._stopping = True
        self._loop.call_soon(self._stop)
        self._all_ended.wait(CLOSE_TIMEOUT_S + 1)

    def _open(self, client: socket.socket, from_client: bytes, admission: Admission, codec: Codec) -> None:
        info = admission.connect_info
        to_server_filter, server_greeting = build_filters(
            is_view_only=info.mode is ConsoleMode.VIEW,
            force_shared=self._force_shared,
            is_negotiated=admission.offer is not None,
        )
        session = Session(
            loop=self._loop,
            buffer=self._buffer,
            client=Stream(client),
            server=Stream(admission.sock),
            codec=codec,
            watermarks=self._watermarks,
            liveness=self._start_clock(codec, admission),
            subject=_build_subject(admission),
            on_end=self._on_end,
            find_end=self._find_end,
            close_grace_s=self._close_grace_s,
            to_client_interceptor=server_greeting,
            to_server_interceptor=to_server_filter,
        )
        self._sessions[session] = admission
        self.tally.note_opened(session, admission)
        if self._observer is not None:
            self._observer.on_opened(session, admission)
        LOG.info(
            "Console opened",
            context=session.subject.context,
            session=session.subject.session_id,
            instance=info.instance_uuid,
            console_type=info.console_type,
            client=admission.source,
            compute=info.compute_host,
            mode=info.mode,
        )
        if admission.offer is None:
            session.start(admission.first_bytes, from_client)
        else:
            handshake = offer_security(admission.offer)
            session.start_with_handshake(handshake, self._security_timeout_s, admission.first_bytes, from_client)

    def _on_end(self, session: Session) -> None:
        admission = self._sessions.pop(session)
        admission.release()
        self.tally.note_ended(session, admission)
        if self._observer is not None:
            self._observer.on_closed(session, admission)
        if self._draining and not self._sessions:
            self._all_ended.set()

    def _start_clock(self, codec: Codec, admission: Admission) -> Liveness:
        now = time.monotonic()
        expires_at = _find_expiry(admission, now) if self._enforce_session_timeout else None
        policy = self._liveness if codec.build_ping() else replace(self._liveness, ping_interval_s=0.0)
        return Liveness(policy, now, expires_at)

    def _find_end(self, session: Session) -> EndSession | None:
        """Return why the session must end, or None. Before each read of a client goes on, in the loop's thread."""
        if self._stopping:
            return _STOPPING
        if not self._revoked:
            return None
        admission = self._sessions[session]
        info, revoked = admission.connect_info, self._revoked
        for host in (info.compute_host, None):
            at, reason = revoked.get((info.instance_uuid, host), _NEVER)
            if at >= admission.admitted_at:
                return _describe_end(session, reason)
        return None

    def _close_instance(
        self, instance_uuid: str, compute_host: str | None, reason: RevocationReason, context: RequestContext
    ) -> None:
        sessions = [
            session
            for session, admission in self._sessions.items()
            if admission.connect_info.instance_uuid == instance_uuid
            and compute_host in (None, admission.connect_info.compute_host)
        ]
        LOG.info(
            "Revocation received",
            context=context,
            instance=instance_uuid,
            compute=compute_host,
            reason=reason,
            sessions=len(sessions),
        )
        for session in sessions:
            _revoke(session, reason)

    def _drain(self) -> None:
        self._draining = True
        if not self._sessions:
            self._all_ended.set()

    def _stop(self) -> None:
        LOG.info("Drain ended", sessions=len(self._sessions))
        for session in list(self._sessions):
            session.close(_STOPPING.code, _STOPPING.reason)


def _describe_end(session: Session, reason: RevocationReason) -> EndSession:
    """Return what the client of a revoked session is told."""
    if session.server_has_ended and reason is RevocationReason.ENDED:
        # That the VNC server ended says more than that the console was revoked.
        return EndSession(CloseCode.NORMAL, SERVER_ENDED)
    return EndSession(CloseCode.REVOKED, REVOKED_WORDS[reason])


def _revoke(session: Session, reason: RevocationReason) -> None:
    end = _describe_end(session, reason)
    session.close(end.code, end.reason)


def _find_expiry(admission: Admission, now: float) -> float | None:
    """Return when the token expires, by this host's monotonic clock; None for never.

    consoleauth says how many seconds are left, counted from a moment after ``admitted_at``. So it does not matter what
    the hosts' clocks show, or whether a clock is set while the console is open (O38).
    """
    info = admission.connect_info
    if info.remaining_s is not None:
        return admission.admitted_at + info.remaining_s
    # An older consoleauth tells only the time, by its own clock.
    return None if info.expires_at is None else now + (info.expires_at - datetime.now(UTC)).total_seconds()


def _build_subject(admission: Admission) -> Subject:
    info = admission.connect_info
    return Subject(
        instance_uuid=info.instance_uuid,
        console_type=info.console_type,
        client=admission.source,
        request_id=admission.request_id,
        user_id=info.user_id,
        project_id=info.project_id,
        session_id=build_session_id(),
    )

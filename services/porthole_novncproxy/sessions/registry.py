# SPDX-License-Identifier: Apache-2.0
"""All open consoles of this process: it opens their sessions, and revocations and the end of the process close them.

:meth:`SessionRegistry.open` is called in the loop's thread once 101 is sent, :meth:`SessionRegistry.close_instance` in
RPC threads, and :meth:`SessionRegistry.stop` in the main thread. :mod:`~porthole_novncproxy.sessions.recheck` calls
:meth:`SessionRegistry.list_open` and :meth:`SessionRegistry.end` in threads of its own. The sessions themselves live in
the loop's thread.
"""

import queue
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from porthole_common.context import RequestContext, get_current
from porthole_common.log import get_logger
from porthole_common.model import ConnectInfo, RevocationReason
from porthole_common.rfb.viewer_handshake import offer_security
from porthole_novncproxy.admission.gate import Admission
from porthole_relay.codec import Codec
from porthole_relay.frames import CloseCode
from porthole_relay.liveness import Liveness, LivenessPolicy
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
# The reason in the close frame; the console page has a longer text for each.
REVOKED_WORDS = {
    RevocationReason.ENDED: "The console was revoked",
    RevocationReason.MOVED: "The instance has moved to another host",
    RevocationReason.OWNER_CHANGED: "The instance has another owner",
}


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
    ) -> None:
        """``enforce_session_timeout``: end a console when its token expires.

        ``security_timeout_s`` bounds the security handshake with a viewer. ``close_grace_s``: how long after a VNC
        server's end a revocation may still tell the reason.
        """
        self._loop = loop
        self._watermarks = watermarks
        self._liveness = liveness
        self._enforce_session_timeout = enforce_session_timeout
        self._security_timeout_s = security_timeout_s
        self._close_grace_s = close_grace_s
        # One for all sessions: a session holds no buffer between two turns of the loop.
        self._buffer = memoryview(bytearray(max(_BUFFER_BYTES, watermarks.high_bytes)))
        self._sessions: dict[Session, Admission] = {}
        # By instance, and host or None for all of them.
        self._revoked_at: dict[tuple[str, str | None], float] = {}
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
        self._loop.call_soon(lambda: self._close_instance(instance_uuid, compute_host, reason, context))

    def list_open(self, timeout_s: float) -> list[tuple[Session, Admission]]:
        """Return the open consoles, as the loop lists them in its next turn.

        :raises TimeoutError: when the loop has not done so within ``timeout_s``.
        """
        listed: queue.SimpleQueue[list[tuple[Session, Admission]]] = queue.SimpleQueue()
        self._loop.call_soon(lambda: listed.put(list(self._sessions.items())))
        try:
            return listed.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError("the event loop did not list its sessions") from None

    def end(self, sessions: Sequence[Session], reason: RevocationReason) -> None:
        """End these sessions as a revocation does; those that have ended meanwhile stay as they are."""

        def end() -> None:
            for session in sessions:
                if session in self._sessions:
                    _revoke(session, reason)

        self._loop.call_soon(end)

    def stop(self, drain_timeout_s: float) -> None:
        """Wait ``drain_timeout_s`` for the consoles to end, then end the remaining ones with 1001."""
        self._loop.call_soon(self._drain)
        if drain_timeout_s and not self._all_ended.wait(0):
            LOG.info("Drain started", sessions=len(self._sessions), seconds=drain_timeout_s)
            self._all_ended.wait(drain_timeout_s)
        self._loop.call_soon(self._stop)
        self._all_ended.wait(CLOSE_TIMEOUT_S + 1)

    def _open(self, client: socket.socket, from_client: bytes, admission: Admission, codec: Codec) -> None:
        info = admission.connect_info

        session = Session(
            loop=self._loop,
            buffer=self._buffer,
            client=Stream(client),
            server=Stream(admission.sock),
            codec=codec,
            watermarks=self._watermarks,
            liveness=self._start_clock(codec, info),
            subject=_build_subject(admission),
            on_end=self._on_end,
            close_grace_s=self._close_grace_s,
        )
        self._sessions[session] = admission
        LOG.info(
            "Console opened",
            context=session.subject.context,
            instance=info.instance_uuid,
            console_type=info.console_type,
            client=admission.source,
            compute=info.compute_host,
        )
        if admission.offer is None:
            session.start(admission.first_bytes, from_client)
        else:
            handshake = offer_security(admission.offer)
            session.start_with_handshake(handshake, self._security_timeout_s, admission.first_bytes, from_client)
        if self._stopping:
            session.close(CloseCode.GOING_AWAY, "The console proxy is stopping")
        elif self._last_revoked_at(info) >= admission.admitted_at:
            session.close(CloseCode.REVOKED, REVOKED_WORDS[RevocationReason.ENDED])

    def _on_end(self, session: Session) -> None:
        self._sessions.pop(session).release()
        if self._draining and not self._sessions:
            self._all_ended.set()

    def _start_clock(self, codec: Codec, info: ConnectInfo) -> Liveness:
        now = time.monotonic()
        expires_at = None
        if self._enforce_session_timeout and info.expires_at is not None:
            expires_at = now + (info.expires_at - datetime.now(UTC)).total_seconds()
        policy = self._liveness if codec.build_ping() else replace(self._liveness, ping_interval_s=0.0)
        return Liveness(policy, now, expires_at)

    def _last_revoked_at(self, info: ConnectInfo) -> float:
        return max(self._revoked_at.get((info.instance_uuid, host), 0.0) for host in (info.compute_host, None))

    def _close_instance(
        self, instance_uuid: str, compute_host: str | None, reason: RevocationReason, context: RequestContext
    ) -> None:
        now = time.monotonic()
        self._revoked_at = {place: at for place, at in self._revoked_at.items() if now - at < _REVOCATION_MEMORY_S}
        self._revoked_at[instance_uuid, compute_host] = now
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
        self._stopping = True
        LOG.info("Drain ended", sessions=len(self._sessions))
        for session in list(self._sessions):
            session.close(CloseCode.GOING_AWAY, "The console proxy is stopping")


def _revoke(session: Session, reason: RevocationReason) -> None:
    if session.server_has_ended and reason is RevocationReason.ENDED:
        # The client learns that the VNC server ended, which says more than that its console was revoked.
        session.close(CloseCode.NORMAL, SERVER_ENDED)
    else:
        session.close(CloseCode.REVOKED, REVOKED_WORDS[reason])


def _build_subject(admission: Admission) -> Subject:
    info = admission.connect_info
    return Subject(
        instance_uuid=info.instance_uuid,
        console_type=info.console_type,
        client=admission.source,
        request_id=admission.request_id,
        user_id=info.user_id,
        project_id=info.project_id,
    )

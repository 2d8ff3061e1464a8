# SPDX-License-Identifier: Apache-2.0
"""All open consoles of this process: where a finished handshake ends, and where a revocation or the end begins.

Called from handshake threads (:meth:`Relay.open`), from RPC threads (:meth:`Relay.close_instance`) and from the
main thread (:meth:`Relay.stop`); the sessions themselves live in the loop's thread alone.
"""

import logging
import socket
import threading
import time

from porthole_novncproxy.admission import Admission
from porthole_novncproxy.frames import CloseCode
from porthole_novncproxy.loop import Loop
from porthole_novncproxy.session import CLOSE_TIMEOUT_S, Codec, Session
from porthole_novncproxy.transport import Leg

LOG = logging.getLogger(__name__)
# A revocation is remembered for consoles that were being opened when it came: longer than any opening takes.
_REVOCATION_MEMORY_S = 120.0


class Relay:
    """The open sessions of one loop."""

    def __init__(self, loop: Loop, buffer_bytes: int) -> None:
        """``buffer_bytes``: how much is read at once, and so the most that is held for a peer that does not read."""
        self._loop = loop
        # One for all sessions: a session that is not being relayed this instant holds no buffer.
        self._buffer = memoryview(bytearray(buffer_bytes))
        self._sessions: dict[Session, None] = {}
        self._revoked_at: dict[str, float] = {}
        self._all_ended = threading.Event()
        self._stopping = False

    def open(self, client: socket.socket, from_client: bytes, admission: Admission, codec: Codec) -> None:
        """Relay between ``client`` and the admitted VNC server; both sockets belong to the relay from here on.

        ``from_client``: bytes the client sent behind its request.
        """
        self._loop.call_soon(lambda: self._open(client, from_client, admission, codec))

    def close_instance(self, instance_uuid: str) -> None:
        """End every console of the instance with 4401, those that are being opened right now too."""
        self._loop.call_soon(lambda: self._close_instance(instance_uuid))

    def stop(self) -> None:
        """End every console with 1001 and wait until they have ended; open none after."""
        self._loop.call_soon(self._stop)
        self._all_ended.wait(CLOSE_TIMEOUT_S + 1)

    def _open(self, client: socket.socket, from_client: bytes, admission: Admission, codec: Codec) -> None:
        info = admission.connect_info

        def on_end(ended: Session) -> None:
            self._sessions.pop(ended, None)
            admission.release()
            if self._stopping and not self._sessions:
                self._all_ended.set()

        session = Session(
            loop=self._loop,
            buffer=self._buffer,
            client=Leg(client),
            server=Leg(admission.sock),
            codec=codec,
            connect_info=info,
            on_end=on_end,
        )
        self._sessions[session] = None
        LOG.info("Console %s of instance %s opened from %s", info.console_type, info.instance_uuid, admission.source)
        session.start(admission.first_bytes, from_client)
        if self._stopping:
            session.close(CloseCode.GOING_AWAY, "The console proxy is stopping")
        elif self._revoked_at.get(info.instance_uuid, 0.0) >= admission.admitted_at:
            session.close(CloseCode.REVOKED, "The console was revoked")

    def _close_instance(self, instance_uuid: str) -> None:
        now = time.monotonic()
        self._revoked_at = {uuid: at for uuid, at in self._revoked_at.items() if now - at < _REVOCATION_MEMORY_S}
        self._revoked_at[instance_uuid] = now
        for session in list(self._sessions):
            if session.connect_info.instance_uuid == instance_uuid:
                session.close(CloseCode.REVOKED, "The console was revoked")

    def _stop(self) -> None:
        self._stopping = True
        for session in list(self._sessions):
            session.close(CloseCode.GOING_AWAY, "The console proxy is stopping")
        if not self._sessions:
            self._all_ended.set()

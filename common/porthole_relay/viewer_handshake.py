# SPDX-License-Identifier: Apache-2.0
"""The state HANDSHAKE of a session: RFB's security handshake with the viewer, between the two pipes.

Why a state of the session and not a thread's work: the handshake lasts as long as a user looks for a password, and
meanwhile a revocation, a drain and the client's end must reach the session. The messages are those of
:mod:`porthole_common.rfb.viewer_handshake`; this module moves their bytes. While the handshake lasts, the stream pair
gives each side's bytes to :attr:`ViewerHandshake.from_server` and :attr:`ViewerHandshake.from_client` in place of the
pipes.
"""

from collections.abc import Callable, Sequence

from porthole_common.rfb.handshake import Handshake, HandshakeDriver, Peer, StartTls, Write
from porthole_relay.pipe import Pipe


class ViewerHandshake:
    """The handshake under way. ``on_over`` is called with the bytes of the VNC server and of the client behind it.

    ``may_relay`` is asked before bytes of the client go on: they may have been sent ahead, and wait for the server's.
    """

    __slots__ = ("_driver", "_may_relay", "_on_over", "_to_client", "_to_server", "from_client", "from_server")

    def __init__(
        self,
        handshake: Handshake[None],
        to_client: Pipe,
        to_server: Pipe,
        may_relay: Callable[[], bool],
        on_over: Callable[[bytes, bytes], None],
    ) -> None:
        self._driver = HandshakeDriver(handshake)
        self._to_client = to_client
        self._to_server = to_server
        self._may_relay = may_relay
        self._on_over = on_over
        self.from_server = _FromServer(self)
        self.from_client = _FromClient(self)

    def start(self) -> None:
        """Send the first message."""
        self._perform(self._driver.start())

    def feed(self, peer: Peer, parts: Sequence[memoryview]) -> None:
        """Go on with bytes of ``peer``.

        :raises RfbInvalid: when a peer breaks the protocol.
        """
        self._perform(self._driver.feed(peer, b"".join(parts)))

    def missing_from_server(self) -> int:
        """Return how many bytes the VNC server has to say before the handshake goes on; 0 when it is the viewer's turn.

        No byte more is read from it: what follows is the session's.
        """
        return self._driver.missing_bytes(Peer.SERVER)

    def _perform(self, steps: Sequence[Write | StartTls]) -> None:
        """Send each message in a frame of its own, unless the session must end."""
        if not self._may_relay():
            return
        for step in steps:
            if isinstance(step, Write):
                pipe = self._to_server if step.peer is Peer.SERVER else self._to_client
                pipe.write((step.data,))
        if self._driver.is_over:
            self._on_over(self._driver.take_rest(Peer.SERVER), self._driver.take_rest(Peer.VIEWER))


class _FromServer:
    __slots__ = ("_handshake",)

    def __init__(self, handshake: ViewerHandshake) -> None:
        self._handshake = handshake

    def may_read(self) -> bool:
        return self._handshake.missing_from_server() > 0

    def room_bytes(self, limit_bytes: int) -> int:
        return min(limit_bytes, self._handshake.missing_from_server())

    def relay(self, parts: Sequence[memoryview]) -> None:
        self._handshake.feed(Peer.SERVER, parts)


class _FromClient:
    __slots__ = ("_handshake",)

    def __init__(self, handshake: ViewerHandshake) -> None:
        self._handshake = handshake

    def may_read(self) -> bool:
        # The VNC server must take its bytes and answer them first.
        return not self._handshake.missing_from_server()

    def relay(self, parts: Sequence[memoryview]) -> None:
        self._handshake.feed(Peer.VIEWER, parts)

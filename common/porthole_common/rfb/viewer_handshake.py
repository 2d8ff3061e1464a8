# SPDX-License-Identifier: Apache-2.0
"""The handshake with the viewer: Porthole is its VNC server, and offers what the real one has agreed to.

Why: the viewer must not be asked for TLS, which a browser cannot do inside its WebSocket, and may speak another version
than the server. The password is between the two: the server's challenge goes to the viewer, and the viewer's response
to the server. Each message is at most 125 bytes long. Run by :class:`porthole_common.rfb.handshake.HandshakeDriver`.
"""

import struct

from porthole_common.errors import RfbInvalid
from porthole_common.rfb import messages
from porthole_common.rfb.handshake import Handshake, Peer, Read, Write
from porthole_common.rfb.messages import SecurityType, Version
from porthole_common.rfb.negotiation import Offer

_VIEWER = Peer.VIEWER.value
_SERVER = Peer.SERVER.value
_OK = struct.pack(">I", 0)


def offer_security(offer: Offer) -> Handshake[None]:
    """Offer None or VNC authentication to the viewer, and go through it.

    A wrong password is told to the viewer and is no error: the VNC server ends such a connection itself.

    :raises RfbInvalid: when the viewer breaks the protocol, or the VNC server breaks it in its SecurityResult.
    """
    yield Write(Peer.VIEWER, messages.build_version(Version.V3_8))
    version = yield from messages.read_version(Peer.VIEWER, _VIEWER)
    kind = SecurityType.NONE if offer.challenge is None else SecurityType.VNC_AUTHENTICATION
    if version is Version.V3_3:
        yield Write(Peer.VIEWER, struct.pack(">I", kind))
    else:
        yield Write(Peer.VIEWER, bytes([1, kind]))
        if (yield from messages.read_u8(Peer.VIEWER)) != kind:
            raise RfbInvalid(_VIEWER, "it chooses a security type that it was not offered")
    if offer.challenge is not None:
        yield from _pass_authentication(offer.challenge, offer.version, version)
    elif version is Version.V3_8:
        yield Write(Peer.VIEWER, _OK)


def _pass_authentication(challenge: bytes, server_version: Version, version: Version) -> Handshake[None]:
    """Pass on challenge, response (16 bytes each) and SecurityResult (RFC 6143 section 7.2.2)."""
    yield Write(Peer.VIEWER, challenge)
    yield Write(Peer.SERVER, (yield Read(Peer.VIEWER, messages.CHALLENGE_BYTES)))
    reason = yield from messages.read_security_result(Peer.SERVER, _SERVER, server_version)
    if reason is None:
        yield Write(Peer.VIEWER, _OK)
    elif version is Version.V3_8:
        yield Write(Peer.VIEWER, messages.build_failure(reason or b"Authentication failed"))
    else:
        yield Write(Peer.VIEWER, struct.pack(">I", 1))

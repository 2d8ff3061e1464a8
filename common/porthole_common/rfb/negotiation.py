# SPDX-License-Identifier: Apache-2.0
"""The handshake with the VNC server, up to the offer for the viewer.

Why before the handshake with the viewer: a server without acceptable security can still be answered with a status and a
reason. With VNC authentication this handshake ends at the server's challenge, which only the viewer's user can answer.
Run by :class:`porthole_common.rfb.handshake.HandshakeDriver`.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from porthole_common.errors import RfbInvalid, VncSecurityUnsuitable
from porthole_common.rfb import messages
from porthole_common.rfb.handshake import Handshake, Peer, Read, StartTls, Write
from porthole_common.rfb.messages import SecurityType, VencryptType, Version

NONE = "none"
VENCRYPT = "vencrypt"
# The security types of each scheme of [vnc] auth_schemes, the one that asks least of the viewer first.
_TYPES = {
    NONE: (SecurityType.NONE, SecurityType.VNC_AUTHENTICATION),
    VENCRYPT: (SecurityType.VENCRYPT,),
}


@dataclass(frozen=True)
class Policy:
    """The security that is acceptable. ``schemes``: of ``none`` and ``vencrypt``, the preferred one first.

    ``anonymous``: whether TLS with a server that has no certificate is acceptable.
    """

    schemes: Sequence[str]
    anonymous: bool = False


@dataclass(frozen=True)
class Offer:
    """The security for the viewer: None, or with a ``challenge`` VNC authentication.

    ``version`` is the server's: the form of its SecurityResult depends on it.
    """

    version: Version
    challenge: bytes | None = None


def negotiate(server: str, policy: Policy) -> Handshake[Offer]:
    """Agree with the VNC server on a security type that ``policy`` allows, start TLS, and read its result of None.

    ``server`` names the VNC server in errors.

    :raises RfbInvalid: when the server breaks the protocol.
    :raises VncSecurityUnsuitable: when the server offers nothing that is allowed, or refuses.
    """
    version = yield from messages.read_version(Peer.SERVER, server)
    yield Write(Peer.SERVER, messages.build_version(version))
    if version is Version.V3_3:
        chosen = yield from _read_decision(server, policy)
    else:
        chosen = yield from _choose(server, policy)
    if chosen is SecurityType.VENCRYPT:
        return (yield from _negotiate_vencrypt(server, policy, version))
    if chosen is SecurityType.VNC_AUTHENTICATION:
        return Offer(version, (yield Read(Peer.SERVER, messages.CHALLENGE_BYTES)))
    # Before 3.8 there is no result of None (RFC 6143 appendix A).
    if version is Version.V3_8:
        yield from _read_ok(server, version)
    return Offer(version)


def _read_decision(server: str, policy: Policy) -> Handshake[SecurityType]:
    """Read ``U32 type``: in 3.3 the server decides (RFC 6143 appendix A)."""
    decided = yield from messages.read_u32(Peer.SERVER)
    if decided == SecurityType.INVALID:
        yield from _refused(server)
    return _pick(server, policy, [decided])


def _choose(server: str, policy: Policy) -> Handshake[SecurityType]:
    """Read ``U8 count, count * U8 type`` and answer ``U8 type`` (RFC 6143 section 7.1.2)."""
    count = yield from messages.read_u8(Peer.SERVER)
    if not count:
        yield from _refused(server)
    offered = yield Read(Peer.SERVER, count)
    chosen = _pick(server, policy, list(offered))
    yield Write(Peer.SERVER, bytes([chosen]))
    return chosen


def _pick(server: str, policy: Policy, offered: Sequence[int]) -> SecurityType:
    for scheme in policy.schemes:
        for kind in _TYPES[scheme]:
            if kind in offered:
                return kind
    raise VncSecurityUnsuitable(
        server, f"it offers the security types {_list(offered)}, and [vnc] auth_schemes is {', '.join(policy.schemes)}"
    )


def _negotiate_vencrypt(server: str, policy: Policy, version: Version) -> Handshake[Offer]:
    """Agree on a sub-type, begin TLS, and go on inside it.

    Server: ``U8 major, U8 minor``; client the same; server: ``U8 0`` for yes, ``U8 count, count * U32 sub-type``;
    client: ``U32 sub-type``; server: ``U8 1`` for yes; TLS.
    """
    spoken = tuple((yield Read(Peer.SERVER, 2)))
    if spoken < messages.VENCRYPT_VERSION:
        raise VncSecurityUnsuitable(server, f"it speaks VeNCrypt {spoken[0]}.{spoken[1]}, which is older than 0.2")
    yield Write(Peer.SERVER, bytes(messages.VENCRYPT_VERSION))
    if (yield from messages.read_u8(Peer.SERVER)) != 0:
        raise VncSecurityUnsuitable(server, "it does not take VeNCrypt 0.2")
    count = yield from messages.read_u8(Peer.SERVER)
    if not count:
        raise VncSecurityUnsuitable(server, "it offers no sub-type of VeNCrypt")
    offered = struct.unpack(f">{count}I", (yield Read(Peer.SERVER, 4 * count)))
    chosen = _pick_vencrypt(server, policy, offered)
    yield Write(Peer.SERVER, struct.pack(">I", chosen))
    if (yield from messages.read_u8(Peer.SERVER)) != 1:
        raise VncSecurityUnsuitable(server, f"it does not take the sub-type {int(chosen)} that it offered")
    early = yield StartTls(anonymous=chosen is VencryptType.TLS_NONE)
    if early:
        raise RfbInvalid(server, "it says something between its agreement to TLS and TLS")
    if chosen is VencryptType.X509_VNC:
        return Offer(version, (yield Read(Peer.SERVER, messages.CHALLENGE_BYTES)))
    # In every version: the rule of 3.7 is for the type None, and VeNCrypt is another type (QEMU, TigerVNC).
    yield from _read_ok(server, version)
    return Offer(version)


def _pick_vencrypt(server: str, policy: Policy, offered: Sequence[int]) -> VencryptType:
    for kind in (VencryptType.X509_NONE, VencryptType.X509_VNC):
        if kind in offered:
            return kind
    if VencryptType.TLS_NONE in offered:
        if policy.anonymous:
            return VencryptType.TLS_NONE
        raise VncSecurityUnsuitable(
            server, "it offers only TLS without a certificate; the proxy cannot verify the server"
        )
    raise VncSecurityUnsuitable(server, f"it offers the sub-types {_list(offered)} of VeNCrypt, which are not known")


def _read_ok(server: str, version: Version) -> Handshake[None]:
    reason = yield from messages.read_security_result(Peer.SERVER, server, version)
    if reason is not None:
        raise VncSecurityUnsuitable(server, f"it refuses: {messages.show(reason)!r}")


def _refused(server: str) -> Handshake[None]:
    """Read why the server offers nothing at all."""
    reason = yield from messages.read_reason(Peer.SERVER, server)
    raise VncSecurityUnsuitable(server, f"it takes no viewer: {messages.show(reason)!r}")


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:16])) + (", ..." if len(numbers) > 16 else "")

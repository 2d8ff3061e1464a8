# SPDX-License-Identifier: Apache-2.0
"""Numbers and messages of the security handshake: RFC 6143 section 7.1, and VeNCrypt 0.2 (rfbproto, "VeNCrypt").

Why apart: both handshakes need them. ``build_`` is a pure function. ``read_`` is a part of a handshake; it checks a
length before it asks for the bytes that the length announces (S12). Called by :mod:`negotiation` and
:mod:`viewer_handshake`.
"""

import re
import struct
from enum import IntEnum

from porthole_common.errors import RfbInvalid
from porthole_common.rfb.handshake import Handshake, Peer, Read

# A reason is a sentence for a user; a longer one is an attempt to fill the memory.
MAX_REASON_BYTES = 1024
# Some clients know no longer frames than those whose length fits in 7 bits (RFC 6455 section 5.2).
MAX_MESSAGE_BYTES = 125
VERSION_BYTES = 12
CHALLENGE_BYTES = 16
VENCRYPT_VERSION = (0, 2)
_VERSION = re.compile(rb"RFB (\d{3})\.(\d{3})\n")


class Version(IntEnum):
    """The versions of RFC 6143 section 7.1.1, by their minor number."""

    V3_3 = 3
    V3_7 = 7
    V3_8 = 8


class SecurityType(IntEnum):
    """RFC 6143 section 7.1.2; VeNCrypt's number is in IANA's registry."""

    INVALID = 0
    NONE = 1
    VNC_AUTHENTICATION = 2
    VENCRYPT = 19


class VencryptType(IntEnum):
    """The sub-types of VeNCrypt that Porthole supports."""

    TLS_NONE = 257
    X509_NONE = 260
    X509_VNC = 261


def build_version(version: Version) -> bytes:
    """Return ProtocolVersion: ``RFB 003.00x`` and a line feed."""
    return b"RFB 003.%03d\n" % version


def build_failure(reason: bytes) -> bytes:
    """Return SecurityResult of a failure in 3.8: ``U32 1, U32 length, length * U8``, cut to a short frame."""
    shown = reason[: MAX_MESSAGE_BYTES - 8]
    return struct.pack(">II", 1, len(shown)) + shown


def parse_version(data: bytes) -> Version | None:
    """Return the highest version that both this package and the sender of a ProtocolVersion know.

    A version above 3.8 counts as 3.8, and every other one but 3.7 as 3.3 (RFC 6143 section 7.1.1 and appendix A). None
    for bytes that are no ProtocolVersion, and for a version that is older than 3.3.
    """
    found = _VERSION.fullmatch(data)
    version = (int(found.group(1)), int(found.group(2))) if found else (0, 0)
    if version < (3, 3):
        return None
    return Version.V3_8 if version >= (3, 8) else Version.V3_7 if version == (3, 7) else Version.V3_3


def read_version(peer: Peer, name: str) -> Handshake[Version]:
    """Read ProtocolVersion; return what :func:`parse_version` says.

    :raises RfbInvalid: when the bytes are no ProtocolVersion, or the version is older than 3.3.
    """
    data = yield Read(peer, VERSION_BYTES)
    version = parse_version(data)
    if version is not None:
        return version
    if not _VERSION.fullmatch(data):
        raise RfbInvalid(name, "it does not begin with an RFB version")
    raise RfbInvalid(name, f"it speaks RFB {int(data[4:7])}.{int(data[8:11])}, which is older than 3.3")


def read_reason(peer: Peer, name: str) -> Handshake[bytes]:
    """Read ``U32 length, length * U8``.

    :raises RfbInvalid: when a reason of more than :data:`MAX_REASON_BYTES` is announced.
    """
    size = yield from read_u32(peer)
    if size > MAX_REASON_BYTES:
        raise RfbInvalid(name, f"it announces a reason of {size} bytes")
    if not size:
        return b""
    return (yield Read(peer, size))


def read_u8(peer: Peer) -> Handshake[int]:
    """Read ``U8``."""
    return (yield Read(peer, 1))[0]


def read_u32(peer: Peer) -> Handshake[int]:
    """Read ``U32``."""
    return int.from_bytes((yield Read(peer, 4)), "big")


def read_security_result(peer: Peer, name: str, version: Version) -> Handshake[bytes | None]:
    """Read SecurityResult (RFC 6143 section 7.1.3); return None for OK, else the reason, which only 3.8 gives.

    :raises RfbInvalid: when the result is neither OK nor failed, or the reason is too long.
    """
    result = yield from read_u32(peer)
    if result == 0:
        return None
    # 2 means "too many attempts" in some servers that are older than the RFC.
    if result > 2:
        raise RfbInvalid(name, f"it says {result} where OK or failed is to be said")
    if version < Version.V3_8:
        return b""
    return (yield from read_reason(peer, name))


def show(reason: bytes) -> str:
    """Return a peer's reason for a log: one line of printable ASCII."""
    return "".join(char if " " <= char <= "~" else "?" for char in reason.decode("latin-1"))

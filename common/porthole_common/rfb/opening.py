# SPDX-License-Identifier: Apache-2.0
"""The client's side of RFB up to ClientInit: what a proxy must know before it can follow the messages behind it.

Why: where ``[vnc] auth_schemes`` is not set, viewer and VNC server settle the security between themselves, and the
proxy only watches. It must know for certain where ClientInit is. Otherwise a client could make the proxy count wrongly,
and send keys that the proxy takes for a part of the handshake. So the version that counts is what both sides said, and
a client that answers before the VNC server has spoken is not followed. A script of :mod:`stream_filter`.
Called by :mod:`porthole_novncproxy.sessions.view_only`.
"""

from collections.abc import Generator

from porthole_common.rfb import messages
from porthole_common.rfb.messages import SecurityType, Version
from porthole_common.rfb.stream_filter import Drop, Emit, Pass, Take

_U32_BYTES = 4
# RFC 6143 section 7.1.1.
_VERSION_FORM = b"RFB 000.000\n"
_DIGIT = ord("0")

Opening = Generator[Take | Emit | Pass | Drop, bytes, bytes]


class ServerGreeting:
    """Keeps the first bytes of the VNC server: its version and, in 3.3, its decision. It changes none of them."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen = b""

    def feed(self, data: memoryview) -> memoryview:
        """Return ``data``."""
        self._seen += data[: messages.VERSION_BYTES + _U32_BYTES - len(self._seen)]
        return data

    @property
    def is_done(self) -> bool:
        """True once no further byte is looked at."""
        return len(self._seen) == messages.VERSION_BYTES + _U32_BYTES

    @property
    def version(self) -> Version | None:
        """The server's version; None before it has said one that is known."""
        return messages.parse_version(self._seen[: messages.VERSION_BYTES])

    @property
    def decision(self) -> int | None:
        """The security type that a server of version 3.3 has decided on (RFC 6143 appendix A); None before that."""
        decided = self._seen[messages.VERSION_BYTES :]
        return int.from_bytes(decided, "big") if len(decided) == _U32_BYTES else None


class OpeningNotFollowed(Exception):
    """The client's handshake cannot be followed; ``reason`` says why. ``pending``: its bytes that have not gone on."""

    def __init__(self, reason: str, pending: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.pending = pending


def follow_opening(greeting: ServerGreeting) -> Opening:
    """Let the client's security handshake pass (RFC 6143 section 7.1); return ClientInit, which has not gone on yet.

    :raises OpeningNotFollowed: when the client does not wait for the VNC server, or when it chooses a security type
        whose bytes have no known length, such as TLS within RFB.
    """
    version = _agree((yield from _read_version()), greeting.version)
    byte = yield Take(1)
    if version is Version.V3_3:
        # The server has decided, and the client's next byte is the first one behind the decision (appendix A).
        if greeting.decision is None:
            raise OpeningNotFollowed("it does not wait for the security type of the VNC server", byte)
        chosen = greeting.decision
        pending = byte
    else:
        chosen = byte[0]
        yield Emit(byte)
        pending = b""
    if chosen not in (SecurityType.NONE, SecurityType.VNC_AUTHENTICATION):
        raise OpeningNotFollowed(f"the security type {chosen} hides what follows", pending)
    byte = pending or (yield Take(1))
    if chosen == SecurityType.VNC_AUTHENTICATION:
        yield Emit(byte)
        yield Pass(messages.CHALLENGE_BYTES - 1)
        byte = yield Take(1)
    return byte


def _read_version() -> Opening:
    """Return ProtocolVersion. Each byte goes on at once, so that other first bytes are not held."""
    version = b""
    for expected in _VERSION_FORM:
        byte = yield Take(1)
        if not (byte.isdigit() if expected == _DIGIT else byte[0] == expected):
            raise OpeningNotFollowed("it does not begin with an RFB version", byte)
        yield Emit(byte)
        version += byte
    return version


def _agree(answer: bytes, offered: Version | None) -> Version:
    """Return the version that counts from here on."""
    said = messages.parse_version(answer)
    if said is None:
        raise OpeningNotFollowed("its RFB version is older than 3.3")
    if offered is None:
        raise OpeningNotFollowed("it does not wait for the version of the VNC server")
    if said > offered:
        raise OpeningNotFollowed(f"it answers RFB 3.{int(offered)} with 3.{int(said)}")
    return said

# SPDX-License-Identifier: Apache-2.0
"""What VNC servers and viewers say in the handshake of RFB, as byte strings, and a handshake driven with them.

Why: the unit tests, the property tests and the fuzz target drive the same handshakes the same way.
"""

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from porthole_common.rfb.handshake import Handshake, HandshakeDriver, Peer, StartTls, Write

VERSIONS = {3: b"RFB 003.003\n", 7: b"RFB 003.007\n", 8: b"RFB 003.008\n"}
CHALLENGE = bytes(range(100, 116))
RESPONSE = bytes(range(200, 216))
OK = b"\0\0\0\0"
X509_NONE, X509_VNC, TLS_NONE = 260, 261, 257


def types(*numbers: int) -> bytes:
    """The security types of 3.7 and later."""
    return bytes([len(numbers), *numbers])


def reason(text: bytes, announced: int | None = None) -> bytes:
    """A reason; ``announced`` is its length when that is a lie."""
    return struct.pack(">I", len(text) if announced is None else announced) + text


def failed(text: bytes = b"", number: int = 1) -> bytes:
    """SecurityResult of a failure, in 3.8."""
    return struct.pack(">I", number) + reason(text)


def subtypes(*numbers: int) -> bytes:
    """VeNCrypt's sub-types."""
    return bytes([len(numbers)]) + struct.pack(f">{len(numbers)}I", *numbers)


def vencrypt(*numbers: int, version: bytes = b"\0\2", ack: bytes = b"\0", accepts: bytes = b"\1") -> bytes:
    """All that a server says of VeNCrypt before TLS, behind its version and its types."""
    return version + ack + subtypes(*numbers) + accepts


@dataclass
class Told:
    """The steps and the result of a handshake."""

    driver: HandshakeDriver[Any]
    to_server: list[bytes] = field(default_factory=list)
    to_viewer: list[bytes] = field(default_factory=list)
    tls: list[StartTls] = field(default_factory=list)
    held_bytes: int = 0

    def note(self, steps: Sequence[Write | StartTls]) -> None:
        """Sort the steps by whom they are for."""
        for step in steps:
            if isinstance(step, StartTls):
                self.tls.append(step)
            else:
                (self.to_server if step.peer is Peer.SERVER else self.to_viewer).append(step.data)


def drive(handshake: Handshake[Any], *said: tuple[Peer, bytes], cuts: Sequence[int] | None = None) -> Told:
    """Run ``handshake`` with what the peers say, in that order.

    ``cuts``: where each of them is cut, as positions modulo its length; without any they come whole.
    """
    told = Told(HandshakeDriver(handshake))
    told.note(told.driver.start())
    for peer, stream in said:
        edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts or ())})
        for start, end in itertools.pairwise(edges):
            told.note(told.driver.feed(peer, stream[start:end]))
            told.held_bytes = max(told.held_bytes, told.driver.held_bytes(peer))
    return told

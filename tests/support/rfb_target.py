# SPDX-License-Identifier: Apache-2.0
"""One fuzzed input for RFB's opening, what must never come of it, and inputs to begin with.

Why apart from ``rfb_fuzz.py``: only what that one imports is watched by atheris, and a test that writes the corpus is
not to be watched.
"""

from pathlib import Path
from typing import Any

from porthole_common import errors
from porthole_common.rfb.handshake import MAX_READ_BYTES, HandshakeDriver, Peer, StartTls, Write
from porthole_common.rfb.messages import Version
from porthole_common.rfb.negotiation import Offer, Policy, negotiate
from porthole_common.rfb.viewer_handshake import offer_security
from support.rfb_talks import CHALLENGE, OK, RESPONSE, VERSIONS, X509_NONE, X509_VNC, failed, types, vencrypt

_POLICIES = (
    Policy(("vencrypt", "none")),
    Policy(("vencrypt",)),
    Policy(("none", "vencrypt")),
    Policy(("vencrypt",), anonymous=True),
)
_OFFERS = (Offer(Version.V3_8), *(Offer(version, CHALLENGE) for version in Version))
_CASES = len(_POLICIES) + len(_OFFERS)


class FaultFound(AssertionError):
    """What no input may bring about."""


def fuzz_one(data: bytes, planted: bool = False) -> None:
    """Run one input: ``U8 case``, then any number of ``U8 header, bytes``.

    The header's highest bit says whose bytes they are, the others how many; what is missing at the end is missing.

    :raises FaultFound: when a handshake does what it must not.
    """
    case = (data[0] if data else 0) % _CASES
    try:
        if case < len(_POLICIES):
            finished = _feed(HandshakeDriver(negotiate("192.0.2.1:5900", _POLICIES[case])), data[1:], both=False)
            if finished and planted:
                raise FaultFound("the planted one")
        else:
            _feed(HandshakeDriver(offer_security(_OFFERS[case - len(_POLICIES)])), data[1:], both=True)
    except (errors.RfbInvalid, errors.VncSecurityUnsuitable) as exc:
        _check(str(exc).isprintable() and len(str(exc)) < 2 * MAX_READ_BYTES, "an error that is no line for a log")


def _feed(driver: HandshakeDriver[Any], data: bytes, both: bool) -> bool:
    """Feed the parts; return whether the handshake came to its end."""
    streams = dict.fromkeys(Peer, b"")
    _look_at(driver.start())
    at = 0
    while at < len(data) and not driver.is_over:
        peer = Peer.VIEWER if both and data[at] & 0x80 else Peer.SERVER
        part = data[at + 1 : at + 1 + (data[at] & 0x7F)]
        at += 1 + len(part)
        streams[peer] += part
        _look_at(driver.feed(peer, part))
        _check(all(driver.missing_bytes(who) <= MAX_READ_BYTES for who in Peer), "more is wanted than any has")
    for peer, stream in streams.items():
        _check(stream.endswith(driver.take_rest(peer)), "what is left over is not what was said last")
    return driver.is_over


def _look_at(steps: list[Write | StartTls]) -> None:
    for step in steps:
        if isinstance(step, Write):
            _check(1 <= len(step.data) <= 125, "a message that is no short frame")


def _check(is_so: bool, fault: str) -> None:
    if not is_so:
        raise FaultFound(fault)


def write_corpus(directory: Path, whole: bool = True) -> None:
    """Write inputs from which the fuzzer makes its own: handshakes that are whole, or lack their last part."""
    version, server, viewer = VERSIONS[8], Peer.SERVER, Peer.VIEWER
    talks: list[tuple[int, list[tuple[Peer, bytes]]]] = [
        (0, [(server, version), (server, types(1)), (server, OK)]),
        (0, [(server, version), (server, types(1)), (server, failed(b"no"))]),
        (0, [(server, VERSIONS[3]), (server, b"\0\0\0\2"), (server, CHALLENGE)]),
        (1, [(server, version), (server, types(1, 19)), (server, vencrypt(X509_NONE)), (server, OK)]),
        (1, [(server, version + types(19) + b"\0\2"), (server, vencrypt(X509_VNC)[2:]), (server, CHALLENGE)]),
        (len(_POLICIES), [(viewer, version), (viewer, b"\1")]),
        (len(_POLICIES), [(viewer, VERSIONS[7]), (viewer, b"\1")]),
        (len(_POLICIES) + 3, [(viewer, version + b"\2"), (viewer, RESPONSE), (server, failed(b"no"))]),
    ]
    directory.mkdir(parents=True)
    for number, (case, said) in enumerate(talks):
        parts = [bytes([len(text) | (0x80 if peer is viewer else 0)]) + text for peer, text in said]
        (directory / f"talk-{number}").write_bytes(bytes([case]) + b"".join(parts if whole else parts[:-1]))

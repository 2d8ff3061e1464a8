# SPDX-License-Identifier: Apache-2.0
"""Asks a VNC server which security types it offers, and hangs up.

Why no further: before ClientInit (RFC 6143 section 7.3.1) a VNC server counts no viewer, so no user's session is
disturbed. Called by :mod:`porthole_novncproxy.endpoint`.
"""

import socket
import struct
import time

from porthole_common import errors
from porthole_common.deadline import Deadline, get_remaining_s
from porthole_common.model import Target
from porthole_novncproxy.admission.dial import dial

# RFC 6143 section 7.1.1: "RFB xxx.yyy\n".
_VERSION_BYTES = 12
_OLD = (b"RFB 003.003\n", b"RFB 003.006\n")


def read_security_types(target: Target, timeout_s: float) -> tuple[int, ...]:
    """Return the numbers of the security types that the VNC server at ``target`` offers; () when it refuses.

    :raises VncServerUnavailable: when it does not take the connection, ends it, or is no VNC server.
    :raises VncServerTimeout: when it is silent past the deadline.
    """
    due_at = time.monotonic() + timeout_s
    server = dial(target, None, timeout_s, None, Deadline())
    with server.sock as sock:
        try:
            return _read_types(sock, due_at)
        except TimeoutError as exc:
            raise errors.VncServerTimeout(target.host, target.port) from exc
        except OSError as exc:
            raise errors.VncServerUnavailable(target.host, target.port) from exc


def _read_types(sock: socket.socket, due_at: float) -> tuple[int, ...]:
    version = _read(sock, _VERSION_BYTES, due_at)
    if not version.startswith(b"RFB ") or not version.endswith(b"\n"):
        raise ConnectionError("what it says first is not RFB")
    if version in _OLD:
        # RFC 6143 appendix A.1: the server alone decides, U32.
        sock.sendall(_OLD[0])
        number: int = struct.unpack("!I", _read(sock, 4, due_at))[0]
        return (number,) if 0 < number < 256 else ()
    sock.sendall(b"RFB 003.008\n")
    # U8 count, count * U8 type; no type at all means a refusal, whose reason is not needed.
    return tuple(_read(sock, _read(sock, 1, due_at)[0], due_at))


def _read(sock: socket.socket, size_bytes: int, due_at: float) -> bytes:
    """Return exactly this many bytes: 255 at most, which is what a U8 can announce."""
    data = b""
    while len(data) < size_bytes:
        sock.settimeout(get_remaining_s(due_at))
        chunk = sock.recv(size_bytes - len(data))
        if not chunk:
            raise ConnectionError("the VNC server ended the connection")
        data += chunk
    return data

# SPDX-License-Identifier: Apache-2.0
"""Reaching a VNC server: TCP, the CONNECT of ``internal_access_path``, and the first byte, all by one deadline.

Why before 101: a browser cannot be told why a console failed once its WebSocket is open (C18). An RFB server speaks
first (RFC 6143 section 7.1.1), so a server that says nothing is dead. Its first byte is awaited here and not read.
:mod:`porthole_novncproxy.admission.vencrypt` secures the connection, where that is wanted, by the same deadline.
Called by :mod:`porthole_novncproxy.admission.gate` and ``probe``, by ``endpoint`` and, for the socket options, by
``front.listener``. It is the one place that maps OSError of the VNC leg.
"""

import functools
import ipaddress
import re
import select
import socket
import time
from dataclasses import dataclass
from typing import Any

from porthole_common import errors
from porthole_common.deadline import Deadline, DeadlinePassed, get_remaining_s
from porthole_common.model import Target
from porthole_common.rfb.negotiation import Offer
from porthole_common.thread_pool import ThreadPool
from porthole_novncproxy.admission.descriptors import OUT_OF_DESCRIPTORS
from porthole_novncproxy.admission.vencrypt import Security, secure

# Names are resolved in threads of their own: a resolver that does not answer holds no request's thread.
_RESOLVERS = ThreadPool("resolver", 8)
# The timeout of a single step has a better error, so the whole dial gets this much longer.
_GRACE_S = 0.5
# A longer reply is not one to CONNECT (C2).
MAX_REPLY_BYTES = 4096
_END_OF_HEADER = b"\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r\n")
_PATH = re.compile(r"[\x21-\x7e]+")
# Keepalive of both legs: a peer that vanished is noticed after about two minutes (RFC 1122 section 4.2.3.6).
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))


@dataclass
class DialledServer:
    """A VNC server that has answered: its socket, and RFB bytes that were read from it.

    ``offer``: the security to offer to the viewer, once the security handshake with the server is done; else None.
    """

    sock: socket.socket
    first_bytes: bytes
    offer: Offer | None = None


def set_socket_options(sock: socket.socket) -> None:
    """Set TCP_NODELAY (O9) and keepalive on one leg of a console."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def dial(
    target: Target,
    internal_access_path: str | None,
    timeout_s: float,
    security: Security | None,
    deadline: Deadline,
    *,
    server_speaks_first: bool = True,
) -> DialledServer:
    """Return a connection to ``target``, secured as ``security`` asks.

    Where the server speaks first, its first byte has arrived. Takes ``timeout_s`` at most: one step of ``deadline``.

    :raises VncServerUnavailable: when the server refuses, resets, or ends the connection without a byte.
    :raises VncServerTimeout: when the server is silent for ``timeout_s``.
    :raises DescriptorsExhausted: when this process can open no socket.
    :raises VncSecurityUnsuitable: when its security is not what ``security`` asks for.
    :raises RfbInvalid: when ``security`` is asked for, and the server breaks the protocol.
    """
    with deadline.step(timeout_s + _GRACE_S, errors.VncServerTimeout(target.host, target.port)):
        due_at = time.monotonic() + timeout_s
        try:
            sock = _connect(target, due_at)
        except (TimeoutError, DeadlinePassed) as exc:
            raise errors.VncServerTimeout(target.host, target.port) from exc
        except (OSError, UnicodeError) as exc:
            # UnicodeError: a text that no host name can be, such as an empty label.
            if isinstance(exc, OSError) and exc.errno in OUT_OF_DESCRIPTORS:
                raise errors.DescriptorsExhausted from exc
            raise errors.VncServerUnavailable(target.host, target.port) from exc
        try:
            first_bytes = _open_path(sock, target, internal_access_path, due_at) if internal_access_path else b""
            if server_speaks_first and not first_bytes:
                _wait_for_byte(sock, due_at)
            set_socket_options(sock)
            if security is None:
                return DialledServer(sock, first_bytes)
            secured = secure(sock, first_bytes, target, security, due_at)
            return DialledServer(secured.sock, secured.rest, secured.offer)
        except TimeoutError as exc:
            sock.close()
            raise errors.VncServerTimeout(target.host, target.port) from exc
        except OSError as exc:
            sock.close()
            raise errors.VncServerUnavailable(target.host, target.port) from exc
        except errors.PortholeError:
            sock.close()
            raise


def _connect(target: Target, due_at: float) -> socket.socket:
    """Connect to the first address of the host that answers by ``due_at`` (monotonic seconds)."""
    failure: OSError = TimeoutError("no address was tried before the deadline")
    addresses = _resolve(target, due_at)
    for left, (family, kind, protocol, _name, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
        sock = socket.socket(family, kind, protocol)
        try:
            # Each address gets a share of the time: the first of several may be the one that does not answer.
            sock.settimeout(get_remaining_s(due_at) / left)
            sock.connect(address)
        except OSError as exc:
            sock.close()
            failure = exc
        else:
            return sock
    raise failure


def _resolve(target: Target, due_at: float) -> list[Any]:
    """Return getaddrinfo's rows; the resolver has no deadline of its own.

    :raises DeadlinePassed: when a name was not resolved in time.
    """
    look_up = functools.partial(socket.getaddrinfo, target.host, target.port, type=socket.SOCK_STREAM)
    try:
        ipaddress.ip_address(target.host)
    except ValueError:
        return _RESOLVERS.run(look_up, Deadline(get_remaining_s(due_at)))
    return look_up()


def _open_path(sock: socket.socket, target: Target, path: str, due_at: float) -> bytes:
    """Ask for ``path`` with CONNECT (RFC 9110 section 9.3.6); return the bytes behind the reply's blank line."""
    if not _PATH.fullmatch(path):
        raise errors.VncServerUnavailable(target.host, target.port)
    sock.settimeout(get_remaining_s(due_at))
    sock.sendall(f"CONNECT {path} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("ascii"))
    reply = bytearray()
    while _END_OF_HEADER not in reply:
        if len(reply) >= MAX_REPLY_BYTES:
            raise errors.VncServerUnavailable(target.host, target.port)
        sock.settimeout(get_remaining_s(due_at))
        chunk = sock.recv(MAX_REPLY_BYTES - len(reply))
        if not chunk:
            raise errors.VncServerUnavailable(target.host, target.port)
        reply += chunk
    head, _separator, rest = bytes(reply).partition(_END_OF_HEADER)
    status = _STATUS_LINE.match(head + b"\r\n")
    if status is None or status.group(1) != b"200":
        raise errors.VncServerUnavailable(target.host, target.port)
    return rest


def _wait_for_byte(sock: socket.socket, due_at: float) -> None:
    """Wait until a byte can be read, and leave it there: it belongs to the viewer's stream."""
    readiness = select.poll()
    readiness.register(sock, select.POLLIN)
    if not readiness.poll(get_remaining_s(due_at) * 1000):
        raise TimeoutError("the VNC server said nothing")
    if not sock.recv(1, socket.MSG_PEEK):
        raise ConnectionError("the VNC server ended the connection")

# SPDX-License-Identifier: Apache-2.0
"""The xvpvnc door: ``CONNECT /console?token=<uuid> HTTP/1.0``, then raw RFB.

Why: it is what lets a native viewer (TigerVNC, virt-viewer, vncdotool) in without a WebSocket. The head has been
read by :mod:`doorway`; this runs in a handshake thread, through the same :mod:`admission` as a browser.
"""

import http
import re

from porthole_common import errors
from porthole_common.model import ConsoleType
from porthole_novncproxy.admission import access
from porthole_novncproxy.admission.gate import log_refusal
from porthole_novncproxy.front.listener import Connection

_REQUEST_LINE = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r\n")


def parse_request(head: bytes, source: str) -> access.ConsoleRequest:
    """Return what the head of an xvpvnc client asks for.

    :raises RequestInvalid: when it is not a CONNECT with a token in its query.
    """
    line = _REQUEST_LINE.match(head)
    if line is None or line.group(1) != b"CONNECT":
        raise errors.RequestInvalid("This port takes CONNECT with a token and nothing else.")
    token = access.parse_token(line.group(2).decode("latin-1"), ())
    if not token:
        raise errors.RequestInvalid("The request has no token.")
    return access.ConsoleRequest(ConsoleType.XVPVNC, token, source, is_browser_door=False)


def refuse(connection: Connection, exc: errors.PortholeError) -> None:
    """Answer ``exc``'s status without a body.

    :raises OSError: when the client is gone.
    """
    _send_status(connection, log_refusal(exc, ConsoleType.XVPVNC, connection.address[0]))


def accept(connection: Connection) -> None:
    """Tell the client that RFB follows.

    :raises OSError: when the client is gone.
    """
    connection.sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")


def _send_status(connection: Connection, status: http.HTTPStatus) -> None:
    reply = f"HTTP/1.1 {int(status)} {status.phrase}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    connection.sock.sendall(reply.encode("ascii"))

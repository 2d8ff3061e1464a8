# SPDX-License-Identifier: Apache-2.0
"""The WebSocket handshake (RFC 6455 section 4.2): the one module that imports websockify.

Why without a socket: websockify reads the fields of the parsed request and says what to answer; the answer is a value
like any other, which the event loop sends. Called by :mod:`porthole_novncproxy.front.handler`.
"""

import base64
import binascii
from http import HTTPStatus

from websockify.websocket import WebSocket

from porthole_common import errors
from porthole_novncproxy.front.request import Request
from porthole_novncproxy.front.responses import Response

# The subprotocol of websockify's clients. Others are not answered, as noVNC expects.
_BINARY = "binary"


def check_handshake(request: Request) -> None:
    """Refuse a malformed handshake before a daemon is asked or a VNC server is dialled.

    :raises RequestInvalid: when the version is not 13, the key is not 16 bytes, or a body follows.
    """
    if request.has_body:
        raise errors.RequestInvalid("An upgrade has no body.")
    if request.get("sec-websocket-version") != "13":
        raise errors.RequestInvalid("Sec-WebSocket-Version must be 13.")
    try:
        key = base64.b64decode(request.get("sec-websocket-key") or "", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        raise errors.RequestInvalid("Sec-WebSocket-Key must be 16 bytes in base64.")


def accept_handshake(request: Request) -> Response:
    """Return the 101 to a request that :func:`check_handshake` has passed."""
    fields = {
        "upgrade": "websocket",
        "Sec-WebSocket-Version": request.get("sec-websocket-version"),
        "Sec-WebSocket-Key": request.get("sec-websocket-key"),
    }
    if request.has_element("sec-websocket-protocol", _BINARY):
        fields["Sec-WebSocket-Protocol"] = _BINARY
    handshake = _Handshake()
    # The socket is for frames alone.
    handshake.accept(None, fields)
    return Response(HTTPStatus.SWITCHING_PROTOCOLS, tuple(handshake.headers))


class _Handshake(WebSocket):  # type: ignore[misc]
    """Notes the answer that websockify gives, by the three methods that websockify's own HTTP handler overrides too."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[tuple[str, str]] = []

    def select_subprotocol(self, protocols: list[str]) -> str:
        """Return the one that is offered."""
        return protocols[0]

    def send_response(self, code: int, message: str) -> None:
        """Nothing: it is 101 always."""

    def send_header(self, keyword: str, value: str) -> None:
        """Note a header."""
        self.headers.append((keyword, value))

    def end_headers(self) -> None:
        """Nothing: the response ends where its value does."""

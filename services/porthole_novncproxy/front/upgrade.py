# SPDX-License-Identifier: Apache-2.0
"""The WebSocket handshake (RFC 6455 section 4.2): the one module that imports websockify.

Why without a socket: websockify reads the fields of the parsed request and says what to answer; the answer is a value
like any other, which the event loop sends. Called by :mod:`porthole_novncproxy.front.handler`.
"""

import base64
from collections.abc import Sequence
from http import HTTPStatus

from websockify.websocket import WebSocket

from porthole_common import errors
from porthole_novncproxy.front.request import Request
from porthole_novncproxy.front.responses import Response, build_refused_upgrade

# The subprotocol of websockify's clients. Others are not answered, as noVNC expects.
_BINARY = "binary"
# The one version there is since RFC 6455; 0, 7 and 8 are drafts of it.
_VERSION = "13"


class VersionUnsupported(errors.RequestInvalid):
    """The client asks for another version of the protocol than 13, or does not name exactly one."""


def check_handshake(request: Request) -> None:
    """Refuse a malformed handshake before a daemon is asked or a VNC server is dialled.

    Each of the two fields stands once (section 11.3): of several, another parser may read another one.

    :raises VersionUnsupported: when the version is not 13; the client is told which version is (section 4.4).
    :raises RequestInvalid: when the key is not 16 bytes, or a body follows.
    """
    if request.get_all("sec-websocket-version") != (_VERSION,):
        raise VersionUnsupported(f"Sec-WebSocket-Version must be {_VERSION}, once.")
    if request.has_body:
        raise errors.RequestInvalid("An upgrade has no body.")
    if not _is_key(request.get_all("sec-websocket-key")):
        raise errors.RequestInvalid("Sec-WebSocket-Key must be 16 bytes in base64, once.")


def build_refusal(error: errors.PortholeError, status: HTTPStatus, request_id: str) -> Response:
    """Return the answer to an upgrade that ended in ``error``.

    A version that is not spoken here is answered with the version that is (section 4.2.2).
    """
    headers = (("Sec-WebSocket-Version", _VERSION),) if isinstance(error, VersionUnsupported) else ()
    return build_refused_upgrade(status, request_id, *headers)


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


def _is_key(values: Sequence[str]) -> bool:
    """Whether the values of the field are one, and that one is 16 bytes in base64 (section 4.2.1)."""
    try:
        return len(values) == 1 and len(base64.b64decode(values[0], validate=True)) == 16
    except ValueError:
        return False


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

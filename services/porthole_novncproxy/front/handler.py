# SPDX-License-Identifier: Apache-2.0
"""One HTTP request of a browser: a page, the reason of a refusal, or the upgrade to a console.

Why a subclass of websockify's handler: the upgrade (RFC 6455 section 4.2) and the HTTP parsing are its; here they
are joined to :mod:`admission`, :mod:`pages` and the relay, and its logging of paths (with the token in them) is
replaced. The head has been read by :mod:`doorway`; this runs in a handshake thread.
"""

import base64
import binascii
import io
import json
import re
from http import HTTPStatus
from http.client import HTTPMessage
from typing import Any, Protocol

from websockify.websockifyserver import WebSockifyRequestHandler

from porthole_common import errors
from porthole_common.context import get_current
from porthole_common.log import get_logger
from porthole_common.model import ConsoleType
from porthole_novncproxy.admission import access
from porthole_novncproxy.admission.gate import Admission, log_refusal
from porthole_novncproxy.front.listener import Answer, Connection
from porthole_novncproxy.front.pages import PageResponse

LOG = get_logger(__name__)
# A page's name. Some clients put the whole query, encoded, into the path, and people paste tokens anywhere.
_LOGGABLE_PATH = re.compile(r"(?!.*(?:token|[0-9a-f]{8}-))[\w./-]{0,200}", re.ASCII | re.IGNORECASE)


class Desk(Protocol):
    """What a request needs of the server."""

    def admit(self, request: access.ConsoleRequest) -> Admission: ...  # noqa: D102

    def find_source(self, request: access.ConsoleRequest) -> str: ...  # noqa: D102

    def open_websocket(self, connection: Connection, admission: Admission) -> None: ...  # noqa: D102

    def respond(self, raw_path: str, if_modified_since: str | None) -> PageResponse: ...  # noqa: D102


class ConsoleHandler(WebSockifyRequestHandler):  # type: ignore[misc]
    """Answers one request. Afterwards ``handed_over`` says whether the relay has the socket, ``answer`` is what is left
    to send (a page), and ``close_connection`` says whether the connection is at its end then.
    """  # noqa: D205

    server_version = "Porthole"
    protocol_version = "HTTP/1.1"
    # What a request without a version gets: as HTTP/0.9 it would be refused without a status.
    default_request_version = "HTTP/1.0"
    error_content_type = "text/plain"
    error_message_format = "%(code)d %(message)s\n"
    rfile: Any

    def __init__(self, connection: Connection, head: bytes, desk: Desk) -> None:
        self._connection = connection
        self._head = head
        self._desk = desk
        self._admission: Admission | None = None
        self._is_upgrade = False
        self.handed_over = False
        self.answer: Answer | None = None
        super().__init__(connection.sock, connection.address, desk)

    def version_string(self) -> str:
        """Return the Server header: no versions, which help nobody but an attacker."""
        return self.server_version

    def setup(self) -> None:
        """Read from the head that is already here; write to the socket."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BytesIO(self._head)

    def handle(self) -> None:
        """Answer the one request that ``head`` is."""
        self.close_connection = True
        self.handle_one_request()

    def handle_upgrade(self) -> None:
        """Let the client in or refuse it, and only then upgrade."""
        self._is_upgrade = True
        try:
            super().handle_upgrade()
        except errors.PortholeError as exc:
            self._refuse(exc)
        finally:
            if self._admission is not None and not self.handed_over:
                self._admission.close()

    def validate_connection(self) -> None:
        """Websockify's hook before 101: the whole access decision, and the dial.

        :raises PortholeError: when the client may not in.
        :raises Overtaken: when it was told that this takes too long.
        """
        _check_upgrade(self.headers)
        request = self._console_request()
        self._connection.source = self._desk.find_source(request)
        self._admission = self._desk.admit(request)
        self._connection.claim()
        offered = [name.strip() for name in ",".join(self.headers.get_all("Sec-WebSocket-Protocol", [])).split(",")]
        del self.headers["Sec-WebSocket-Protocol"]
        if "binary" in offered:
            self.headers["Sec-WebSocket-Protocol"] = "binary"

    def handle_websocket(self) -> None:
        """After 101: the sockets are the relay's."""
        if self._admission is not None:
            self.handed_over = True
            self._desk.open_websocket(self._connection, self._admission)

    def do_GET(self) -> None:
        """Send a page; or, to whom asks for JSON, what an upgrade of this path would be answered."""
        if self._has_body():
            self.send_error(HTTPStatus.BAD_REQUEST, "A GET has no body here")
        elif "application/json" in self.headers.get("Accept", ""):
            self._send_reason()
        else:
            self._send_page()

    def do_HEAD(self) -> None:
        """Send the header of a page."""
        if self._has_body():
            self.send_error(HTTPStatus.BAD_REQUEST, "A HEAD has no body here")
        else:
            self._send_page()

    def _console_request(self) -> access.ConsoleRequest:
        return access.ConsoleRequest(
            console_type=ConsoleType.NOVNC,
            token=access.parse_token(self.path, self.headers.get_all("Cookie", [])),
            source=self.client_address[0],
            origins=tuple(self.headers.get_all("Origin", [])),
            hosts=tuple(self.headers.get_all("Host", [])),
            forwarded_proto=self.headers.get("X-Forwarded-Proto"),
            forwarded_for=tuple(self.headers.get_all("X-Forwarded-For", [])),
        )

    def _has_body(self) -> bool:
        # What is left of one would be read as the next request, which it may not be for a reverse proxy in front.
        lengths = self.headers.get_all("Content-Length", [])
        return "Transfer-Encoding" in self.headers or any(length.strip() != "0" for length in lengths)

    def _refuse(self, exc: errors.PortholeError) -> None:
        self._connection.claim()
        source = self._desk.find_source(self._console_request())
        self.send_error(log_refusal(exc, ConsoleType.NOVNC, source))

    def _send_reason(self) -> None:
        """Answer with ``{"code": status, "reason": words}``; nothing is opened and nothing is spent."""
        try:
            self._desk.admit(self._console_request()).close()
        except errors.PortholeError as exc:
            status, reason = access.refusal_for(exc)
        else:
            status, reason = HTTPStatus.OK, "The console can be opened."
        self._connection.claim()
        LOG.info(
            "Console reason told",
            instance=get_current().resource_uuid,
            client=self.client_address[0],
            status=status,
            reason=reason,
        )
        body = json.dumps({"code": int(status), "reason": reason}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self._send_request_id()
        self.end_headers()
        self.wfile.write(body)

    def _send_request_id(self) -> None:
        """Say under which id the log has the refusal, for whoever asks an operator about it; named as the api's is."""
        self.send_header("X-OpenStack-Request-ID", get_current().request_id)

    def _send_page(self) -> None:
        # As it was sent: http.server has taken doubled slashes out of ``path`` (S7).
        target = self.requestline.split()[1]
        response = self._desk.respond(target, self.headers.get("If-Modified-Since"))
        # Whoever asks may not take it all at once, or not at all: no thread waits for that.
        start = io.BytesIO()
        self.wfile = start
        self.send_response(response.status)
        for name, value in response.headers:
            self.send_header(name, value)
        self.end_headers()
        file = None
        if self.command != "HEAD":
            start.write(response.body)
            file = response.file.open("rb") if response.file is not None else None
        self.answer = Answer(start.getvalue(), file)

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin an answer, unless the request has been answered, since it took too long."""
        self._connection.claim()
        super().send_response(code, message)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse; an upgrade without a byte of body, which its clients would read as frames."""
        if not self._is_upgrade:
            super().send_error(code, message, explain)
            return
        self.close_connection = True
        self.send_response(code, message)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self._send_request_id()
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the standard library's
        """Drop what http.server and websockify say: their lines hold the path, and with it the token."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log method, path without query, and status."""
        path = str(getattr(self, "path", "")).partition("?")[0]
        shown = path if _LOGGABLE_PATH.fullmatch(path) else "***"
        method = self.command if self.command in ("GET", "HEAD") else None
        LOG.debug("Answered", client=self.client_address[0], method=method, path=shown, status=code)


def _check_upgrade(headers: HTTPMessage) -> None:
    """Refuse a malformed upgrade before anybody is asked or dialled (RFC 6455 section 4.2.1).

    :raises RequestInvalid: when the version is not one that websockify speaks, or the key is not 16 bytes.
    """
    if headers.get("Sec-WebSocket-Version") != "13":
        raise errors.RequestInvalid("Sec-WebSocket-Version must be 13.")
    try:
        key = base64.b64decode(headers.get("Sec-WebSocket-Key", "").strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        raise errors.RequestInvalid("Sec-WebSocket-Key must be 16 bytes in base64.")

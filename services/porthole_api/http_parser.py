# SPDX-License-Identifier: Apache-2.0
"""waitress's parser of one request, with what it takes for granted refused.

Why not waitress's parser as it is: it joins folded header lines, takes an absolute URL for its path and any version for
1.0, undoes chunks without a limit that is known at the start, overlooks "close" in a list, and fails with an error of
Python at some lengths and URLs. Its own refusals quote the client, in plain text. No I/O; called by
:mod:`porthole_api.http_channel`.
"""

import re
from typing import NoReturn

from waitress.parser import HTTPRequestParser, ParsingError

from porthole_api.bodies import MAX_BODY_BYTES, NO_CHUNKS, TOO_LONG
from porthole_api.http_refusals import NOT_HTTP, PROXY_PROTOCOL, TLS, Refusal

# Request line and headers; old Keystone tokens have 8 KiB.
MAX_HEADER_BYTES = 32 * 1024
# Far more than any client and its proxies send; it guards the loop's time.
MAX_HEADER_LINES = 200
# What the parser is told (waitress.adjustments): it refuses a body as long as this.
BODY_LIMIT_BYTES = MAX_BODY_BYTES + 1
_VERSIONS = frozenset({"1.0", "1.1"})
# waitress drops the field after parsing, and takes an empty list of codings for none.
_TRANSFER_ENCODING = re.compile(rb"\ntransfer-encoding:", re.IGNORECASE)
# TLS records begin with their content type, handshake (RFC 8446 section 5.1).
_TLS_HANDSHAKE = b"\x16"
# haproxy's proxy-protocol.txt. Version 2 begins with two empty lines, which are ignored before a request.
_PROXY_PROTOCOL = re.compile(rb"PROXY (?:TCP4|TCP6|UNKNOWN)\b|\0\r\nQUIT\n")


def find_other_protocol(start: bytes) -> Refusal | None:
    """Return the refusal of a client that begins with another protocol, without waiting for a line; None for HTTP.

    ``start``: the first bytes, without the empty lines before a request.
    """
    if start.startswith(_TLS_HANDSHAKE):
        return TLS
    return PROXY_PROTOCOL if _PROXY_PROTOCOL.match(start) else None


class RequestParser(HTTPRequestParser):  # type: ignore[misc]
    """One request as it arrives; with ``refusal``, it is refused."""

    refusal: Refusal | None = None
    command = ""
    path = ""

    def received(self, data: bytes) -> int:
        """Take bytes; return how many belong to this request."""
        head = b"" if self.headers_finished else self.header_plus + data
        consumed: int = super().received(data)
        if self.error is not None and self.refusal is None:
            self.refusal = _explain(self.error.code, head)
        if self.completed:
            # waitress would send 100 (Continue), and then wait for a body that is not to come.
            self.expect_continue = False
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the request line and the headers.

        :raises ParsingError: when the request is refused.
        """
        if header_plus.count(b"\n") > MAX_HEADER_LINES:
            self._refuse(413, f"The request has more than {MAX_HEADER_LINES} header lines.")
        if b"\n " in header_plus or b"\n\t" in header_plus:
            # RFC 9112 section 5.2.
            self._refuse(400, "Folded header lines are not accepted.")
        try:
            super().parse_header(header_plus)
        except ValueError:
            # A length of thousands of digits, or a URL that is none.
            raise ParsingError("Malformed") from None
        if _TRANSFER_ENCODING.search(header_plus):
            self._refuse(400, NO_CHUNKS)
        self._check()
        self._read_connection()

    def _read_connection(self) -> None:
        """Give waitress, which knows ``close`` and ``keep-alive`` alone, the one of a list (RFC 9112 section 9.3)."""
        options = {option.strip(" \t").lower() for option in self.headers.get("CONNECTION", "").split(",")}
        if "close" in options:
            self.headers["CONNECTION"], self.connection_close = "close", True
        elif "keep-alive" in options:
            self.headers["CONNECTION"], self.connection_close = "keep-alive", False

    def _check(self) -> None:
        if self.version not in _VERSIONS:
            self._refuse(505 if self.version else 400, "The API speaks HTTP/1.1 and HTTP/1.0.")
        if self.command == "CONNECT":
            self._refuse(405, "The API is no proxy.", ("Allow", "GET, HEAD, POST"))
        if self.request_uri[:1] != "/" and self.request_uri != "*":
            self._refuse(400, "The target of a request must be a path.")
        if "," in self.headers.get("HOST", ""):
            self._refuse(400, "The request has several Hosts.")

    def _refuse(self, status: int, message: str, *headers: tuple[str, str]) -> NoReturn:
        self.refusal = Refusal(status, message, headers)
        raise ParsingError(message)


def _explain(code: int, head: bytes) -> Refusal:
    """Return the refusal in place of waitress's own, which has the status ``code``."""
    if code == 431:
        status = 413 if b"\r\n" in head else 414
        return Refusal(status, f"The request line and the headers are too long: the limit is {MAX_HEADER_BYTES} bytes.")
    if code == 413:
        return Refusal(400, TOO_LONG)
    if code == 501:
        return Refusal(501, "This Transfer-Encoding is not implemented: send a Content-Length.")
    return NOT_HTTP

# SPDX-License-Identifier: Apache-2.0
"""HTTP requests without a body, from the bytes of a connection: the one parse (RFC 9112), without a socket.

Why one: two parsers that read the same bytes differently give one request two answers, or run it in the wrong place.
Here bytes become a :class:`Request` once, and everything behind it goes by that value. What RFC 9112 lets a server
refuse is refused: a reverse proxy in front may have read it in another way.
Called by :mod:`porthole_novncproxy.front.listener`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

# Larger than any browser's head.
MAX_HEADER_BYTES = 16384
# As many as http.server takes; browsers send twenty.
MAX_FIELDS = 100
# Elements of a list that are looked at; no client sends so many. It guards the loop's time.
MAX_ELEMENTS = 64
# Empty lines in front of a request. Clients send one, and the PROXY protocol's signature has two.
MAX_LEADING_BLANKS = 8
# RFC 9110 section 5.6.2.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAME = re.compile(_TOKEN)
# RFC 9110 section 12.4.2.
_NO_WEIGHT = re.compile(r"q=0(\.0{0,3})?")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/(\d)\.(\d)")
# Health checks of load balancers may leave the version away (HTTP/0.9). They are answered as HTTP/1.0.
_SIMPLE_REQUEST_LINE = re.compile(rb"(GET|HEAD) (/[!-~]*)")
_ABSOLUTE_FORM = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE)
# The PROXY protocol (haproxy's proxy-protocol.txt): version 1 is one line. Version 2 begins with a signature, of which
# two lines are empty and the third is a zero byte.
_PROXY_V1 = re.compile(rb"PROXY (?:TCP4|TCP6|UNKNOWN)\b")
_PROXY_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY_V2_BLANKS, _PROXY_V2_LINE = 2, b"\0"


class RequestMalformed(Exception):
    """The request is malformed. ``status`` goes to the client, ``reason`` to the log.

    ``reason`` is a constant text, without a byte that the client sent.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class HeadTooLarge(RequestMalformed):
    """The head is larger than the parser's limit."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The head of the request is too large.")


class ProxyProtocolSpoken(RequestMalformed):
    """The client, mostly a load balancer, begins with the PROXY protocol, which no port here speaks."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.BAD_REQUEST, "This port does not speak the PROXY protocol.")


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request. ``target``: path and query; ``authority``: the host of a target in absolute form, or None.

    ``fields``: (name in lower case, value without the blanks around it), in the order in which they were sent.
    """

    method: str
    target: str
    authority: str | None
    minor_version: int
    fields: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def get_all(self, name: str) -> tuple[str, ...]:
        """Return every value of the field ``name``, which is in lower case."""
        return tuple(value for found, value in self.fields if found == name)

    def get(self, name: str) -> str | None:
        """Return the first value of the field ``name``; None when there is none."""
        return next((value for found, value in self.fields if found == name), None)

    def get_elements(self, name: str) -> Iterator[str]:
        """Yield the elements of the comma-separated lists of the field ``name``, in lower case.

        Blanks are SP and HTAB alone (RFC 9110 section 5.6.3): another parser in front reads no others away. Of each
        value at most :data:`MAX_ELEMENTS` are looked at.
        """
        for value in self.get_all(name):
            for element in value.split(",", MAX_ELEMENTS)[:MAX_ELEMENTS]:
                yield element.strip(" \t").lower()

    def has_element(self, name: str, element: str) -> bool:
        """Whether ``element``, in lower case, stands in the lists of the field ``name``."""
        return element in self.get_elements(name)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts the request names: the target's own in absolute form (RFC 9112 section 3.2.2), else every Host."""
        named = self.get_all("host")
        # A target in absolute form replaces one Host. It makes up for none, and does not choose among several.
        return named if self.authority is None or len(named) != 1 else (self.authority,)

    @property
    def has_body(self) -> bool:
        """Whether a body follows, or its length is unknown (RFC 9112 section 6.3)."""
        return bool(self.get_all("transfer-encoding")) or any(value != "0" for value in self.get_all("content-length"))

    @property
    def is_upgrade(self) -> bool:
        """Whether the client asks for a WebSocket (RFC 6455 section 4.2.1)."""
        return self.method == "GET" and self.has_element("upgrade", "websocket")

    @property
    def asks_for_reason(self) -> bool:
        """Whether the client asks, in JSON, how an upgrade of this target would be answered."""
        return self.method == "GET" and not self.is_upgrade and any(map(_is_json, self.get_elements("accept")))

    @property
    def keeps_connection(self) -> bool:
        """Whether another request may follow on the connection (RFC 9112 section 9.3)."""
        if self.has_element("connection", "close"):
            return False
        return self.minor_version > 0 or self.has_element("connection", "keep-alive")


class RequestParser:
    """Takes the bytes of one request as they come, however they are cut, and keeps the bytes behind it."""

    def __init__(self, max_header_bytes: int = MAX_HEADER_BYTES) -> None:
        self._max_header_bytes = max_header_bytes
        self._received = bytearray()
        # Where the line begins that is not complete yet.
        self._line_at = 0
        self._leading_blanks = 0
        self._request_line: tuple[str, str, str | None, int] | None = None
        self._fields: list[tuple[str, str]] = []

    @property
    def is_empty(self) -> bool:
        """True before the first byte."""
        return not self._received

    @property
    def wanted_bytes(self) -> int:
        """How many bytes may be read at once: nothing is read behind a head that is too large."""
        return self._max_header_bytes - len(self._received)

    def feed(self, data: bytes) -> Request | None:
        """Return the request once its head is complete; None before that.

        :raises RequestMalformed: as soon as a line is not one of a request. The connection must end then.
        """
        self._received += data
        while (end := self._received.find(b"\n", self._line_at, self._max_header_bytes)) >= 0:
            line = self._cut_line(end)
            if self._request_line is None:
                self._take_request_line(line)
            elif line:
                self._take_field(line)
            else:
                return Request(*self._request_line, tuple(self._fields))
        size = min(len(self._received), self._max_header_bytes)
        if self._received.find(b"\r", self._line_at, size - 1) >= 0:
            raise _malformed("A line ends with CR alone.")
        if size == self._max_header_bytes:
            raise HeadTooLarge
        return None

    def take_rest(self) -> bytes:
        """Return the bytes behind the request: the next request, or what a client says behind an upgrade."""
        return bytes(self._received[self._line_at :])

    def _cut_line(self, end: int) -> bytes:
        """Return the line that ends with the LF at ``end``, without its CR LF."""
        line = bytes(self._received[self._line_at : end])
        self._line_at = end + 1
        if not line.endswith(b"\r"):
            raise _malformed("A line ends with LF alone.")
        if b"\r" in line[:-1]:
            raise _malformed("A line ends with CR alone.")
        return line[:-1]

    def _take_request_line(self, line: bytes) -> None:
        if not line:
            # RFC 9112 section 2.2: some clients end the request before with one line too many.
            self._leading_blanks += 1
            if self._leading_blanks > MAX_LEADING_BLANKS:
                raise _malformed("Too many empty lines stand before the request.")
            return
        if _PROXY_V1.match(line) or (line == _PROXY_V2_LINE and self._leading_blanks == _PROXY_V2_BLANKS):
            raise ProxyProtocolSpoken
        simple = _SIMPLE_REQUEST_LINE.fullmatch(line)
        parts = _REQUEST_LINE.fullmatch(line + b" HTTP/1.0" if simple else line)
        if parts is None:
            raise _malformed("The first line is not one of a request.")
        method, target, major, minor = (part.decode("ascii") for part in parts.groups())
        if major != "1":
            raise RequestMalformed(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "This port speaks HTTP/1.1 and HTTP/1.0.")
        self._request_line = (method, *_parse_target(target), int(minor))

    def _take_field(self, line: bytes) -> None:
        if line[:1] in (b" ", b"\t"):
            raise _malformed("A field is folded over several lines.")
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            raise _malformed("A header line has no colon, or its name is invalid.")
        if b"\0" in value:
            # Other control characters pass, as RFC 9110 section 5.5 allows: cookies of other programs have them.
            raise _malformed("A field has a zero byte in its value.")
        if len(self._fields) == MAX_FIELDS:
            raise RequestMalformed(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request has too many fields.")
        self._fields.append((name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")))


def _is_json(media_range: str) -> bool:
    """Whether an element of Accept takes JSON (RFC 9110 section 12.5.1): with a weight of 0 it does not."""
    media_type, *parameters = (part.strip(" \t") for part in media_range.split(";"))
    return media_type == "application/json" and not any(_NO_WEIGHT.fullmatch(each) for each in parameters)


def speaks_proxy_protocol(start: bytes) -> bool:
    """Whether the first bytes of a connection are of the PROXY protocol, of either version."""
    return bool(_PROXY_V1.match(start)) or start.startswith(_PROXY_V2_SIGNATURE)


def _malformed(reason: str) -> RequestMalformed:
    return RequestMalformed(HTTPStatus.BAD_REQUEST, reason)


def _parse_target(target: str) -> tuple[str, str | None]:
    """Return the path with its query, and the authority of the absolute form (RFC 9112 section 3.2)."""
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        return target, None
    authority, rest = absolute.groups()
    if not authority:
        raise _malformed("The target has no host.")
    return rest if rest.startswith("/") else f"/{rest}", authority

# SPDX-License-Identifier: Apache-2.0
"""One request, whole and in pieces, and everything that is refused in place of waitress's own ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waitress.adjustments import Adjustments

from porthole_api.bodies import MAX_BODY_BYTES
from porthole_api.http_parser import (
    BODY_LIMIT_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADER_LINES,
    RequestParser,
    find_other_protocol,
)
from porthole_api.http_refusals import PROXY_PROTOCOL, TLS, Refusal

ADJUSTMENTS = Adjustments(
    listen="127.0.0.1:0", max_request_header_size=MAX_HEADER_BYTES, max_request_body_size=BODY_LIMIT_BYTES
)
POST = b"POST /v2.1/x?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"


def feed(*pieces: bytes) -> tuple[RequestParser, int]:
    """Return the parser, and how many bytes it took."""
    parser, taken = RequestParser(ADJUSTMENTS), 0
    for piece in pieces:
        rest = piece
        while rest and not parser.completed:
            count = parser.received(rest)
            assert count > 0
            taken, rest = taken + count, rest[count:]
    return parser, taken


def refuse(data: bytes) -> int:
    """Return the status with which ``data`` is refused; 0 when it is not."""
    parser, _ = feed(data)
    assert parser.completed
    return parser.refusal.status if parser.refusal else 0


@pytest.mark.parametrize("cut", range(len(POST)))
def test_a_request_cut_at_every_offset(cut: int) -> None:
    parser, taken = feed(POST[:cut], POST[cut:] + b"GET / HTTP/1.1")
    assert (parser.completed, parser.refusal, taken) == (True, None, len(POST))
    assert (parser.command, parser.path, parser.query) == ("POST", "/v2.1/x", "a=b")
    assert parser.get_body_stream().read() == b"hello"
    parser.close()


def test_a_request_byte_by_byte() -> None:
    parser, taken = feed(*(bytes([byte]) for byte in POST))
    assert (parser.completed, parser.refusal, taken) == (True, None, len(POST))
    parser.close()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 0),
        (b"GET / HTTP/1.0\r\n\r\n", 0),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", 0),
        (b"GET //double HTTP/1.1\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_HEADER_LINES - 2) + b"\r\n", 0),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * MAX_HEADER_LINES + b"\r\n", 413),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", 405),
        (b"GET http://elsewhere/ HTTP/1.1\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"GET relative HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n folded: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\r\n\tfolded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\na: b\nc: d\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: " + str(MAX_BODY_BYTES + 1).encode() + b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: ,\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /" + b"x" * MAX_HEADER_BYTES, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * MAX_HEADER_BYTES, 413),
    ],
)  # fmt: skip
def test_what_is_refused(data: bytes, status: int) -> None:
    assert refuse(data) == status


def test_the_longest_body_is_taken() -> None:
    head = f"POST / HTTP/1.1\r\nContent-Length: {MAX_BODY_BYTES}\r\n\r\n".encode()
    parser, taken = feed(head + b"x" * MAX_BODY_BYTES)
    assert (parser.completed, parser.refusal, taken) == (True, None, len(head) + MAX_BODY_BYTES)
    parser.close()


def test_who_has_sent_all_is_not_asked_to_go_on() -> None:
    """waitress would ask, and then wait for more."""
    for body, asks in ((b"", True), (b"hello", False)):
        parser, _ = feed(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n" + body)
        assert (parser.expect_continue, parser.completed) == (asks, not asks)
        parser.close()
    assert feed(b"GET / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n")[0].expect_continue is False


def test_a_header_with_an_underscore_does_not_pass_for_a_proxys() -> None:
    """In WSGI both have the same name."""
    parser, _ = feed(
        b"GET / HTTP/1.1\r\nX_Forwarded_Host: evil\r\nX-Forwarded_Prefix: /e\r\nX-Forwarded-Host: a\r\n\r\n"
    )
    assert parser.headers == {"X_FORWARDED_HOST": "a"}


def test_several_lines_of_a_header_are_one_list() -> None:
    parser, _ = feed(b"GET / HTTP/1.1\r\nx-forwarded-for: a, b\r\nForwarded: for=a\r\nX-Forwarded-For: c\r\n\r\n")
    assert parser.headers == {"X_FORWARDED_FOR": "a, b, c", "FORWARDED": "for=a"}


@pytest.mark.parametrize(
    ("version", "field", "closes"),
    [
        ("1.1", "TE, close", True),
        ("1.1", "Close", True),
        ("1.1", "keep-alive\r\nConnection: close", True),
        ("1.1", "TE", False),
        ("1.1", "closed", False),
        ("1.0", "Keep-Alive, TE", False),
        ("1.0", "TE", True),
        ("1.0", "keep-alive, close", True),
    ],
)
def test_a_connection_ends_by_any_element_of_its_list(version: str, field: str, closes: bool) -> None:
    parser, _ = feed(f"GET / HTTP/{version}\r\nTE: trailers\r\nConnection: {field}\r\n\r\n".encode())
    assert parser.connection_close is closes


@pytest.mark.parametrize(
    ("start", "refusal"),
    [
        (b"\x16\x03\x01\x02", TLS),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", PROXY_PROTOCOL),
        (b"PROXY UNKNOWN\r\n", PROXY_PROTOCOL),
        # Version 2 without its empty lines; haproxy's health check, whose next byte is a blank, and a client's.
        (b"\0\r\nQUIT\n\x20\0\0\0", PROXY_PROTOCOL),
        (b"\0\r\nQUIT\n\x21\x11\0\x0c", PROXY_PROTOCOL),
        (b"PROXY /v2.1 HTTP/1.1\r\n", None),
        (POST, None),
        (b"", None),
    ],
)
def test_another_protocol(start: bytes, refusal: Refusal | None) -> None:
    assert find_other_protocol(start) == refusal


def test_no_refusal_quotes_the_client() -> None:
    for data in (b"s3cret\r\n\r\n", b"GET /s3cret HTTP/7.7\r\n\r\n", b"GET / HTTP/1.1\r\ns3cret\r\n\r\n"):
        parser, _ = feed(data)
        assert parser.refusal is not None
        assert "s3cret" not in parser.refusal.message


@given(st.binary(max_size=300), st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nContent-Length: "]))
def test_no_bytes_fail(noise: bytes, start: bytes) -> None:
    parser, taken = feed(start + noise + b"\r\n\r\n")
    assert taken <= len(start) + len(noise) + 4
    parser.close()

# SPDX-License-Identifier: Apache-2.0
import itertools
import string
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_novncproxy.front.request import (
    MAX_ELEMENTS,
    MAX_FIELDS,
    MAX_HEADER_BYTES,
    MAX_LEADING_BLANKS,
    ProxyProtocolSpoken,
    Request,
    RequestMalformed,
    RequestParser,
    speaks_proxy_protocol,
)
from support.cases import naming

TOKEN_CHARACTERS = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\x04\xd2\x04\xd2"


def parse(data, max_header_bytes=MAX_HEADER_BYTES):
    """The request and the bytes behind it; None while the head is not complete."""
    parser = RequestParser(max_header_bytes)
    request = parser.feed(data)
    return None if request is None else (request, parser.take_rest())


def outcome(pieces, max_header_bytes=MAX_HEADER_BYTES):
    """What comes of bytes in ``pieces``: a request and the bytes behind it, a refusal, or None."""
    parser = RequestParser(max_header_bytes)
    for number, piece in enumerate(pieces):
        try:
            request = parser.feed(piece)
        except RequestMalformed as exc:
            return type(exc), exc.status
        if request is not None:
            return request, parser.take_rest() + b"".join(pieces[number + 1 :])
    return None


def build(*lines):
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def refuse(data):
    with pytest.raises(RequestMalformed) as caught:
        parse(data)
    return caught.value


def test_a_request_and_what_comes_behind_it():
    head = build("GET /a/b?token=x HTTP/1.1", "Host: good.org:6080", "X-Two:  b \t", "x-two:", "Cookie: \xff\x01; a=b")
    request, rest = parse(head + b"\x82\x80rest")
    fields = (("host", "good.org:6080"), ("x-two", "b"), ("x-two", ""), ("cookie", "\xff\x01; a=b"))
    assert request == Request("GET", "/a/b?token=x", None, 1, fields)
    assert (request.path, rest) == ("/a/b", b"\x82\x80rest")
    assert request.get_all("x-two") == ("b", "")
    assert (request.get("x-two"), request.get("missing")) == ("b", None)


HEADS = [
    build("GET / HTTP/1.1", "Host: x", "Cookie: a=b; token=c"),
    b"\r\n\r\n" + build("CONNECT /console?token=x HTTP/1.0"),
    build("GET http://good.org/x HTTP/1.1", "Upgrade: websocket") + b"\x82\x80\r\n\r\n",
    build("GET / HTTP/1.1", "A: b", " folded"),
    build("GET / HTTP/1.1", "no field"),
    build("GET / HTTP/1.1", "X: a\rUpgrade: websocket"),
    b"GET / HTTP/1.1\rHost: x\r\r",
    b"GET / HTTP/1.1\nHost: x\n\n",
    build("GET / HTTP/3.0"),
    build("PROXY TCP4 192.0.2.1 192.0.2.2 1 2"),
    PROXY_V2,
    b"\r\n" * 50,
    build("GET / HTTP/1.1", "X: " + "y" * 100),
    b"GET /" + b"y" * 100,
]


def test_a_request_may_be_cut_anywhere():
    """One outcome for the same bytes, whole, byte by byte and cut at every offset, also across the limit."""
    for head in HEADS:
        for limit in (MAX_HEADER_BYTES, len(head), len(head) - 1, len(head) - 3, 20):
            whole = outcome([head], limit)
            with naming(head, limit):
                assert outcome([head[at : at + 1] for at in range(len(head))], limit) == whole
            for cut in range(len(head) + 1):
                with naming(head, limit, cut):
                    assert outcome([head[:cut], head[cut:]], limit) == whole


@given(
    st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b":", b" ", b"GET / HTTP/1.1", b"A", b"\0", b"\xff"])), st.data()
)
def test_any_bytes_have_one_outcome_however_they_are_cut(parts, data):
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    edges = [0, *cuts, len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    assert outcome(pieces, 40) == outcome([stream], 40)


def test_three_attacks_that_a_second_parser_would_answer():
    """What one parser hides from another: a length, console work, a field in another one's value."""
    hidden_length = build("GET / HTTP/1.1", "Host: x", "Bad Header", "Content-Length: 34")
    folded = build("GET / HTTP/1.1", "Host: x", "Accept: text/html,", " application/json")
    bare_cr = build("GET / HTTP/1.1", "Host: x", "X-A: b\rUpgrade: websocket")
    for attack in (hidden_length, folded, bare_cr):
        with naming(attack):
            assert refuse(attack + build("GET /core/rfb.js HTTP/1.1")).status == HTTPStatus.BAD_REQUEST


def test_a_line_that_is_no_field_is_refused():
    lines = [
        "no colon",
        ": empty",
        "Host : x",
        " Host: x",
        "\tHost: x",
        "A B: c",
        "X: \0",
        "Ho\xffst: x",
        "(x): y",
        "\0: x",
    ]
    for line in lines:
        for head in (build("GET / HTTP/1.1", line), build("GET / HTTP/1.1", "A: b", line, "C: d")):
            with naming(head):
                assert refuse(head).status == HTTPStatus.BAD_REQUEST


def test_a_refusal_says_which_rule_was_broken():
    cases = [
        (build("GET / HTTP/1.1", "Accept: a,", " b"), "A field is folded over several lines."),
        (build("GET / HTTP/1.1", "no field"), "A header line has no colon, or its name is invalid."),
        (b"GET / HTTP/1.1\nHost: x\n\n", "A line ends with LF alone."),
        (build("GET / HTTP/1.1", "X: a\rb"), "A line ends with CR alone."),
    ]
    for head, reason in cases:
        with naming(head):
            assert str(refuse(head)) == reason


def test_a_line_ends_with_cr_lf_alone():
    head = build("GET / HTTP/1.1", "Host: x", "A: b")
    for at in [at for at in range(len(head)) if head[at : at + 2] == b"\r\n"]:
        for end in (b"\r", b"\n", b"\r\r\n", b"\n\r\n"):
            with naming(at, end):
                assert refuse(head[:at] + end + head[at + 2 :] + b"GET").status == HTTPStatus.BAD_REQUEST


def test_a_bare_cr_is_refused_before_the_line_ends():
    assert refuse(b"GET / HTTP/1.1\rHost: x").status == HTTPStatus.BAD_REQUEST
    assert parse(b"GET / HTTP/1.1\r") is None


def test_a_first_line_that_is_not_one_of_a_request_is_refused():
    cases = [
        ("nonsense", 400),
        ("GET", 400),
        ("GET / ", 400),
        ("POST /", 400),
        ("CONNECT /console?token=x", 400),
        ("GET x", 400),
        ("GET  / HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET /a b HTTP/1.1", 400),
        ("GET\t/\tHTTP/1.1", 400),
        ("GET /\xff HTTP/1.1", 400),
        ("GET /\0 HTTP/1.1", 400),
        ("G\0T / HTTP/1.1", 400),
        ("GET / http/1.1", 400),
        ("GET / HTTP/x", 400),
        ("GET / HTTP/1", 400),
        ("GET / HTTP/11.1", 400),
        ("GET / ICAP/1.0", 400),
        ("GET http:///x HTTP/1.1", 400),
        ("RFB 003.008", 400),
        ("GET / HTTP/0.9", 505),
        ("GET / HTTP/2.0", 505),
    ]
    for line, status in cases:
        with naming(line):
            assert refuse(build(line, "Host: x")).status == status


def test_empty_lines_before_a_request_are_skipped():
    """RFC 9112 section 2.2."""
    for count in (1, 2, 3, MAX_LEADING_BLANKS):
        with naming(count):
            request, rest = parse(b"\r\n" * count + build("GET / HTTP/1.1") + b"rest")
            assert (request.target, rest) == ("/", b"rest")
    assert refuse(b"\r\n" * (MAX_LEADING_BLANKS + 1)).status == HTTPStatus.BAD_REQUEST


def test_the_absolute_form_is_taken_and_its_host_counts():
    """RFC 9112 section 3.2.2."""
    cases = [
        ("http://good.org/a?b=c", "/a?b=c", "good.org"),
        ("HTTPS://good.org:6080/", "/", "good.org:6080"),
        ("http://good.org", "/", "good.org"),
        ("http://good.org?token=x", "/?token=x", "good.org"),
        ("http://good.org//evil/", "//evil/", "good.org"),
    ]
    for target, path, host in cases:
        with naming(target):
            request, _rest = parse(build(f"GET {target} HTTP/1.1", "Host: other.org"))
            assert (request.target, request.hosts) == (path, (host,))


def test_the_absolute_form_makes_up_for_no_host_and_chooses_among_none():
    """RFC 9112 section 3.2: what asks for exactly one Host counts those that were sent."""
    for hosts in ((), ("a", "good.org"), ("good.org", "good.org")):
        with naming(hosts):
            fields = [f"Host: {host}" for host in hosts]
            assert parse(build("GET http://good.org/ HTTP/1.1", *fields))[0].hosts == hosts


def test_a_health_check_without_a_version_is_answered_as_http_1_0():
    for line, path in (("GET /healthcheck", "/healthcheck"), ("HEAD /", "/")):
        with naming(line):
            request, _rest = parse(build(line))
            assert (request.target, request.minor_version, request.keeps_connection) == (path, 0, False)


def test_other_forms_stay_as_they_are():
    for target in ("/", "//host/x", "*", "host:443", "ftp://host/", "/http://host/"):
        with naming(target):
            request, _rest = parse(build(f"GET {target} HTTP/1.1", "Host: a", "Host: b"))
            assert (request.target, request.hosts) == (target, ("a", "b"))


def test_a_head_of_exactly_the_limit_passes_and_one_byte_more_does_not():
    head = build("GET / HTTP/1.1", "X: y")
    assert parse(head + b"rest", len(head)) == (parse(head)[0], b"rest")
    with pytest.raises(RequestMalformed) as caught:
        parse(head + b"rest", len(head) - 1)
    assert caught.value.status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


def test_more_fields_than_a_client_has_are_too_many():
    assert len(parse(build("GET / HTTP/1.1", *["X: y"] * MAX_FIELDS))[0].fields) == MAX_FIELDS
    assert refuse(build("GET / HTTP/1.1", *["X: y"] * (MAX_FIELDS + 1))).status == 431


def test_the_proxy_protocol_is_told_from_a_malformed_request():
    starts = [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n",
        b"PROXY TCP6 ::1 ::1 56324 443\r\n",
        b"PROXY UNKNOWN\r\n",
        PROXY_V2,
    ]
    for start in starts:
        with naming(start):
            assert speaks_proxy_protocol(start[:16])
            error = refuse(start + build("GET / HTTP/1.1"))
            assert isinstance(error, ProxyProtocolSpoken)
            assert error.status == HTTPStatus.BAD_REQUEST
    others = [b"PROXY / HTTP/1.1\r\n\r\n", b"\r\n\0\r\nQUIT\n", b"\r\n\r\n\r\n\0\r\n", b"GET / HTTP/1.1\r\n\r\n"]
    for other in others:
        with naming(other):
            assert not speaks_proxy_protocol(other)
            found = outcome([other])
            assert ProxyProtocolSpoken not in found


def test_what_a_request_is_for():
    cases = [
        # is_upgrade, asks_for_reason
        (["Upgrade: websocket"], True, False),
        (["Upgrade: WebSocket", "Accept: application/json"], True, False),
        (["Upgrade: h2c, websocket"], True, False),
        (["Upgrade: h2c"], False, False),
        (["Upgrade: websocketx"], False, False),
        (["X: Upgrade: websocket"], False, False),
        (["Accept: application/json"], False, True),
        (["Accept: text/html", "accept: a/b;q=1, Application/JSON;q=0.5"], False, True),
        (["Accept: text/html"], False, False),
        (["Accept: application/jsonx"], False, False),
        (["Accept: application/json; q=0"], False, False),
        (["Accept: application/json;q=0.000"], False, False),
        (["Accept: application/json ; charset=utf-8;q=0.1"], False, True),
        # Another parser in front takes no other blank away, and no parameter off.
        (["Upgrade: \x0bwebsocket"], False, False),
        (["Upgrade: \xa0websocket"], False, False),
        (["Upgrade: websocket;x=y"], False, False),
        (["Upgrade:\t websocket \t"], True, False),
        # Only so many elements are looked at.
        (["Upgrade: " + "," * (MAX_ELEMENTS - 1) + "websocket"], True, False),
        (["Upgrade: " + "," * MAX_ELEMENTS + "websocket"], False, False),
        ([], False, False),
    ]
    for fields, is_upgrade, asks_for_reason in cases:
        with naming(fields):
            request, _rest = parse(build("GET / HTTP/1.1", *fields))
            assert (request.is_upgrade, request.asks_for_reason) == (is_upgrade, asks_for_reason)
            request, _rest = parse(build("HEAD / HTTP/1.1", *fields))
            assert (request.is_upgrade, request.asks_for_reason) == (False, False)


def test_whether_a_body_follows():
    without = [[], ["Content-Length: 0"], ["Content-Length: 0", "Content-Length: 0"]]
    bodies = [
        ["Content-Length: 5"],
        ["Content-Length: 00"],
        ["Content-Length: 0", "Content-Length: 5"],
        ["Content-Length: 0, 5"],
        ["Content-Length: x"],
        ["Content-Length: -1"],
        ["Content-Length:"],
        ["Transfer-Encoding: chunked"],
        ["Transfer-Encoding:"],
    ]
    for fields, expected in [*((fields, False) for fields in without), *((fields, True) for fields in bodies)]:
        with naming(fields):
            assert parse(build("GET / HTTP/1.1", *fields))[0].has_body is expected


def test_whether_the_connection_is_kept():
    """RFC 9112 section 9.3."""
    cases = [
        ("HTTP/1.1", [], True),
        ("HTTP/1.1", ["Connection: keep-alive"], True),
        ("HTTP/1.1", ["Connection: close"], False),
        ("HTTP/1.1", ["Connection: Upgrade, Close"], False),
        ("HTTP/1.1", ["Connection: Upgrade", "Connection: close"], False),
        ("HTTP/1.0", [], False),
        ("HTTP/1.0", ["Connection: Keep-Alive"], True),
        ("HTTP/1.0", ["Connection: keep-alive, close"], False),
    ]
    for version, fields, kept in cases:
        with naming(version, fields):
            assert parse(build(f"GET / {version}", *fields))[0].keeps_connection is kept


@given(
    method=st.text(TOKEN_CHARACTERS, min_size=1, max_size=10),
    target=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30),
    fields=st.lists(
        st.tuples(
            st.text(TOKEN_CHARACTERS, min_size=1, max_size=10),
            st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=20),
        ),
        max_size=5,
    ),
)
def test_a_well_formed_request_is_read_as_it_was_written(method, target, fields):
    request, rest = parse(build(f"{method} /{target} HTTP/1.1", *(f"{name}:{value}" for name, value in fields)))
    assert (request.method, request.target, rest) == (method, f"/{target}", b"")
    assert request.fields == tuple((name.lower(), value.strip(" \t")) for name, value in fields)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_a_refusal_or_the_beginning_of_one(noise):
    found = outcome([noise + b"\r\n\r\n"])
    assert found is None or isinstance(found[0], Request) or found[1] in {400, 431, 505}

# SPDX-License-Identifier: Apache-2.0
"""Who gets in through the browsers' door, and what everybody else is answered before 101."""

import json
import logging
import socket
import sys
import time
import urllib.parse
import uuid

import pytest

from porthole_common import errors
from porthole_common.model import ConsoleType, Target
from porthole_novncproxy.admission.limits import Limits
from support.cases import naming
from support.deadlines import kept_within
from support.processes import wait_until
from support.proxy import InProcessProxy
from support.vnc_servers import (
    GREETING,
    BlackHole,
    ClosingServer,
    EchoVnc,
    ResettingServer,
    SilentServer,
    TrapServer,
)
from support.websocket import (
    KEY,
    RawWebSocket,
    assert_refused,
    build_upgrade,
    connect,
    exchange,
    read_reply,
    read_to_end,
)

FOREIGN = ("Origin", "http://evil.example")
# Audit hooks stay for the life of the process, so this one listens only while a test wants it to.
_resolved: list[str] | None = None
_RESOLVER_S = 2.0


def _note_resolutions(event, arguments):
    """Stand in for a resolver that does not answer: whatever asks it is noted, and waits as long as a resolver does."""
    if _resolved is None:
        return
    if event in ("socket.gethostbyaddr", "socket.getnameinfo", "socket.gethostbyname"):
        _resolved.append(event)
        time.sleep(_RESOLVER_S)


sys.addaudithook(_note_resolutions)


@pytest.fixture
def make(web_root, stack):
    """A maker of running proxies."""
    return lambda **options: stack.enter_context(InProcessProxy(web_root, **{"dial_timeout_s": 0.5, **options}))


@pytest.fixture
def trap(stack):
    server = stack.enter_context(TrapServer())
    yield server
    assert server.accepted == 0, "a VNC server was dialled for a client that may not in"


def get_reason(port, path, headers=()):
    """Ask for the status that an upgrade of ``path`` would get, as the console page does."""
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Accept: application/json", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    reply = exchange(port, "\r\n".join([*lines, "", ""]).encode("latin-1"))
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    body = json.loads(reply.rest)
    assert body["code"] == reply.status
    assert body["reason"]
    return reply.status


def assert_same_answer(port, path, status, headers=()):
    """The upgrade is refused with ``status``, and the page is told the same."""
    assert_refused(port, path, status, headers)
    assert get_reason(port, path, headers) == status


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?",
        "?token=",
        "?token=x",
        "?token=6f9c7a5e-1b6e-4f0e-9a57-2d6d1f3b8c11x",
        "?token=%00",
        "?nottoken=x",
        "?token=a%20b%0d%0a",
    ],
)
def test_no_token_or_a_malformed_one_is_401_and_nobody_is_asked(make, trap, query):
    proxy = make()
    assert_same_answer(proxy.novnc_port, f"/{query}", 401)
    assert proxy.consoleauth.asked == []


def test_an_instance_uuid_is_no_token(make, trap):
    proxy = make()
    token = proxy.issue(trap)
    assert_same_answer(proxy.novnc_port, f"/?token={proxy.instance_of(token)}", 401)


def test_an_unknown_token_is_401_and_compute_is_not_asked(make, trap):
    proxy = make()
    assert_same_answer(proxy.novnc_port, f"/?token={uuid.uuid4()}", 401)
    assert proxy.compute.asked == []


def test_a_token_of_the_other_door_is_401(make, trap):
    """An xvpvnc token at the browsers' door (S18)."""
    proxy = make()
    token = proxy.issue(trap, ConsoleType.XVPVNC)
    assert_same_answer(proxy.novnc_port, f"/?token={token}", 401)
    assert proxy.compute.asked == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.TokenInvalid("its instance has moved or stopped"), 401),
        (errors.InstanceNotFound("i"), 401),
        (errors.InstanceNotRunning("i", "shutoff"), 401),
        (errors.InstanceNotReady("i", "migrating"), 401),
        (errors.HypervisorUnavailable("h"), 503),
        (errors.RpcUnavailable("compute", "validate_console"), 503),
        (errors.RemoteFailure("compute", "validate_console"), 503),
    ],
)
def test_what_compute_says(make, trap, error, status):
    """A refusal of compute is one of the proxy, and nothing is dialled (S1)."""
    proxy = make()
    proxy.compute.error = error
    assert_same_answer(proxy.novnc_port, f"/?token={proxy.issue(trap)}", status)
    assert proxy.counter.total == 0


@pytest.mark.parametrize(
    "error",
    [
        errors.TokenStoreUnavailable("down"),
        errors.RpcUnavailable("consoleauth", "check_token"),
        errors.RemoteFailure("c", "m"),
    ],
)
def test_consoleauth_or_its_store_not_reachable_is_503(make, trap, error):
    proxy = make()
    proxy.consoleauth.error = error
    assert_same_answer(proxy.novnc_port, f"/?token={proxy.issue(trap)}", 503)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([FOREIGN], 403),
        ([("Origin", "null")], 403),
        ([("Origin", "")], 403),
        ([("Origin", "https://localhost")], 403),
        ([("Origin", "http://localhost.evil.example")], 403),
        ([("Origin", "http://evil-localhost")], 403),
        ([("Origin", "http://localhost@evil.example")], 403),
        ([("Origin", "http://localhost"), ("Origin", "http://localhost")], 403),
        ([("Origin", "http://localhost"), FOREIGN], 403),
        ([FOREIGN, ("X-Forwarded-Host", "evil.example")], 403),
        ([("Origin", "http://localhost"), ("Host", "evil.example")], 400),
    ],
)
def test_a_page_of_another_site_is_refused_with_a_valid_token(make, trap, headers, status):
    """And the VNC server is not dialled (S4)."""
    proxy = make()
    assert_same_answer(proxy.novnc_port, f"/?token={proxy.issue(trap)}", status, headers)


def test_a_foreign_page_does_not_even_learn_whether_the_token_is_good(make, trap):
    proxy = make()
    assert_same_answer(proxy.novnc_port, f"/?token={proxy.issue(trap)}", 403, [FOREIGN])
    assert proxy.consoleauth.asked == []


@pytest.mark.parametrize("origin", [[], [("Origin", "http://localhost")]])
def test_a_missing_host_is_400(make, trap, origin):
    """With and without an Origin (S4)."""
    proxy = make()
    assert_refused(proxy.novnc_port, f"/?token={proxy.issue(trap)}", 400, origin, host=None)


def test_the_scheme_of_the_page_is_that_of_the_consoles_url(make, trap, stack):
    """And X-Forwarded-Proto is not for everybody to send (S4)."""
    proxy = make()
    secure = proxy.issue(trap, scheme="https")
    assert_same_answer(proxy.novnc_port, f"/?token={secure}", 403, [("Origin", "http://localhost")])
    assert_same_answer(
        proxy.novnc_port, f"/?token={secure}", 403, [("Origin", "http://localhost"), ("X-Forwarded-Proto", "http")]
    )
    good = proxy.issue(stack.enter_context(EchoVnc()), scheme="https")
    assert get_reason(proxy.novnc_port, f"/?token={good}", [("Origin", "https://localhost")]) == 200


def test_x_forwarded_proto_counts_from_a_trusted_proxy(make, stack):
    proxy = make(trusted_proxies=("127.0.0.1",))
    token = proxy.issue(stack.enter_context(EchoVnc()), scheme="http")
    forwarded = [("Origin", "https://localhost"), ("X-Forwarded-Proto", "https")]
    assert get_reason(proxy.novnc_port, f"/?token={token}", forwarded) == 200


def test_allowed_origins_let_other_pages_in(make, stack):
    proxy = make(allowed_origins=("portal.example",))
    token = proxy.issue(stack.enter_context(EchoVnc()))
    with RawWebSocket(proxy.novnc_port, f"/?token={token}", [("Origin", "http://Portal.example:8443")]) as client:
        assert client.reply.status == 101
    assert_same_answer(proxy.novnc_port, f"/?token={token}", 403, [FOREIGN])


def test_a_host_that_was_once_its_own_origin_is_no_origin_later(make, stack):
    """On the wire: the second request is refused, though the first one was let in (S5)."""
    server = stack.enter_context(EchoVnc())
    proxy = make()
    token = proxy.issue(server)
    with connect(proxy.novnc_port) as sock:
        sock.sendall(build_upgrade(f"/?token={token}", [FOREIGN], host="evil.example"))
        assert read_reply(sock).status == 101
    wait_until(lambda: server.open_connections == 0, 30, "the end of the first console")
    assert_same_answer(proxy.novnc_port, f"/?token={token}", 403, [FOREIGN])
    assert server.accepted == 1


def test_without_an_origin_it_is_no_browser_and_is_let_in(make, stack):
    proxy = make()
    token = proxy.issue(stack.enter_context(EchoVnc()))
    with RawWebSocket(proxy.novnc_port, f"/?token={token}", [("Sec-WebSocket-Protocol", "binary")]) as client:
        assert client.reply.status == 101
        assert client.reply.headers["upgrade"].lower() == "websocket"
        assert client.reply.headers["sec-websocket-protocol"] == "binary"
        assert client.reply.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert client.read_data(len(GREETING)) == GREETING


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/?token={}", []),
        ("/websockify?token={}", []),
        ("/any/where?a=b&token={}", []),
        ("/?token=x&token={}", []),
        ("/websockify", [("Cookie", "token={}")]),
        ("/websockify", [("Cookie", "?=!; token={}")]),
        ("/websockify", [("Cookie", "a=b; =; token={}; \x01")]),
        ("/?token={}", [("Cookie", "path=%3Ftoken%3D{}")]),
        ("/?token={}", [("Origin", "http://localhost")]),
        ("/?token={}", [("Origin", "http://LOCALHOST.")]),
    ],
)
def test_the_token_is_taken_from_query_or_cookie_on_any_path(make, stack, path, headers):
    """A malformed cookie beside it is passed over (C4)."""
    proxy = make()
    token = proxy.issue(stack.enter_context(EchoVnc()))
    filled = [(name, value.format(token)) for name, value in headers]
    with RawWebSocket(proxy.novnc_port, path.format(token), filled) as client:
        assert client.reply.status == 101


@pytest.mark.parametrize(
    "offered", [[], ["binary"], ["base64"], ["base64, binary"], ["base64", "binary"], ["binary,base64"], [""]]
)
def test_a_subprotocol_is_chosen_only_from_those_offered(make, stack, offered):
    proxy = make()
    token = proxy.issue(stack.enter_context(EchoVnc()))
    headers = [("Sec-WebSocket-Protocol", value) for value in offered]
    with RawWebSocket(proxy.novnc_port, f"/?token={token}", headers) as client:
        assert client.reply.status == 101
        chosen = client.reply.headers.get("sec-websocket-protocol")
        assert chosen == ("binary" if "binary" in ",".join(offered) else None)


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("Sec-WebSocket-Key", ["x"]),
        ("Sec-WebSocket-Key", []),
        ("Sec-WebSocket-Key", [KEY, KEY]),
    ],
)
def test_a_malformed_upgrade_is_400_before_anybody_is_asked(make, trap, header, values):
    proxy = make()
    reply = exchange(proxy.novnc_port, build_changed_upgrade(f"/?token={proxy.issue(trap)}", header, values))
    assert (reply.status, reply.rest) == (400, b"")
    assert "sec-websocket-version" not in reply.headers
    assert proxy.consoleauth.asked == []


def test_another_version_of_the_protocol_is_told_the_one_that_is_spoken(make, trap):
    """C34: 400 with the version (RFC 6455 section 4.2.2), before any token is looked at."""
    proxy = make()
    path = f"/?token={proxy.issue(trap)}"
    cases = [[], [""], ["0"], ["7"], ["8"], ["14"], ["013"], ["+13"], ["13.0"], ["13, 8"], ["8, 13"], ["13,"], ["x"]]
    cases += [["13", "13"], ["13", "8"], ["8", "13"], ["13", ""], ["9" * 400], ["\xb9\xb3"], ["\xa013"]]
    for values in cases:
        with naming(values):
            reply = exchange(proxy.novnc_port, build_changed_upgrade(path, "Sec-WebSocket-Version", values))
            assert (reply.status, reply.rest, reply.headers["content-length"]) == (400, b"", "0")
            assert reply.headers["sec-websocket-version"] == "13"
            assert "upgrade" not in reply.headers
    assert proxy.consoleauth.asked == []


def test_another_version_is_answered_alike_whatever_else_is_wrong(make, trap):
    proxy = make()
    for path in ("/", "/?token=x", f"/?token={uuid.uuid4()}"):
        for more in ([], [FOREIGN], [("Content-Length", "8")], [("Transfer-Encoding", "chunked")]):
            with naming(path, more):
                request = build_changed_upgrade(path, "Sec-WebSocket-Version", ["8"], more)
                reply = exchange(proxy.novnc_port, request)
                assert (reply.status, reply.headers["sec-websocket-version"]) == (400, "13")
    assert proxy.consoleauth.asked == []


def test_blanks_around_the_version_are_no_part_of_it(make, stack):
    proxy = make()
    server = stack.enter_context(EchoVnc())
    for value in ("13", "  13", "13 \t", "\t13\t"):
        path = f"/?token={proxy.issue(server)}"
        with naming(value), connect(proxy.novnc_port) as sock:
            sock.sendall(build_changed_upgrade(path, "Sec-WebSocket-Version", [value]))
            assert read_reply(sock).status == 101


def build_changed_upgrade(path, header, values, more=()):
    """Return an upgrade in which ``header`` stands once for each of ``values``."""
    lines = build_upgrade(path, more).decode("latin-1").split("\r\n")
    at = next(number for number, line in enumerate(lines) if line.startswith(f"{header}:"))
    lines[at : at + 1] = [f"{header}: {value}" for value in values]
    return "\r\n".join(lines).encode("latin-1")


@pytest.mark.parametrize("limit", ["total", "per_source", "per_token", "per_instance", "per_user"])
def test_one_console_more_than_a_limit_is_429_and_is_let_in_when_one_has_ended(make, stack, limit):
    """Each of the limits (S10)."""
    server = stack.enter_context(EchoVnc())
    proxy = make(limits=Limits(**{"total": 99, "per_source": 99, "per_token": 99, "per_instance": 99, limit: 2}))
    token = proxy.issue(server, user_id="u-1")
    with RawWebSocket(proxy.novnc_port, f"/?token={token}"):
        with RawWebSocket(proxy.novnc_port, f"/?token={token}"):
            assert_same_answer(proxy.novnc_port, f"/?token={token}", 429)
            assert server.accepted == 2
        wait_until(lambda: proxy.counter.total == 1, 30, "the end of one console")
        with RawWebSocket(proxy.novnc_port, f"/?token={token}") as client:
            assert client.reply.status == 101


def test_a_dead_vnc_server_is_502(make, stack):
    """Before 101 (C18)."""
    server = EchoVnc()
    server.stop()
    proxy = make()
    assert_same_answer(proxy.novnc_port, f"/?token={proxy.issue(server)}", 502)


@pytest.mark.parametrize("kind", [ResettingServer, ClosingServer])
def test_a_vnc_server_that_hangs_up_before_it_greets_is_502(make, stack, kind):
    """By an end or by a reset (C18)."""
    proxy = make()
    assert_same_answer(proxy.novnc_port, f"/?token={proxy.issue(stack.enter_context(kind()))}", 502)


@pytest.mark.parametrize("kind", [SilentServer, BlackHole])
def test_a_vnc_server_that_does_not_answer_is_504_within_the_deadline(make, stack, kind):
    """Silent, or a black hole (C18)."""
    dial_timeout_s = 0.3
    proxy = make(dial_timeout_s=dial_timeout_s)
    token = proxy.issue(stack.enter_context(kind()))
    # The upgrade dials, and so does the question for the reason.
    with kept_within(2 * dial_timeout_s, "two answers of 504"):
        assert_same_answer(proxy.novnc_port, f"/?token={token}", 504)
    assert proxy.counter.total == 0


def test_a_name_that_does_not_exist_is_502(make, stack):
    proxy = make()
    token = proxy.issue(Target("no-such-host.invalid", 5900))
    assert_same_answer(proxy.novnc_port, f"/?token={token}", 502)


def test_the_fresh_address_is_dialled_and_the_old_one_is_not(make, stack, trap):
    """What compute answers is dialled, not what the token was issued with (S2)."""
    server = stack.enter_context(EchoVnc())
    proxy = make()
    proxy.compute.moved_to = Target(server.host, server.port)
    with RawWebSocket(proxy.novnc_port, f"/?token={proxy.issue(trap)}") as client:
        assert client.read_data(len(GREETING)) == GREETING


def test_the_reason_of_a_console_that_can_be_opened_spends_nothing(make, stack):
    server = stack.enter_context(EchoVnc())
    proxy = make(limits=Limits(1, 1, 1, 1))
    token = proxy.issue(server)
    for _ in range(3):
        assert get_reason(proxy.novnc_port, f"/?token={token}") == 200
        wait_until(lambda: server.open_connections == 0, 30, "the proxy hangs up on the VNC server")
        assert proxy.counter.total == 0
    with RawWebSocket(proxy.novnc_port, f"/?token={token}") as client:
        assert client.reply.status == 101


def test_what_a_client_sends_behind_a_refused_upgrade_is_no_reset(make, trap):
    proxy = make()
    assert_refused(proxy.novnc_port, "/?token=x", 401, behind=b"\x82\x85abcdhello" * 5000)


# S6, C5


def test_no_peer_is_looked_up_by_name(make, stack):
    """C5: with a resolver that is a black hole a console opens, a page comes, and a refusal is told in no time."""
    global _resolved  # noqa: PLW0603 - an audit hook has no other way to know
    server = stack.enter_context(EchoVnc())
    proxy = make()
    token = proxy.issue(server)
    _resolved, rounds_s = [], []
    try:
        for _ in range(3):
            began = time.monotonic()
            get_reason(proxy.novnc_port, f"/?token={token}")
            assert_refused(proxy.novnc_port, "/?token=x", 401)
            with RawWebSocket(proxy.novnc_port, f"/?token={token}") as client:
                assert client.read_data(len(GREETING)) == GREETING
            exchange(proxy.novnc_port, b"GET /vnc_lite.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            rounds_s.append(time.monotonic() - began)
        # One look-up would take as long as the stand-in for a resolver does.
        assert min(rounds_s) < _RESOLVER_S
        assert _resolved == []
        # The hook does hear what it is there for.
        began = time.monotonic()
        socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        assert time.monotonic() - began > _RESOLVER_S
    finally:
        _resolved = None


def encodings(token):
    """A token as it is, URL-encoded, and as a part of either."""
    return {token, token.replace("-", "%2D"), urllib.parse.quote(token), token.partition("-")[2]}


def send_and_forget(port, request):
    with connect(port) as sock:
        sock.sendall(request)
        read_to_end(sock)


def test_no_log_record_holds_a_token(make, stack, caplog):
    """At DEBUG, what fails included (S6)."""
    caplog.set_level(logging.DEBUG)
    server = stack.enter_context(EchoVnc())
    silent = stack.enter_context(SilentServer())
    proxy = make(dial_timeout_s=0.2, request_timeout_s=0.2)
    good, slow, wrong = proxy.issue(server), proxy.issue(silent), proxy.issue(server, ConsoleType.XVPVNC)
    viewer, unknown = proxy.issue(server, ConsoleType.XVPVNC), str(uuid.uuid4())
    tokens = [good, slow, wrong, viewer, unknown]
    for token in tokens:
        encoded = urllib.parse.quote(f"?token={token}", safe="")
        for path in (
            f"/?token={token}",
            f"/{encoded}",
            f"/console.html?path={encoded}",
            f"/{token}",
            f"/%74oken={token}",
        ):
            for headers in ([], [FOREIGN], [("Cookie", f"token={token}")], [("Sec-WebSocket-Key", "x")]):
                with connect(proxy.novnc_port) as sock:
                    sock.sendall(build_upgrade(path, headers))
                    read_reply(sock)
            for method in ("GET", "HEAD", "POST", "BREW"):
                request = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nReferer: http://x{path}\r\n"
                send_and_forget(proxy.novnc_port, f"{request}Connection: close\r\n\r\n".encode())
            get_reason(proxy.novnc_port, path)
        for request in (
            f"GET /?token={token}\r\n\r\n",
            f"GET /?token={token} HTTP/9.9\r\n\r\n",
            f"GET /?token={token} x HTTP/1.1\r\n\r\n",
            f"GET /?token={token} HTTP/1.1\r\nHost",
            f"GET /?token={token} HTTP/1.1\r\n" + "X: y\r\n" * 150 + "\r\n",
            f"GET /?token={token}" + "x" * 17000,
        ):
            send_and_forget(proxy.novnc_port, request.encode())
        for request in (f"CONNECT /console?token={token} HTTP/1.0\r\n\r\n", f"GET /?token={token} HTTP/1.0\r\n\r\n"):
            with connect(proxy.xvp_port) as sock:
                sock.sendall(request.encode())
                sock.shutdown(socket.SHUT_WR)
                read_to_end(sock)
    assert proxy.consoleauth.asked.count(good) > 5
    assert any("Console opened" in record.getMessage() for record in caplog.records)
    assert any("Console refused" in record.getMessage() for record in caplog.records)
    text = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    for token in tokens:
        for form in encodings(token):
            assert form not in text

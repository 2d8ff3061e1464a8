# SPDX-License-Identifier: Apache-2.0
"""VNC servers behind VeNCrypt: whom the proxy believes, what clients see of it, bytes over TLS, hostile servers.

QEMU, TigerVNC and the whole path are in test_vencrypt_servers.py.
"""

import http.client
import json
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from porthole_common.model import ConsoleType
from porthole_relay.pipe import Watermarks
from support.certificates import Authority
from support.deadlines import kept_within
from support.processes import wait_until
from support.proxy import InProcessProxy, count_descriptors, own_socket, resident_bytes
from support.rfb_talks import CHALLENGE, OK, RESPONSE, TLS_NONE, VERSIONS, X509_NONE, X509_VNC, failed, types, vencrypt
from support.secure_vnc import PLAIN_TURNS, PlainVnc, UnfinishedVnc, VencryptVnc, build_context, security_of
from support.vnc_servers import GREETING, EchoVnc, SilentServer, VncServer
from support.websocket import RawWebSocket, build_upgrade, connect, read_reply, read_to_end

Make = Callable[..., InProcessProxy]
DIAL_TIMEOUT_S = 1.0
SMALL = Watermarks(high_bytes=4096, low_bytes=1024)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    return build_context(authority.issue())


@pytest.fixture
def make(web_root: Path, stack: ExitStack, authority: Authority) -> Make:
    """A maker of proxies that want VeNCrypt, or what ``schemes`` says."""

    def run(*schemes: str, **options: Any) -> InProcessProxy:
        security = security_of(*(schemes or ("vencrypt",)), ca_certs=authority.cert)
        return stack.enter_context(InProcessProxy(web_root, security=security, **options))

    return run


@pytest.fixture
def server(context: ssl.SSLContext, stack: ExitStack) -> VencryptVnc:
    return stack.enter_context(VencryptVnc(context))


def open_websocket(proxy: InProcessProxy, server: VncServer, **options: Any) -> RawWebSocket:
    """A browser that was let in, before the handshake."""
    scheme = "https" if "context" in options else "http"
    client = RawWebSocket(proxy.novnc_port, f"/?token={proxy.issue(server, scheme=scheme)}", **options)
    if client.reply.status != 101:
        client.close()
    assert client.reply.status == 101
    return client


def shake_hands(client: RawWebSocket) -> RawWebSocket:
    """Go through a browser's side of the handshake."""
    for wanted, answer in ((GREETING, GREETING), (b"\1\1", b"\1"), (OK, b"")):
        assert client.read_frame() == (0x2, wanted)
        if answer:
            client.send(answer)
    return client


def refusal(proxy: InProcessProxy, server: VncServer, host: str | None = None) -> tuple[int, str]:
    """The status of an upgrade, and the reason that a page is told."""
    token = proxy.issue(server) if host is None else proxy.issue(server, host=host)
    with RawWebSocket(proxy.novnc_port, f"/?token={token}") as client:
        status = client.reply.status
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.novnc_port, timeout=10)) as page:
        page.request("GET", f"/?token={token}", headers={"Accept": "application/json"})
        answer = page.getresponse()
        body = json.loads(answer.read())
        assert status == body["code"] == answer.status or (status, answer.status) == (101, 200)
        return status, body["reason"]


def at_rest(proxy: InProcessProxy, *servers: VncServer) -> None:
    wait_until(
        lambda: proxy.counter.total == 0 and not any(server.open_connections for server in servers), 10, "all ends"
    )


# Whom clients meet


def test_a_browser_is_offered_none_in_short_frames_and_its_bytes_are_encrypted(make: Make, server: VencryptVnc) -> None:
    proxy = make()
    with shake_hands(open_websocket(proxy, server)) as client:
        client.send(b"\1 and more")
        assert client.read_data(10) == b"\1 and more"
    assert server.tls_versions == ["TLSv1.3"]


def test_a_dribbling_server_and_a_dribbling_browser_that_sends_all_of_it_ahead(
    make: Make, context: ssl.SSLContext, stack: ExitStack
) -> None:
    """C21."""
    dribbling = stack.enter_context(VencryptVnc(context, dribbles=True))
    proxy = make(dial_timeout_s=10.0)
    token = proxy.issue(dribbling, ConsoleType.XVPVNC)
    with connect(proxy.xvp_port) as viewer:
        for byte in f"CONNECT /console?token={token} HTTP/1.0\r\n\r\n".encode() + GREETING + b"\1" + b"\1keys":
            viewer.sendall(bytes([byte]))
        received = read_reply(viewer).rest
        while len(received) < len(GREETING) + 2 + len(OK) + 5:
            received += viewer.recv(100)
        assert received == GREETING + b"\1\1" + OK + b"\1keys"


@pytest.mark.parametrize(("minor", "told"), [(3, [b"\0\0\0\1"]), (7, [b"\1\1"]), (8, [b"\1\1", OK])])
def test_a_viewer_of_each_version(make: Make, server: VencryptVnc, minor: int, told: list[bytes]) -> None:
    with open_websocket(make(), server) as client:
        assert client.read_frame() == (0x2, GREETING)
        client.send(VERSIONS[minor])
        for message in told:
            assert client.read_frame() == (0x2, message)
            if message == b"\1\1":
                client.send(b"\1")
        client.send(b"\1init")
        assert client.read_data(5) == b"\1init"


def test_a_password_goes_through(make: Make, context: ssl.SSLContext, stack: ExitStack) -> None:
    heard: list[bytes] = []

    def ask(sock: socket.socket) -> None:
        sock.sendall(GREETING + types(19) + vencrypt(X509_VNC))
        for wanted in (12, 1, 2, 4):
            assert len(sock.recv(wanted, socket.MSG_WAITALL)) == wanted
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.sendall(CHALLENGE)
            heard.append(tls.recv(100))
            tls.sendall(OK if heard[-1] == RESPONSE else failed(b"Authentication failed"))
            tls.sendall(b"ServerInit" if heard[-1] == RESPONSE else b"")
            # Until the viewer has gone, or is gone after.
            while heard[-1] == RESPONSE and tls.recv(100):
                continue

    class Asking(VncServer):
        def serve(self, sock: socket.socket) -> None:
            ask(sock)

    # All of it at once would be more than it may say before TLS.
    asking = stack.enter_context(Asking())
    proxy = make()
    for response, verdict in ((RESPONSE, OK), (bytes(16), failed(b"Authentication failed"))):
        with open_websocket(proxy, asking) as client:
            assert client.read_frame() == (0x2, GREETING)
            client.send(GREETING)
            assert client.read_frame() == (0x2, b"\1\2")
            client.send(b"\2")
            assert client.read_frame() == (0x2, CHALLENGE)
            client.send(response)
            assert client.read_frame() == (0x2, verdict)
            if verdict == OK:
                assert client.read_data(10) == b"ServerInit"
            else:
                assert client.read_close()[0] == 1000
    assert heard == [RESPONSE, bytes(16)]


def test_where_none_will_do_a_plain_server_is_taken_too_and_the_log_warns(
    make: Make, server: VencryptVnc, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    caplog.set_level(logging.INFO)
    plain = stack.enter_context(PlainVnc(GREETING + types(1) + OK + b"ServerInit"))
    proxy = make("vencrypt", "none")
    with shake_hands(open_websocket(proxy, plain)) as client:
        assert client.read_data(10) == b"ServerInit"
    server_name = f"server=127.0.0.1:{plain.port}"
    assert warnings() == [f'VNC server taken without TLS {server_name} option="[vnc] auth_schemes"']
    with shake_hands(open_websocket(proxy, server)) as client:
        client.send(b"x")
        assert client.read_data(1) == b"x"
    assert server.tls_versions == ["TLSv1.3"]
    assert len(warnings()) == 1
    assert f"VNC server secured server=127.0.0.1:{server.port} tls=TLSv1.3 certificate=true" in caplog.messages


def test_with_none_alone_not_a_byte_is_looked_at(web_root: Path, stack: ExitStack) -> None:
    assert security_of("none") is None
    nonsense = bytes(range(256)) * 4
    proxy = stack.enter_context(InProcessProxy(web_root))
    echo = stack.enter_context(EchoVnc(nonsense))
    with open_websocket(proxy, echo) as client:
        assert client.read_data(len(nonsense)) == nonsense
        client.send(nonsense)
        assert client.read_data(len(nonsense)) == nonsense


# Whom the proxy believes (S15)

CERTIFICATES: dict[str, tuple[dict[str, Any], str, int]] = {
    "by-address": ({"alternative_names": ["127.0.0.1"]}, "127.0.0.1", 101),
    "by-name": ({"alternative_names": ["localhost"]}, "localhost", 101),
    "another-address": ({"alternative_names": ["127.0.0.2", "::1"]}, "127.0.0.1", 502),
    "another-name": ({"alternative_names": ["elsewhere.example"]}, "localhost", 502),
    "name-for-address": ({"alternative_names": ["localhost"]}, "127.0.0.1", 502),
    "address-for-name": ({"alternative_names": ["127.0.0.1"]}, "localhost", 502),
    "common-name-alone": ({"name": "localhost", "alternative_names": []}, "localhost", 502),
    "common-name-and-another": (
        {"name": "localhost", "alternative_names": ["elsewhere.example"]},
        "localhost",
        502,
    ),
    "expired": ({"expired": True}, "127.0.0.1", 502),
}


@pytest.mark.parametrize("case", CERTIFICATES)
def test_a_certificate_must_be_for_the_host_that_is_dialled(
    make: Make, authority: Authority, stack: ExitStack, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    caplog.set_level(logging.INFO)
    arguments, host, status = CERTIFICATES[case]
    server = stack.enter_context(VencryptVnc(build_context(authority.issue(**arguments))))
    proxy = make()
    found, reason = refusal(proxy, server, host)
    assert found == status
    if status == 502:
        assert "not protected in the way" in reason
        assert any(f"{host}:{server.port}" in line and "certificate" in line for line in caplog.messages)
    at_rest(proxy, server)


def test_a_certificate_of_an_unknown_authority_is_refused(make: Make, tmp_path: Path, stack: ExitStack) -> None:
    server = stack.enter_context(VencryptVnc(build_context(Authority(tmp_path, "other").issue())))
    assert refusal(make(), server)[0] == 502


@pytest.mark.parametrize("ours", ["trusted", "foreign", None])
def test_a_server_that_wants_a_client_certificate(
    web_root: Path, authority: Authority, tmp_path: Path, stack: ExitStack, ours: str | None
) -> None:
    context = build_context(authority.issue())
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.cert)
    server = stack.enter_context(VencryptVnc(context))
    issuers = {"trusted": authority, "foreign": Authority(tmp_path, "other")}
    options: dict[str, object] = {"ca_certs": authority.cert}
    if ours:
        certificate = issuers[ours].issue("proxy.example")
        options |= {"client_cert": certificate.cert, "client_key": certificate.key}
    proxy = stack.enter_context(InProcessProxy(web_root, security=security_of("vencrypt", **options)))
    assert refusal(proxy, server)[0] == (101 if ours == "trusted" else 502)


def test_other_certificates_are_for_consoles_that_are_opened_later(
    make: Make, server: VencryptVnc, tmp_path: Path
) -> None:
    proxy = make()
    with shake_hands(open_websocket(proxy, server)) as client:
        other = security_of("vencrypt", ca_certs=Authority(tmp_path, "other").cert)
        proxy.gate.set_policy(proxy.counter.limits, proxy.gate._origins, other)
        assert refusal(proxy, server)[0] == 502
        client.send(b"still here")
        assert client.read_data(10) == b"still here"


# Hostile servers


def say_inside(words: bytes, ends: bool = False) -> Callable[[ssl.SSLSocket], None]:
    def behave(sock: ssl.SSLSocket) -> None:
        sock.sendall(words)
        while not ends and sock.recv(65536):
            continue

    return behave


def drip(sock: ssl.SSLSocket) -> None:
    """A byte now and then: each alone comes in time."""
    for byte in failed(b"x" * 1000):
        sock.sendall(bytes([byte]))
        threading.Event().wait(0.2)


HUGE = b"\xff\xff\xff\xff"
ENDS_UP: dict[str, tuple[Callable[[ssl.SSLContext], VncServer], int]] = {
    # S12: what is announced is not waited for.
    "4-gib-reason": (lambda _context: PlainVnc(GREETING + b"\0" + HUGE), 502),
    "4-gib-reason-of-3.3": (lambda _context: PlainVnc(VERSIONS[3] + b"\0\0\0\0" + HUGE), 502),
    "4-gib-reason-that-comes": (lambda _context: PlainVnc(GREETING + b"\0" + HUGE + b"x" * 4_000_000), 502),
    "4-gib-reason-inside": (lambda context: VencryptVnc(context, say_inside(b"\0\0\0\1" + HUGE + b"x" * 999)), 502),
    "nonsense": (lambda _context: PlainVnc(b"HTTP/1.1 200 OK\r\n\r\n"), 502),
    "old": (lambda _context: PlainVnc(b"RFB 002.000\n"), 502),
    "half-a-version": (lambda _context: PlainVnc(GREETING[:5]), 504),
    "half-a-version-and-the-end": (lambda _context: PlainVnc(GREETING[:5], ends=True), 502),
    "plain-alone": (lambda _context: PlainVnc(GREETING + types(1, 2)), 502),
    "tls-none-alone": (lambda _context: PlainVnc(GREETING + types(19) + vencrypt(TLS_NONE)), 502),
    "result-ahead-of-tls": (lambda _context: PlainVnc(GREETING + types(19) + vencrypt(X509_NONE) + OK * 4), 502),
    "no-tls": (lambda _context: UnfinishedVnc(PLAIN_TURNS, b"RFB 003.008\n" * 100_000), 502),
    "tls-that-ends": (lambda _context: UnfinishedVnc(PLAIN_TURNS, ends=True), 502),
    "half-a-tls-record": (lambda _context: UnfinishedVnc(PLAIN_TURNS, b"\x16\x03\x03\x40\x00"), 504),
    "silent": (lambda _context: SilentServer(), 504),
    **{
        f"silent-after-turn-{turns}": (lambda _context, turns=turns: UnfinishedVnc(turns), 504)
        for turns in range(1, PLAIN_TURNS + 1)
    },
    **{
        f"ends-after-turn-{turns}": (lambda _context, turns=turns: UnfinishedVnc(turns, ends=True), 502)
        for turns in range(1, PLAIN_TURNS)
    },
    "silent-inside": (lambda context: VencryptVnc(context, say_inside(b"")), 504),
    "half-a-result-inside": (lambda context: VencryptVnc(context, say_inside(OK[:2])), 504),
    "ends-inside": (lambda context: VencryptVnc(context, say_inside(b"", ends=True)), 502),
    "refuses-inside": (lambda context: VencryptVnc(context, say_inside(failed(b"no\x1b[2J\nmore"))), 502),
    "drips-inside": (lambda context: VencryptVnc(context, drip), 504),
}


def test_hostile_servers_are_refused_in_time_and_leave_nothing(
    make: Make, context: ssl.SSLContext, server: VencryptVnc, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    proxy = make(dial_timeout_s=DIAL_TIMEOUT_S, handshake_threads=32)
    hostile = {name: stack.enter_context(build(context)) for name, (build, _status) in ENDS_UP.items()}
    tokens = {name: proxy.issue(found) for name, found in hostile.items()}
    shake_hands(open_websocket(proxy, server)).close()
    at_rest(proxy, server)
    # Threads that the runtime keeps, and memory that it does not give back, come with the first round.
    for count in range(3):
        if count == 1:
            descriptors, memory = count_descriptors(), resident_bytes()
        # All at once, and none longer than the deadline, whatever it says meanwhile: one after the other they would
        # take longer than the allowance.
        with kept_within(DIAL_TIMEOUT_S, "all answers"), ExitStack() as clients:
            asked = {name: clients.enter_context(connect(proxy.novnc_port)) for name in tokens}
            for name, sock in asked.items():
                sock.sendall(build_upgrade(f"/?token={tokens[name]}"))
            found = {name: read_reply(sock).status for name, sock in asked.items()}
        assert found == {name: status for name, (_build, status) in ENDS_UP.items()}
        at_rest(proxy, *hostile.values())
        with shake_hands(open_websocket(proxy, server)) as client:
            client.send(b"alive")
            assert client.read_data(5) == b"alive"
        at_rest(proxy, server)
    wait_until(lambda: count_descriptors() <= descriptors, 30, f"descriptors go back to {descriptors}")
    assert resident_bytes() - memory < 8 << 20
    assert "Traceback" not in caplog.text
    # What a server says is shown in one line, and moves no terminal.
    assert "refuses: 'no?[2J?more'" in caplog.text
    assert all(line.isprintable() for line in caplog.messages)


# Clients that do not finish


def test_browsers_that_do_not_finish_the_handshake_hold_no_thread_and_are_ended(
    make: Make, server: VencryptVnc, stack: ExitStack
) -> None:
    proxy = make(handshake_threads=2, security_timeout_s=3.0)
    idle = [stack.enter_context(open_websocket(proxy, server)) for _ in range(10)]
    for number, client in enumerate(idle):
        client.send((GREETING + b"\1")[:number])
    with shake_hands(open_websocket(proxy, server)) as client:
        for dead in idle:
            assert dead.read_close() == (4409, "The security handshake was not finished in time")
            dead.close()
        client.send(b"alive")
        assert client.read_data(5) == b"alive"
    at_rest(proxy, server)


def test_a_revocation_reaches_a_handshake(make: Make, server: VencryptVnc) -> None:
    proxy = make()
    token = proxy.issue(server)
    with RawWebSocket(proxy.novnc_port, f"/?token={token}") as client:
        assert client.read_frame() == (0x2, GREETING)
        proxy.sessions.close_instance(proxy.instance_of(token))
        assert client.read_close() == (4401, "The console was revoked")
    at_rest(proxy, server)


# Bytes over TLS to the VNC server


@pytest.mark.parametrize("marks", [None, SMALL], ids=["", "small-marks"])
@pytest.mark.parametrize("client_tls", [False, True], ids=["ws", "wss"])
def test_many_bytes_both_ways(
    make: Make,
    server: VencryptVnc,
    authority: Authority,
    context: ssl.SSLContext,
    marks: Watermarks | None,
    client_tls: bool,
) -> None:
    options: dict[str, Any] = {"context": context} if client_tls else {}
    trusting: dict[str, Any] = {"context": ssl.create_default_context(cafile=authority.cert)} if client_tls else {}
    proxy = make(marks=marks, **options)
    payload = os.urandom(1 << 20) * (2 if marks else 16)
    with shake_hands(open_websocket(proxy, server, **trusting)) as client:
        assert client.send_and_read(payload) == payload
        for size in (1, 4095, 4096, 4097, 16384, 16385, 65536):
            assert client.send_and_read(payload[:size]) == payload[:size]


def test_a_viewer_that_does_not_read_stops_its_tls_server(
    make: Make, context: ssl.SSLContext, stack: ExitStack
) -> None:
    """O6, for a leg whose bytes may wait within OpenSSL."""
    sent = [0]

    def flood(sock: ssl.SSLSocket) -> None:
        sock.sendall(OK)
        while True:
            sock.sendall(b"\xa5" * 65536)
            sent[0] += 65536

    flooding = stack.enter_context(VencryptVnc(context, flood))
    proxy = make(marks=SMALL)
    with shake_hands(open_websocket(proxy, flooding, receive_buffer_bytes=16384)) as client:
        seen = [-1, 0]

        def stands_still() -> bool:
            seen.append(sent[0])
            return len(seen) > 50 and seen[-1] == seen[-50]

        wait_until(stands_still, 20, "the flood to stop")
        before, memory = sent[0], resident_bytes()
        # Nothing is lost of what stood still, wherever it did.
        wanted = before + (8 << 20)
        assert client.read_data(wanted) == b"\xa5" * wanted
        assert sent[0] > before
        assert resident_bytes() - memory < (64 << 20)
    at_rest(proxy)


def test_a_native_viewer_may_end_first_and_hears_the_rest(
    make: Make, context: ssl.SSLContext, stack: ExitStack
) -> None:
    """The server learns of it as of a viewer that has left, by the end of TCP, when it has read everything."""
    heard_end = threading.Event()

    def answer(sock: ssl.SSLSocket) -> None:
        sock.sendall(OK)
        heard = sock.recv(100)
        sock.sendall(b"heard " + heard)
        assert sock.recv(100) == b""
        heard_end.set()

    server = stack.enter_context(VencryptVnc(context, answer))
    proxy = make()
    token = proxy.issue(server, ConsoleType.XVPVNC)
    with connect(proxy.xvp_port) as viewer:
        viewer.sendall(f"CONNECT /console?token={token} HTTP/1.0\r\n\r\n".encode() + GREETING + b"\1" + b"\1bye")
        viewer.shutdown(socket.SHUT_WR)
        reply = read_reply(viewer)
        assert reply.rest + read_to_end(viewer) == GREETING + b"\1\1" + OK + b"heard \1bye"
    assert heard_end.wait(10)
    at_rest(proxy, server)


def test_the_end_of_a_tls_server_is_1000_behind_all_it_said(
    make: Make, context: ssl.SSLContext, stack: ExitStack
) -> None:
    payload = os.urandom(300_000)
    for marks in (None, SMALL):
        server = stack.enter_context(VencryptVnc(context, say_inside(OK + payload, ends=True)))
        with shake_hands(open_websocket(make(marks=marks), server)) as client:
            assert client.read_data(len(payload)) == payload
            assert client.read_close() == (1000, "The VNC server ended the session")


def test_a_tls_server_that_turns_to_nonsense_is_1011(make: Make, context: ssl.SSLContext, stack: ExitStack) -> None:
    def turn(sock: ssl.SSLSocket) -> None:
        sock.sendall(OK + b"sense")
        socket.socket.sendall(sock, b"\x17\x03\x03\x00\x20" + b"nonsense" * 4)
        while sock.recv(100):
            continue

    server = stack.enter_context(VencryptVnc(context, turn))
    with shake_hands(open_websocket(make(), server)) as client:
        assert client.read_data(5) == b"sense"
        assert client.read_close() == (1011, "The connection to the VNC server was lost")


def test_small_writes_go_out_at_once(make: Make, server: VencryptVnc) -> None:
    """O9: TLS stands on the socket that the options were set on."""
    proxy = make()
    with shake_hands(open_websocket(proxy, server)) as client:
        client.send(b"x")
        assert client.read_data(1) == b"x"
        with own_socket(peer=(server.host, server.port)) as leg:
            assert leg.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert leg.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

# SPDX-License-Identifier: Apache-2.0
"""Open consoles over TLS, with a context that the test made: bytes, slow viewers, what the port refuses.

Chains, names, options and reloads are in test_proxy_tls.py.
"""

import os
import ssl
import threading

import pytest
from websockets.exceptions import ConnectionClosed

from porthole_relay.pipe import Watermarks
from support.certificates import make_certificate
from support.proxy import InProcessProxy, assert_echoes, open_console
from support.vnc_servers import GREETING, SpeakingServer
from support.websocket import (
    BINARY,
    RawWebSocket,
    build_frame,
    build_upgrade,
    connect,
    read_reply,
    read_to_end,
)
from support.wss import WssClient


@pytest.fixture
def make(web_root, stack):
    return lambda **options: stack.enter_context(InProcessProxy(web_root, **options))


def test_tls_and_plain_on_one_port(make, echo, server_context, client_context):
    proxy = make(context=server_context)
    payload = os.urandom(3_000_000)
    with open_console(proxy, echo, context=client_context) as client, open_console(proxy, echo) as plain:
        assert client.send_and_read(payload) == payload
        assert_echoes(plain)


def test_a_real_websocket_peer_over_tls(make, echo, server_context, client_context):
    proxy = make(context=server_context, ssl_only=True)
    with WssClient(proxy.novnc_port, proxy.issue(echo, scheme="https"), client_context) as client:
        assert client.receive() == GREETING
        client.send(b"x" * 100_000)
        received = b""
        while len(received) < 100_000:
            received += client.receive()
        proxy.sessions.close_instance(next(iter(proxy.consoleauth.tokens.values())).instance_uuid)
        with pytest.raises(ConnectionClosed) as caught:
            client.receive()
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4401, "The console was revoked")


def test_frames_behind_the_upgrade_over_tls(make, echo, server_context, client_context):
    proxy = make(context=server_context)
    payload = os.urandom(100_000)
    with RawWebSocket(
        proxy.novnc_port,
        f"/?token={proxy.issue(echo)}",
        behind=build_frame(BINARY, payload[:16_000]) + build_frame(BINARY, payload[16_000:]),
        context=client_context,
    ) as client:
        assert client.read_data(len(GREETING) + len(payload)) == GREETING + payload


def test_a_slow_viewer_over_tls_gets_every_byte(make, stack, server_context, client_context):
    words = os.urandom(1 << 20) * 8
    server = stack.enter_context(SpeakingServer(words))
    proxy = make(context=server_context)
    with open_console(proxy, server, context=client_context) as client:
        received = bytearray()
        while len(received) < len(words):
            opcode, payload = client.read_frame()
            assert opcode == BINARY
            received += payload
        assert received == words
        assert client.read_close()[0] == 1000


@pytest.mark.parametrize("first", [build_upgrade("/"), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_ssl_only_refuses_plain_http(make, server_context, first):
    with connect(make(context=server_context, ssl_only=True).novnc_port) as sock:
        sock.sendall(first)
        assert read_reply(sock).status == 400
        assert read_to_end(sock) == b""


def test_tls_to_a_port_without_a_certificate_ends_at_once(make, client_context):
    with pytest.raises(ssl.SSLError):
        connect(make().novnc_port, client_context)


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_1_1_is_refused(make, certificate, server_context):
    """By the proxy, not by the client (S13)."""
    client = ssl.create_default_context(cafile=certificate.cert)
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
        connect(make(context=server_context).novnc_port, client)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.minimum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.load_cert_chain(certificate.cert, certificate.key)
    # The client is able to: it is the proxy that is not willing.
    with connect(make(context=old).novnc_port, client) as sock:
        assert sock.version() == "TLSv1.1"


def test_another_certificate_counts_from_the_next_connection_on(make, echo, tmp_path, server_context, client_context):
    proxy = make(context=server_context)
    made = make_certificate(tmp_path)
    renewed = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    renewed.load_cert_chain(made.cert, made.key)
    with open_console(proxy, echo, context=client_context) as client:
        proxy.server.set_tls_context(renewed)
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(proxy.novnc_port, client_context)
        with open_console(proxy, echo, context=ssl.create_default_context(cafile=made.cert)) as other:
            assert_echoes(other)
        assert_echoes(client)


def test_bytes_that_wait_within_tls_are_not_forgotten(make, echo, server_context, client_context):
    """A record holds more than a small high mark lets the proxy read at once, and epoll does not tell of the rest."""
    proxy = make(context=server_context, marks=Watermarks(high_bytes=4096, low_bytes=1024))
    payload = os.urandom(20_000)
    frame = build_frame(BINARY, payload)
    with open_console(proxy, echo, context=client_context) as client:
        both_are_there = threading.Event()
        proxy.loop.call_soon(lambda: both_are_there.wait(10))
        client.sock.sendall(frame[:4096])
        client.sock.sendall(frame[4096:])
        both_are_there.set()
        assert client.read_data(len(payload)) == payload

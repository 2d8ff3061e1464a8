# SPDX-License-Identifier: Apache-2.0
"""The listener of a port with a certificate: the first byte tells TLS from plain HTTP, and a thread shakes hands."""

import contextlib
import itertools
import logging
import ssl

import pytest

from porthole_novncproxy.front.request import MAX_HEADER_BYTES
from porthole_relay.loop import READ, WRITE
from porthole_relay.tls_socket import TlsSocket
from support.cases import naming
from support.certificates import make_certificate
from support.far_end import heard
from support.listener import HEAD, REQUEST, TIMEOUT_S, House, turned_away
from support.strangers import record_client_hello

pytestmark = pytest.mark.usefixtures("info_is_logged")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


def tls_house(certificate, ssl_only=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    return House(context, ssl_only)


def shake_hands(house, certificate, sock):
    client = ssl.create_default_context(cafile=certificate.cert).wrap_socket(
        sock, server_hostname="localhost", do_handshake_on_connect=False
    )
    house.sockets.append(client)
    for _ in range(20):
        try:
            client.do_handshake()
        except ssl.SSLWantReadError:
            house.turn()
        else:
            house.turn()
            return client
    raise AssertionError("the handshake does not end")


def test_a_socket_in_the_handshake_thread_is_closed_when_it_comes_back(certificate):
    """By the deadline, by a limit, or at the end of the listener: never under the thread's feet."""
    for end in ("time", "limit", "close"):
        with naming(end), contextlib.closing(tls_house(certificate)) as house:
            house.handshakes.is_slow = True
            connection, client = house.connect()
            client.send(record_client_hello())
            house.turn()
            assert connection.fd not in house.loop.callbacks
            if end == "time":
                house.loop.advance(TIMEOUT_S)
            elif end == "limit":
                assert house.waiting.end_oldest()
            else:
                house.listener.close()
            assert connection.sock.fileno() == connection.fd
            house.handshakes.make()
            assert connection.sock.fileno() == -1
            assert house.waiting.total == 0
            assert not house.loop.pending_timers


def test_tls_is_told_from_plain_by_its_first_byte(certificate):
    house = tls_house(certificate)
    plain, plain_client = house.connect()
    secure, sock = house.connect()
    client = shake_hands(house, certificate, sock)
    client.send(HEAD + b"rest")
    plain_client.send(HEAD)
    house.turn()
    assert dict(house.requests) == {plain: REQUEST, secure: REQUEST}
    assert isinstance(secure.sock, TlsSocket)
    assert not isinstance(plain.sock, TlsSocket)
    assert {pending.connection: pending.rest for pending in house.pending} == {plain: b"", secure: b"rest"}
    house.close()


def test_a_head_in_tls_records_of_one_byte_takes_many_turns(certificate):
    """And a client behind it does not wait for all of them."""
    house = tls_house(certificate)
    slow, sock = house.connect()
    client = shake_hands(house, certificate, sock)
    head = b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100 + b"\r\n\r\n"
    for byte in head:
        client.send(bytes([byte]))
    beside, plain = house.connect()
    plain.send(HEAD)
    house.turn()
    assert [pending.connection for pending in house.pending] == [beside, slow]
    house.close()


def test_ssl_only_refuses_plain_and_lets_silence_wait(certificate):
    house = tls_house(certificate, ssl_only=True)
    _connection, client = house.connect()
    house.turn()
    assert heard(client) == (b"", False)
    client.send(HEAD)
    house.turn()
    assert heard(client)[0].startswith(b"HTTP/1.1 400 ")
    assert house.requests == []
    house.close()


def test_broken_tls_is_dropped(certificate):
    house = tls_house(certificate)
    connection, client = house.connect()
    client.send(b"\x16\x03\x01\x00\x05hello")
    house.turn()
    assert connection.sock.fileno() == -1
    assert not house.loop.callbacks.keys() - {1000}
    house.close()


def test_a_client_that_is_gone_before_tls_is_forgotten(certificate, caplog):
    """It has reset the connection behind its first bytes."""
    house = tls_house(certificate)
    connection, client = house.connect()
    client.send(b"\x16\x03\x01")
    client.close()
    with caplog.at_level(logging.INFO):
        house.turn()
    assert connection.sock.fileno() == -1
    assert connection.fd not in house.loop.callbacks
    assert not house.loop.pending_timers
    assert "TLS handshake failed" in caplog.text
    house.close()


def test_half_a_tls_handshake_ends_at_the_deadline(certificate, caplog):
    """The same one (O7)."""
    house = tls_house(certificate)
    connection, client = house.connect()
    client.send(b"\x16\x03\x01")
    house.turn()
    house.loop.advance(TIMEOUT_S)
    assert connection.sock.fileno() == -1
    assert turned_away(caplog) == ["[novncproxy] request_timeout"]
    house.close()


def test_requests_that_wait_within_tls_are_seen(certificate):
    house = tls_house(certificate)
    connection, sock = house.connect()
    client = shake_hands(house, certificate, sock)
    long = HEAD[:-2] + b"X: " + b"y" * (MAX_HEADER_BYTES - len(HEAD) - 5) + b"\r\n\r\n"
    client.send(long[:100])
    house.turn()
    client.send(long[100:] + HEAD)
    house.turn()
    (pending,) = house.pending
    assert (pending.connection, len(pending.request.fields), pending.rest) == (connection, 2, b"")
    house.listener.receive(connection)
    house.loop.run_soon()
    assert [pending.request for pending in house.pending][1:] == [REQUEST]
    house.close()


def test_the_loop_waits_for_room_when_tls_has_to_write(certificate):
    house = tls_house(certificate)
    connection, _client = house.connect()

    class Full:
        def recv(self, *_arguments):
            raise ssl.SSLWantWriteError

    real, connection.sock = connection.sock, Full()
    house.loop.callbacks[connection.fd](READ)
    house.loop.run_soon()
    assert house.loop.masks[connection.fd] & WRITE
    connection.sock = real
    house.close()


def test_a_client_that_speaks_the_proxy_protocol_is_told_of_in_one_line(certificate, caplog):
    """Before TLS and before HTTP, in both versions."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    v1, v2 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\0" * 12
    for start, options in itertools.product(
        [v1, v2], [{}, {"context": context}, {"context": context, "ssl_only": True}]
    ):
        caplog.clear()
        with naming(start, options), contextlib.closing(House(**options)) as house:
            _connection, client = house.connect()
            client.send(start + HEAD)
            house.turn()
            assert heard(client)[0].startswith(b"HTTP/1.1 400 ")
            assert house.pending == []
            assert caplog.messages == ["PROXY protocol on an HTTP port client=192.0.2.7 door=novnc"]

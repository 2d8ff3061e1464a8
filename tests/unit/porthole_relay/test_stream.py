# SPDX-License-Identifier: Apache-2.0
import contextlib
import socket
import ssl

import pytest

from porthole_relay.stream import Stream
from porthole_relay.tls_socket import TlsSocket
from support.cases import naming
from support.certificates import make_certificate


@pytest.fixture
def pair():
    with connect() as pair:
        yield pair


@contextlib.contextmanager
def connect():
    """A plain stream, and its peer."""
    near, far = socket.socketpair()
    with near, far:
        yield Stream(near), far


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """A server's and a client's TLS context that trust each other."""
    made = make_certificate(tmp_path_factory.mktemp("tls"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.cert, made.key)
    client = ssl.create_default_context(cafile=made.cert)
    return server, client


@pytest.fixture
def tls_pair(contexts):
    with connect_tls(contexts) as pair:
        yield pair


@contextlib.contextmanager
def connect_tls(contexts):
    """A stream over TLS, and its peer."""
    near, far = socket.socketpair()
    server, client = contexts
    wrapped = TlsSocket(near, server, server_side=True)
    peer = client.wrap_socket(far, server_hostname="localhost", do_handshake_on_connect=False)
    wrapped.setblocking(False)
    peer.setblocking(False)
    waiting = [wrapped, peer]
    while waiting:
        for sock in list(waiting):
            try:
                sock.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(sock)
    with wrapped, peer:
        yield Stream(wrapped), peer


def read(stream, size=65536):
    buffer = bytearray(size)
    count = stream.read_into(memoryview(buffer))
    return None if count is None else bytes(buffer[:count])


def drain(peer):
    """Everything a non-blocking peer can read now."""
    got = b""
    while True:
        try:
            chunk = peer.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return got
        if not chunk:
            return got
        got += chunk


def test_a_stream_never_blocks(pair):
    stream, _far = pair
    assert read(stream) is None


def test_bytes_and_then_the_end(pair):
    stream, far = pair
    far.sendall(b"hello")
    far.shutdown(socket.SHUT_WR)
    assert read(stream, 3) == b"hel"
    assert read(stream) == b"lo"
    assert read(stream) == b""


def test_a_broken_connection_is_an_error_to_read_and_to_write(pair):
    stream, far = pair
    stream.write((b"unread",))
    far.close()
    with pytest.raises(OSError):
        stream.read_into(memoryview(bytearray(10)))
    with pytest.raises(OSError):
        stream.write((b"x",))


def test_parts_go_out_in_order():
    for parts in ((b"hello",), (b"he", b"llo"), (b"he", memoryview(b"l"), b"", memoryview(b"lo"))):
        with naming(parts), connect() as (stream, far):
            assert stream.write(parts) == 5
            assert far.recv(100) == b"hello"


def test_a_peer_that_does_not_read_takes_what_it_takes_and_no_more(pair):
    stream, far = pair
    head, payload = b"head", bytes(range(256)) * 8192
    sent = stream.write((head, memoryview(payload)))
    assert 0 < sent < len(head) + len(payload)
    assert stream.write((b"x",)) == 0
    far.setblocking(False)
    assert drain(far) == (head + payload)[:sent]


def test_the_end_is_told_and_reading_goes_on(pair):
    stream, far = pair
    stream.write_end()
    assert far.recv(100) == b""
    far.sendall(b"still here")
    assert read(stream) == b"still here"


def test_a_plain_stream_holds_nothing_that_epoll_does_not_know(pair):
    stream, far = pair
    far.sendall(b"x" * 1000)
    assert not stream.has_buffered()


def test_close_closes_the_descriptor(pair):
    stream, far = pair
    stream.close()
    assert stream.sock.fileno() == -1
    assert far.recv(100) == b""


def test_tls_says_not_now_too(tls_pair):
    stream, _peer = tls_pair
    assert stream.tls
    assert read(stream) is None


def test_tls_both_ways(tls_pair):
    stream, peer = tls_pair
    peer.send(b"up")
    assert read(stream) == b"up"
    assert stream.write((b"do", memoryview(b"wn"))) == 4
    assert drain(peer) == b"down"


def test_tls_tells_of_bytes_that_epoll_does_not_see(tls_pair):
    stream, peer = tls_pair
    peer.send(b"x" * 1000)
    assert read(stream, 100) == b"x" * 100
    assert stream.has_buffered()
    assert read(stream) == b"x" * 900
    assert not stream.has_buffered()


def test_tls_reads_all_the_records_that_are_there(tls_pair):
    stream, peer = tls_pair
    for number in range(6):
        assert peer.send(bytes([number]) * 16384) == 16384
    assert read(stream, 1 << 20) == b"".join(bytes([number]) * 16384 for number in range(6))
    assert read(stream) is None


def test_a_flood_of_records_of_one_byte_is_read_in_turns(tls_pair):
    """Each costs as much as a full one: all of them at once would hold up the other sessions."""
    stream, peer = tls_pair
    for _ in range(200):
        peer.send(b"x")
    buffer = memoryview(bytearray(4096))
    sizes = []
    while (size := stream.read_into(buffer)) is not None:
        sizes.append(size)
    assert sum(sizes) == 200
    assert max(sizes) <= 64


def test_the_end_behind_the_last_record_is_told_after_it(tls_pair):
    stream, peer = tls_pair
    peer.send(b"last")
    socket.socket(fileno=peer.detach()).close()
    assert read(stream) == b"last"
    assert stream.has_buffered()
    assert read(stream) == b""
    assert read(stream) == b""


def test_what_breaks_behind_the_last_record_is_told_after_it(tls_pair):
    stream, peer = tls_pair
    peer.send(b"last")
    socket.socket.send(peer, b"\x17\x03\x03\x00\x20" + b"nonsense" * 4)
    assert read(stream) == b"last"
    assert stream.has_buffered()
    for _ in range(2):
        with pytest.raises(OSError):
            read(stream)


def test_over_tls_the_end_is_told_and_reading_goes_on(tls_pair):
    stream, peer = tls_pair
    stream.write_end()
    peer.send(b"still here")
    assert read(stream) == b"still here"
    assert peer.recv(100) == b""


def test_tls_writes_every_part_once_and_in_order(contexts):
    for sizes in ((4, 100_000), (4, 10), (100_000, 4), (2000, 2000, 2000), (0, 5), (70_000,)):
        with naming(sizes), connect_tls(contexts) as (stream, peer):
            parts = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
            wanted = b"".join(parts)
            assert stream.write([memoryview(part) for part in parts]) == len(wanted)
            assert drain(peer) == wanted


def test_tls_goes_on_where_it_stopped_when_its_peer_did_not_read(tls_pair):
    stream, peer = tls_pair
    wanted = bytes(range(256)) * 16384
    left = memoryview(wanted)
    got = b""
    stops = 0
    parts = (left[:10], left[10:])
    while left:
        # OpenSSL wants to be offered again, in one piece, whatever it did not take.
        left = left[stream.write(parts) :]
        parts = (left,)
        if left:
            stops += 1
            got += drain(peer)
    got += drain(peer)
    assert got == wanted
    assert stops


def test_a_tls_peer_that_leaves_without_a_word_has_ended(tls_pair):
    stream, peer = tls_pair
    socket.socket(fileno=peer.detach()).close()
    assert read(stream) == b""


def test_a_tls_peer_that_says_goodbye_has_ended(tls_pair):
    stream, peer = tls_pair
    with pytest.raises(ssl.SSLWantReadError):
        peer.unwrap()
    assert read(stream) == b""

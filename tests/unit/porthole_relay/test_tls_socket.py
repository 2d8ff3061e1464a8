# SPDX-License-Identifier: Apache-2.0
import contextlib
import logging
import socket
import ssl
import threading

import pytest

from porthole_relay.stream import Stream
from porthole_relay.tls_socket import MAX_SILENT_RECORDS, TlsFlooded, TlsSocket
from support.certificates import make_certificate
from support.key_updates import KEY_UPDATE_BYTES, connect_writer

# A call of TlsSocket asks the kernel so often, and a KeyUpdate that is there takes one of them, the first one two.
RECORDS_PER_CALL = 8
FAST_S = 30


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    """A server's and a client's context that trust each other."""
    made = make_certificate(tmp_path_factory.mktemp("tls"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.cert, made.key)
    return server, ssl.create_default_context(cafile=made.cert)


@pytest.fixture
def flooded(contexts):
    """A server's socket that does not wait, its peer's without TLS, and the writer of the peer's records."""
    with contextlib.ExitStack() as stack:
        near, far = (stack.enter_context(sock) for sock in connect_tcp())
        far.settimeout(FAST_S)
        made = []
        client = threading.Thread(target=lambda: made.append(connect_writer(far)))
        client.start()
        near.settimeout(FAST_S)
        sock = stack.enter_context(TlsSocket(near, contexts[0], server_side=True))
        shake_hands(sock)
        client.join(FAST_S)
        bare, writer = made[0]
        stack.enter_context(bare)
        sock.setblocking(False)
        yield sock, bare, writer


def connect_tcp():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname(), FAST_S)
        return listening.accept()[0], far


def shake_hands(sock):
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            continue
        return


def peek(sock):
    """How many bytes the kernel has for the socket."""
    try:
        return len(socket.socket.recv(sock, 1 << 20, socket.MSG_PEEK))
    except BlockingIOError:
        return 0


def receive_often(sock, calls):
    for _ in range(calls):
        with contextlib.suppress(ssl.SSLWantReadError):
            sock.recv(100)


def ask_for_answers(peer, writer, sock):
    """With a byte behind each question."""
    for _ in range(1000):
        peer.sendall(b"".join(writer.build_key_update(asks=True) + writer.build_data(b"x") for _ in range(100)))
        receive_often(sock, 200)


def test_one_call_takes_few_key_updates_and_leaves_the_rest_with_the_kernel(flooded):
    """There epoll sees them, so that the others have their turn first."""
    sock, peer, writer = flooded
    peer.sendall(b"".join(writer.build_key_update() for _ in range(100)))
    before = peek(sock)
    for call in (lambda: sock.recv(100), lambda: sock.recv_into(bytearray(100)), sock.do_handshake):
        with contextlib.suppress(ssl.SSLWantReadError):
            call()
        left = peek(sock)
        assert before - left <= RECORDS_PER_CALL * KEY_UPDATE_BYTES
        before = left
    assert before > 50 * KEY_UPDATE_BYTES
    assert sock.pending() == 0


def test_payload_behind_key_updates_arrives(flooded):
    sock, peer, writer = flooded
    peer.sendall(b"".join(writer.build_key_update() for _ in range(20)) + writer.build_data(b"hello"))
    got, calls = b"", 0
    while not got:
        calls += 1
        with contextlib.suppress(ssl.SSLWantReadError):
            got = sock.recv(100)
    assert got == b"hello"
    assert calls >= 20 // RECORDS_PER_CALL


def test_a_peer_that_only_changes_its_keys_is_hung_up_on(flooded, caplog):
    sock, peer, writer = flooded
    peer.sendall(b"".join(writer.build_key_update() for _ in range(MAX_SILENT_RECORDS + 50)))
    with caplog.at_level(logging.INFO), pytest.raises(TlsFlooded):
        receive_often(sock, 2 * MAX_SILENT_RECORDS)
    assert peek(sock) > 0
    (line,) = caplog.messages
    assert line == 'TLS flood ended peer=127.0.0.1 reason="its records have no payload"'


def test_a_peer_that_changes_its_keys_with_each_byte_goes_on_in_turns(flooded):
    """A stream's read of many records ends after so many without payload too."""
    sock, peer, writer = flooded
    pairs = 4 * MAX_SILENT_RECORDS
    peer.sendall(b"".join(writer.build_key_update() + writer.build_data(b"x") for _ in range(pairs)))
    stream, buffer, sizes = Stream(sock), memoryview(bytearray(65536)), []
    while sum(sizes) < pairs:
        size = stream.read_into(buffer)
        if size is not None:
            assert size > 0
            sizes.append(size)
    assert max(sizes) <= 33


def test_answers_to_key_updates_that_nobody_takes_are_bounded(flooded):
    """The peer asks for more answers than the kernel holds for it, with a byte behind each."""
    sock, peer, writer = flooded
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with pytest.raises(TlsFlooded, match="answers"):
        ask_for_answers(peer, writer, sock)


def test_what_the_kernel_does_not_take_is_offered_again(contexts):
    """Nothing is reported as sent that still waits here."""
    near, far = connect_tcp()
    near.settimeout(FAST_S)
    far.settimeout(FAST_S)
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(
            contexts[1].wrap_socket(far, server_hostname="localhost", do_handshake_on_connect=False)
        )
        thread = threading.Thread(target=client.do_handshake)
        thread.start()
        sock = stack.enter_context(TlsSocket(near, contexts[0], server_side=True))
        shake_hands(sock)
        thread.join(FAST_S)
        assert sock.version() == client.version()
        assert sock.cipher() == client.cipher()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        wanted = bytes(range(256)) * 8000
        left = memoryview(wanted)
        with contextlib.suppress(ssl.SSLWantWriteError):
            while left:
                left = left[sock.send(left) :]
        assert left
        taken = len(wanted) - len(left)
        got = b""
        while len(got) < taken:
            got += client.recv(65536)
        while left:
            with contextlib.suppress(ssl.SSLWantWriteError):
                left = left[sock.send(left) :]
            if len(got) < len(wanted):
                got += client.recv(1 << 20)
        while len(got) < len(wanted):
            got += client.recv(1 << 20)
        assert got == wanted


def test_blocking_calls_return_after_each_piece_so_that_a_deadline_holds(flooded):
    """VeNCrypt has one for all of its reads."""
    sock, peer, writer = flooded
    sock.settimeout(FAST_S)
    peer.sendall(b"".join(writer.build_key_update() for _ in range(10)))
    before = peek(sock)
    with pytest.raises(ssl.SSLWantReadError):
        sock.recv(100)
    assert before - peek(sock) <= 5
    sock.settimeout(0.01)
    with pytest.raises(TimeoutError):
        receive_often(sock, 40)


def test_after_the_shutdown_bytes_are_not_decrypted(flooded):
    sock, peer, writer = flooded
    sock.shutdown(socket.SHUT_WR)
    record = writer.build_data(b"late")
    peer.sendall(record)
    assert sock.recv(100) == record
    assert (sock.pending(), sock.version(), sock.cipher()) == (0, None, None)
    with pytest.raises(ConnectionError):
        sock.do_handshake()

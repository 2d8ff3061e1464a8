# SPDX-License-Identifier: Apache-2.0
"""The reply to CONNECT, and the dial's own deadline. Servers of all kinds are met in the functional tests."""

import itertools
import resource
import socket
import time
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_common import errors
from porthole_common.deadline import Deadline
from porthole_common.model import Target
from porthole_novncproxy.admission.access import refusal_for
from porthole_novncproxy.admission.dial import MAX_REPLY_BYTES, _open_path, dial
from support.cases import naming

TARGET = Target("192.0.2.1", 5900)
OK = b"HTTP/1.1 200 OK\r\n\r\n"
GREETING = b"RFB 003.008\n"


class FakeSocket:
    """A socket whose peer sends ``chunks`` and then its end; each takes ``delay_s`` of the deadline."""

    def __init__(self, chunks):
        self.chunks = [bytes(chunk) for chunk in chunks if chunk]
        self.sent = b""
        self.timeouts = []
        self.received = 0

    def settimeout(self, timeout_s):
        self.timeouts.append(timeout_s)

    def sendall(self, data):
        self.sent += data

    def recv(self, size):
        assert size > 0
        if not self.chunks:
            return b""
        taken, rest = self.chunks[0][:size], self.chunks[0][size:]
        self.chunks[:1] = [rest] if rest else []
        self.received += len(taken)
        return taken


def open_path(chunks, path="/x", target=TARGET):
    sock = FakeSocket(chunks)
    return _open_path(sock, target, path, time.monotonic() + 60), sock


def test_what_stands_behind_the_blank_line_is_kept_wherever_it_is_cut():
    """Cut at every byte (C1)."""
    for reply in (OK, b"HTTP/1.0 200\r\n\r\n", b"HTTP/1.1 200 \xff\r\nServer: x\r\nY:\r\n\r\n"):
        stream = reply + GREETING
        for cut in range(len(stream) + 1):
            with naming(reply, cut):
                rest, sock = open_path([stream[:cut], stream[cut:]])
                assert rest + b"".join(sock.chunks) == GREETING


def test_byte_by_byte_nothing_behind_the_blank_line_is_read():
    stream = OK + GREETING
    rest, sock = open_path([stream[index : index + 1] for index in range(len(stream))])
    assert rest == b""
    assert b"".join(sock.chunks) == GREETING


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=5))
def test_any_payload_and_any_segments(payload, cuts):
    stream = OK + payload
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    rest, sock = open_path([stream[a:b] for a, b in itertools.pairwise(edges)])
    assert rest + b"".join(sock.chunks) == payload


@given(st.binary(max_size=200))
def test_noise_is_a_server_that_is_not_there(noise):
    with pytest.raises(errors.VncServerUnavailable):
        open_path([noise.replace(b"200", b"404")])


def test_what_is_not_200_is_a_server_that_is_not_there():
    cases = [
        b"HTTP/1.1 500 try 200\r\n\r\n",
        b"HTTP/1.1 201 Created\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b" HTTP/1.1 200 OK\r\n\r\n",
        b"X: y\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"\r\n\r\n",
        OK[:-1],
        OK[:-2],
        b"",
    ]
    for reply in cases:
        with naming(reply), pytest.raises(errors.VncServerUnavailable):
            open_path([reply])


def test_a_reply_of_more_than_the_cap_is_not_read_on():
    """4 KiB (C2)."""
    sock = FakeSocket([b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000])
    with pytest.raises(errors.VncServerUnavailable):
        _open_path(sock, TARGET, "/x", time.monotonic() + 60)
    assert sock.received == MAX_REPLY_BYTES


def test_the_deadline_is_one_for_all_reads():
    """Bytes that drip do not move it (C2)."""
    _rest, sock = open_path([bytes([byte]) for byte in OK])
    assert sock.timeouts == sorted(sock.timeouts, reverse=True)
    with pytest.raises(TimeoutError):
        _open_path(FakeSocket([OK]), TARGET, "/x", time.monotonic() - 1)


def test_the_request():
    for target, host in (
        (TARGET, b"192.0.2.1:5900"),
        (Target("2001:db8::1", 5901), b"[2001:db8::1]:5901"),
        (Target("h", 1), b"h:1"),
    ):
        with naming(target, host):
            _rest, sock = open_path([OK], "/console/1?a=b", target)
            assert sock.sent == b"CONNECT /console/1?a=b HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"


def test_a_path_that_is_none_is_never_sent():
    for path in ("", " ", "/a b", "/a\r\nX: y", "/a\n", "/\u00e9", "/a\0", "/a\x7f"):
        with naming(path):
            sock = FakeSocket([OK])
            with pytest.raises(errors.VncServerUnavailable):
                _open_path(sock, TARGET, path, time.monotonic() + 60)
            assert sock.sent == b""


def test_only_a_server_that_speaks_first_is_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = Target(*silent.getsockname()[:2])
        server = dial(target, None, 60, None, Deadline(), server_speaks_first=False)
        with server.sock:
            assert server.first_bytes == b""
        deadline = Deadline()
        with pytest.raises(errors.VncServerTimeout):
            dial(target, None, 0.05, None, deadline)
        assert isinstance(deadline.waits_for, errors.VncServerTimeout)


def test_a_dial_is_one_step_that_may_be_a_little_later_than_its_own_timeout():
    seen = []

    class Noting(Deadline):
        def step(self, timeout_s, late):
            seen.append(timeout_s)
            return super().step(timeout_s, late)

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(errors.VncServerUnavailable):
            dial(Target(*closed.getsockname()[:2]), None, 5, None, Noting())
    (timeout_s,) = seen
    assert 5 < timeout_s < 10


def test_descriptors_that_this_process_lacks_are_not_the_vnc_servers_fault():
    """Nor do they end in a message about it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as probe:
            lowest = probe.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(errors.DescriptorsExhausted) as caught:
                dial(Target(*server.getsockname()), None, 5.0, None, Deadline())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "LimitNOFILE" in str(caught.value)
    assert refusal_for(caught.value)[0] == HTTPStatus.SERVICE_UNAVAILABLE

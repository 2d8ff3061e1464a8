# SPDX-License-Identifier: Apache-2.0
"""The two ends of a relay, and the relays that Porthole is measured against; each in a process of its own.

The ends are as cheap as they can be: the VNC server writes one buffer again and again, the browser throws away what it
gets without looking at it (MSG_TRUNC, tcp(7)), so that what is measured is what lies between.
"""

import contextlib
import multiprocessing
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.queues import Queue
from pathlib import Path

from support.ports import free_port
from support.processes import wait_until

GREETING = b"RFB 003.008\n"
BUFFER_BYTES = 1 << 20
_SPAWN = multiprocessing.get_context("spawn")


class VncEnd:
    """A VNC server in a process: greets, and then does what the client's first byte says.

    ``F`` (flood): 8 bytes of length follow, and it writes that many; ``E`` (echo); ``S`` (sink): 8 bytes of length, and
    it answers one byte when it has read that many.
    """

    def __init__(self) -> None:
        port: Queue[int] = _SPAWN.Queue()
        self._process = _SPAWN.Process(target=_serve_vnc, args=(port,), daemon=True)
        self._process.start()
        self.port = port.get(timeout=60)

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join(60)


def _serve_vnc(ready: "Queue[int]") -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    ready.put(listener.getsockname()[1])
    # A thread only for who gives an order: most just come and go.
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    greeted: dict[int, socket.socket] = {}
    while True:
        for fd, _events in epoll.poll():
            if fd == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(OSError):
                    sock.sendall(GREETING)
                greeted[sock.fileno()] = sock
                epoll.register(sock.fileno(), select.EPOLLIN)
                continue
            epoll.unregister(fd)
            sock = greeted.pop(fd)
            if _has_order(sock):
                threading.Thread(target=_behave, args=(sock,), daemon=True).start()
            else:
                sock.close()


def _has_order(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def _behave(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError):
        order = sock.recv(1)
        if order == b"E":
            while data := sock.recv(65536):
                sock.sendall(data)
        elif order:
            left = int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "big")
            buffer = bytearray(BUFFER_BYTES)
            while left > 0:
                if order == b"F":
                    left -= sock.send(memoryview(buffer)[: min(left, BUFFER_BYTES)])
                else:
                    left -= sock.recv_into(buffer, min(left, BUFFER_BYTES), socket.MSG_TRUNC)
            sock.sendall(b"!") if order == b"S" else None
            sock.recv(1)


def frame(payload: bytes, mask: bytes = b"\1\2\3\4") -> bytes:
    """Return a masked binary frame (RFC 6455 section 5.2) whose payload arrives as ``payload``."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    repeated = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
    return b"\x82" + length + mask + masked


def upgrade(token: str) -> bytes:
    """Return the request for the console of ``token``; "" for none."""
    return (
        f"GET /?token={token} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Protocol: binary\r\n\r\n"
    ).encode()


def connect(
    port: int, token: str | None, context: ssl.SSLContext | None = None, source: str | None = None
) -> socket.socket:
    """Return a connection past the greeting: through an upgrade with ``token`` ("" for none), or plain."""
    sock = socket.create_connection(("127.0.0.1", port), 60, (source, 0) if source else None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        sock = context.wrap_socket(sock)
    if token is not None:
        sock.sendall(upgrade(token))
    received = b""
    while not received.endswith(GREETING):
        chunk = sock.recv(4096)
        assert chunk, received
        received += chunk
    return sock


@contextlib.contextmanager
def haproxy(directory: Path, target_port: int, cert: Path | None = None) -> Iterator[tuple[int, int]]:
    """haproxy in TCP mode with one thread, terminating TLS when there is a certificate; yields (pid, port)."""
    port = free_port()
    tls = f" ssl crt {cert}" if cert else ""
    conf = directory / "haproxy.cfg"
    conf.write_text(
        "global\n nbthread 1\n maxconn 4000\n"
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n"
        f"listen relay\n bind 127.0.0.1:{port}{tls}\n server vnc 127.0.0.1:{target_port}\n",
        encoding="ascii",
    )
    with _process(["haproxy", "-f", str(conf), "-q"], port) as pid:
        yield pid, port


@contextlib.contextmanager
def websockify(target_port: int) -> Iterator[tuple[int, int]]:
    """websockify as it comes; yields (pid, port)."""
    port = free_port()
    with _process([sys.executable, "-m", "websockify", f"127.0.0.1:{port}", f"127.0.0.1:{target_port}"], port) as pid:
        yield pid, port


@contextlib.contextmanager
def _process(argv: list[str], port: int) -> Iterator[int]:
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), 30, f"{argv[0]} to listen")
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            # websockify may wait for its children for ever.
            process.kill()
            process.wait(5)


def _listens(port: int) -> bool:
    rows = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "0A" for row in rows)


def sleep_until_quiet() -> None:
    """Let what was closed settle before the next measurement."""
    time.sleep(0.5)


class Pongs:
    """Answers the pings of many consoles, from one thread, as browsers do."""

    def __init__(self, socks: list[socket.socket]) -> None:
        self._epoll = select.epoll()
        self._socks = {sock.fileno(): sock for sock in socks}
        self._stopping = threading.Event()
        for fd in self._socks:
            self._epoll.register(fd, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(60)
        self._epoll.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for fd, _events in self._epoll.poll(0.2):
                if self._socks[fd].recv(4096) == b"\x89\x00":
                    self._socks[fd].sendall(b"\x8a\x80\0\0\0\0")
                else:
                    self._epoll.unregister(fd)

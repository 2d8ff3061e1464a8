# SPDX-License-Identifier: Apache-2.0
"""Small VNC servers on loopback, well-behaved and hostile, run in threads of the test.

Why not a real one: a test says here exactly which bytes come in which segments, who hangs up and how. Real ones are
in ``xvnc.py`` and ``libvirtd.py``.
"""

import array
import fcntl
import socket
import struct
import termios
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

GREETING = b"RFB 003.008\n"
_PATIENCE_S = 10.0


class VncServer:
    """Listens on ``host``; :meth:`serve` of a subclass gets each connection, in a thread of its own."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self._listener = socket.create_server((host, port), backlog=512)
        self.host, self.port = self._listener.getsockname()
        # Connections that were accepted, ever.
        self.accepted = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="vnc-accept", daemon=True)
        self._acceptor.start()

    def serve(self, sock: socket.socket) -> None:
        """Talk to one peer; the connection is closed afterwards."""
        raise NotImplementedError

    @property
    def open_connections(self) -> int:
        """Connections whose :meth:`serve` has not returned."""
        with self._lock:
            return len(self._open)

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _address = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                self._open.add(sock)
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                thread = threading.Thread(target=self._serve, args=(sock,), name="vnc-serve", daemon=True)
                self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.serve(sock)
        except OSError:
            # The peer went away, which is what many tests are about; they look at the other end.
            return
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def stop(self) -> None:
        """Hang up on everybody and release the port."""
        self.stopping.set()
        # This is what wakes a thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(_PATIENCE_S)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                _shut_down(sock)
        for thread in self._threads:
            thread.join(_PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class EchoVnc(VncServer):
    """Says the RFB greeting, then returns whatever it gets; with ``farewell`` it says so at the peer's end."""

    def __init__(
        self, greeting: bytes = GREETING, farewell: bytes = b"", port: int = 0, host: str = "127.0.0.1"
    ) -> None:
        self._greeting = greeting
        self._farewell = farewell
        super().__init__(port, host)

    def serve(self, sock: socket.socket) -> None:
        """Echo to the end."""
        sock.sendall(self._greeting)
        while data := sock.recv(65536):
            sock.sendall(data)
        if self._farewell:
            sock.sendall(self._farewell)


class SilentServer(VncServer):
    """Accepts and says nothing."""

    def serve(self, sock: socket.socket) -> None:
        """Wait for the peer's end."""
        while sock.recv(65536):
            continue


class ClosingServer(VncServer):
    """Says ``words`` and ends the connection; with ``resets`` it breaks it off instead."""

    def __init__(self, words: bytes = b"", resets: bool = False) -> None:
        self._words = words
        self._resets = resets
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        """Say the words and go."""
        if self._words:
            sock.sendall(self._words)
            _wait_until_acknowledged(sock)
        if self._resets:
            reset(sock)


class ResettingServer(ClosingServer):
    """Accepts, and resets the connection."""

    def __init__(self, words: bytes = b"") -> None:
        super().__init__(words, resets=True)


class SpeakingServer(VncServer):
    """Sends ``words`` after the greeting, ends its stream, and keeps all it hears in :attr:`heard`."""

    def __init__(self, words: bytes = b"") -> None:
        self._words = words
        self.heard = bytearray()
        self.heard_end = threading.Event()
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        """Speak, half-close, listen."""
        sock.sendall(GREETING + self._words)
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(65536):
            self.heard += data
        self.heard_end.set()


class FloodingServer(VncServer):
    """Sends without end; :attr:`sent_bytes` is what its kernel took."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        """Flood until the peer goes."""
        chunk = b"\xa5" * 65536
        sock.sendall(GREETING)
        while not self.stopping.is_set():
            self.sent_bytes += sock.send(chunk)


class DribblingServer(EchoVnc):
    """Sends its greeting, and then everything it gets, a byte in a segment."""

    def serve(self, sock: socket.socket) -> None:
        """Echo byte by byte."""
        send_in_segments(sock, [bytes([byte]) for byte in self._greeting])
        while data := sock.recv(65536):
            send_in_segments(sock, [bytes([byte]) for byte in data])


class ConnectReplyServer(VncServer):
    """Reads a CONNECT to its blank line, answers with ``segments``, and echoes; requests are in :attr:`requests`.

    ``pause_s`` goes by before each segment after the first. With ``ends`` it hangs up behind the last one.
    """

    def __init__(self, segments: Sequence[bytes], pause_s: float = 0.0, ends: bool = False) -> None:
        self._segments = list(segments)
        self._pause_s = pause_s
        self._ends = ends
        self.requests: list[bytes] = []
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        """Answer one CONNECT."""
        request = b""
        while b"\r\n\r\n" not in request:
            data = sock.recv(65536)
            if not data:
                return
            request += data
        head, blank, rest = request.partition(b"\r\n\r\n")
        self.requests.append(head + blank)
        send_in_segments(sock, self._segments, self._pause_s, self.stopping)
        if self._ends:
            return
        while data := rest or sock.recv(65536):
            sock.sendall(data)
            rest = b""


class IdleServer(VncServer):
    """Greets, and holds the connection without a thread: for crowds of consoles that nobody looks at."""

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _address = self._listener.accept()
                sock.sendall(GREETING)
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                self._open.add(sock)

    def stop(self) -> None:
        """Hang up on everybody, and release the port."""
        super().stop()
        for sock in self._open:
            sock.close()


class TrapServer(VncServer):
    """Where nobody may come: a test asserts that :attr:`accepted` is 0."""

    def serve(self, sock: socket.socket) -> None:
        """Greet, as a VNC server that was reached would."""
        sock.sendall(GREETING)


class BlackHole:
    """An address on loopback where connecting never comes to an end: the queue of its listener is full."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.host, self.port = self._listener.getsockname()
        self._fillers: list[socket.socket] = []
        while not self._fillers or self._is_connected(self._fillers[-1]):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((self.host, self.port))
            self._fillers.append(filler)
            assert len(self._fillers) < 100, "the queue of a listener never fills up"

    @staticmethod
    def _is_connected(sock: socket.socket) -> bool:
        try:
            sock.getpeername()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Release the address."""
        for sock in (*self._fillers, self._listener):
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def greets(host: str, port: int) -> bool:
    """Say whether something there begins as a VNC server does."""
    try:
        with socket.create_connection((host, port), timeout=2) as sock:
            return sock.recv(12).startswith(b"RFB ")
    except OSError:
        return False


def send_in_segments(
    sock: socket.socket, segments: Sequence[bytes], pause_s: float = 0.0, stopping: threading.Event | None = None
) -> None:
    """Send each segment when the peer's kernel has the one before, so that none are put together."""
    for number, segment in enumerate(segments):
        if number and pause_s and (stopping or threading.Event()).wait(pause_s):
            return
        sock.sendall(segment)
        _wait_until_acknowledged(sock)


def reset(sock: socket.socket) -> None:
    """Break a connection off with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _wait_until_acknowledged(sock: socket.socket) -> None:
    unsent = array.array("i", [0])
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, unsent)
        if not unsent[0] or time.monotonic() > deadline:
            return
        time.sleep(0.0002)


def _shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It went by itself.
        return

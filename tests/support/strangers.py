# SPDX-License-Identifier: Apache-2.0
"""Attackers with one address, as a program: ``python -m support.strangers ATTACK PORT ADDRESS...``.

Why a program: an attack from within the test's process would take its interpreter from the clients that the test
measures. It runs until it is ended, and knows nothing that a stranger does not know.
"""

import contextlib
import select
import socket
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from support.key_updates import RecordWriter, connect_writer
from support.processes import Process

HELLOS_PER_S = 200
SILENT = 700
GUESSERS = 400
_TURN_S = 0.02
_CHANGES = 100
# A frame of RFC 6455 with mask and without payload.
_EMPTY_PONG = b"\x8a\x80\0\0\0\0"
# More than every deadline of the proxy for half a request.
_OLD_S = 30.0
_NOT_NOW = (BlockingIOError, InterruptedError)


def start_strangers(
    directory: Path, attack: str, port: int, address: str = "127.0.0.1", token: str | None = None
) -> Process:
    """Start the attack ``hellos``, ``silence``, ``guesses``, ``viewers`` or ``keys`` on ``port``, from ``address``.

    ``token``: that of a console, in which ``keys`` attacks.
    """
    argv = [sys.executable, "-m", "support.strangers", attack, str(port), address, *([token] if token else [])]
    paths = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    process = Process(argv, directory / f"{attack}.log", paths, name=f"strangers: {attack}")
    process.start()
    process.wait_for_line("attacking")
    return process


def record_client_hello() -> bytes:
    """Return the first flight of a TLS client, as anybody can record and replay it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


class _Crowd:
    """Connections of one attacker: at most ``size``, each with what it sends first."""

    def __init__(self, port: int, address: str, size: int, words: Callable[[], bytes]) -> None:
        self._port, self._address, self._size, self._words = port, address, size, words
        self._open: dict[int, tuple[socket.socket, float]] = {}
        self._poll = select.epoll()

    def grow(self, count: int) -> None:
        """Open up to ``count`` more, each in one try."""
        for _ in range(min(count, self._size - len(self._open))):
            sock = socket.socket()
            sock.bind((self._address, 0))
            try:
                sock.settimeout(1.0)
                sock.connect(("127.0.0.1", self._port))
                sock.sendall(self._words())
            except OSError:
                sock.close()
                return
            sock.setblocking(False)
            self._open[sock.fileno()] = sock, time.monotonic()
            self._poll.register(sock.fileno(), select.EPOLLIN)

    def wait(self, seconds: float) -> None:
        """Let go of the connections that the proxy has ended or answered, for that long."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            for fd, _events in self._poll.poll(left_s):
                self._read(fd)

    def _read(self, fd: int) -> None:
        sock, begun_at = self._open[fd]
        try:
            data = sock.recv(65536)
        except _NOT_NOW:
            return
        except OSError:
            data = b""
        # A server's flight is passed over; an answer to a request ends the connection.
        if not data or data.startswith(b"HTTP/") or time.monotonic() - begun_at > _OLD_S:
            del self._open[fd]
            sock.close()


def _guess() -> bytes:
    return _ask(str(uuid.uuid4()))


def _ask(token: str) -> bytes:
    return (
        f"GET /?token={token} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def _guess_as_viewer() -> bytes:
    return f"CONNECT /console?token={uuid.uuid4()} HTTP/1.0\r\n\r\n".encode()


def _change_keys(port: int, address: str, token: str | None) -> None:
    """Change the keys of TLS without end; in a console, with a frame between any two, which is no flood by itself.

    When the proxy hangs up, come again.
    """
    print("attacking", flush=True)
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 10, (address, 0)) as plain:
            sock, writer = connect_writer(plain)
            with sock:
                if token:
                    sock.sendall(writer.build_data(_ask(token)))
                    time.sleep(1.0)
                while True:
                    sock.sendall(b"".join(_build_changes(writer, bool(token))))


def _build_changes(writer: RecordWriter, with_frames: bool) -> Iterator[bytes]:
    for _ in range(_CHANGES):
        yield writer.build_key_update()
        if with_frames:
            yield writer.build_data(_EMPTY_PONG)


def main(arguments: Sequence[str]) -> None:
    """Attack until the process is ended."""
    attack, port, address = arguments[0], int(arguments[1]), arguments[2]
    if attack == "keys":
        _change_keys(port, address, arguments[3] if len(arguments) > 3 else None)
    hello = record_client_hello()
    per_turn, size, words = {
        "hellos": (HELLOS_PER_S * _TURN_S, 4000, lambda: hello),
        "silence": (SILENT, SILENT, lambda: b""),
        "guesses": (GUESSERS, GUESSERS, _guess),
        "viewers": (GUESSERS, GUESSERS, _guess_as_viewer),
    }[attack]
    crowd = _Crowd(port, address, size, words)
    print("attacking", flush=True)
    while True:
        crowd.grow(int(per_turn))
        crowd.wait(_TURN_S)


if __name__ == "__main__":
    main(sys.argv[1:])

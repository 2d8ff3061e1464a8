# SPDX-License-Identifier: Apache-2.0
"""A listener on a fake loop, its clients on socket pairs, and what the log says of those that it turned away."""

import select
import socket
import ssl
from typing import cast

import pytest

from porthole_novncproxy.doors import NOVNC, Door
from porthole_novncproxy.front.connection import Connection, PendingRequest
from porthole_novncproxy.front.listener import Listener
from porthole_novncproxy.front.request import MAX_HEADER_BYTES, Request, RequestParser
from porthole_novncproxy.front.sender import Sender
from porthole_novncproxy.front.tls_handshakes import HandshakeThread, Step
from porthole_novncproxy.front.waiting import Waiting, WaitingLimits
from porthole_relay.loop import READ, Loop
from support.fake_loop import FakeLoop

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
REQUEST = RequestParser().feed(HEAD)
TIMEOUT_S = 10.0


class FakeListeningSocket:
    """A listening socket that hands out what a test put into ``waiting``: sockets, or errors to raise."""

    def __init__(self) -> None:
        self.waiting: list[socket.socket | OSError] = []
        self.closed = False

    def setblocking(self, _flag: bool) -> None:
        return

    def fileno(self) -> int:
        return 1000

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        if not self.waiting:
            raise BlockingIOError
        found = self.waiting.pop(0)
        if isinstance(found, OSError):
            raise found
        return found, ("192.0.2.7", 4711)

    def close(self) -> None:
        self.closed = True


class Handshakes:
    """Makes each step at once; with ``is_slow`` only when the test says so, as if the thread were at it."""

    def __init__(self) -> None:
        self.is_slow = False
        self.steps: list[Step] = []

    def start(self, step: Step) -> None:
        self.steps.append(step)
        if not self.is_slow:
            self.make()

    def make(self) -> None:
        step = self.steps.pop(0)
        try:
            step.sock.do_handshake()
        except OSError as exc:
            step.on_done(exc)
        else:
            step.on_done(None)

    def withdraw(self, step: Step) -> bool:
        return False


class House:
    """A listener on a fake loop, and clients on socket pairs."""

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        ssl_only: bool = False,
        max_header_bytes: int = MAX_HEADER_BYTES,
        door: Door = NOVNC,
        limits: WaitingLimits | None = None,
    ) -> None:
        self.loop = FakeLoop()
        self.pending: list[PendingRequest] = []
        self.door = door
        self.waiting = Waiting(limits or WaitingLimits(1000, 1000), lambda _address: False)
        self.handshakes = Handshakes()
        self.sender = Sender(cast(Loop, self.loop), self.waiting)
        self.listener = Listener(
            loop=cast(Loop, self.loop),
            sender=self.sender,
            waiting=self.waiting,
            handshakes=cast(HandshakeThread, self.handshakes),
            tls_context=context,
            ssl_only=ssl_only,
            timeout_s=TIMEOUT_S,
            on_request=self.pending.append,
            max_header_bytes=max_header_bytes,
        )
        self.listening = FakeListeningSocket()
        self.listener.listen(cast(socket.socket, self.listening), door)
        self.loop.run_soon()
        self.sockets: list[socket.socket] = []

    @property
    def requests(self) -> list[tuple[Connection, Request]]:
        return [(pending.connection, pending.request) for pending in self.pending]

    def connect(self, address: str = "192.0.2.7") -> tuple[Connection, socket.socket]:
        """A client's end of a connection that waits for its first request."""
        near, far = socket.socketpair()
        far.setblocking(False)
        self.sockets += [near, far]
        connection = Connection(near, address, self.door, near.fileno())
        self.waiting.enter(connection)
        self.listener.receive(connection, is_new=True)
        return connection, far

    def turn(self) -> None:
        """Tell of every connection that can be read, as long as there are some."""
        for _ in range(1000):
            ready = [fd for fd, mask in self.loop.masks.items() if fd < 1000 and mask & READ and self.readable(fd)]
            if not ready:
                return
            for fd in ready:
                if fd in self.loop.callbacks:
                    self.loop.callbacks[fd](READ)
            self.loop.run_soon()
        raise AssertionError("the listener spins")

    @staticmethod
    def readable(fd: int) -> bool:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        for pending in self.pending:
            pending.connection.sock.close()
        for sock in self.sockets:
            sock.close()


def turned_away(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The limits that the log names, one for each client that met it."""
    lines = [line.partition(" limit=")[2] for line in caplog.messages if line.startswith("Client turned away client=")]
    return [limit.strip('"') for limit in lines]

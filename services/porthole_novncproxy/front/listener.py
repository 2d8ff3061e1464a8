# SPDX-License-Identifier: Apache-2.0
"""Connections around their requests: accept, TLS, the request's head, and a page as answer, without a thread held.

Why: threads are few, and a client may connect and say nothing (browsers do, slowloris does), or not take its page.
Here such a client costs one descriptor until its deadline; a thread meets only whole requests, and waits for nobody to
take an answer. A connection is *new* (not a byte yet), *shaking hands* (TLS), *asking* (part of a head), then handed
on; it may come back to be *answered*, and then it is asking again or at its end.
Called by :mod:`porthole_novncproxy.server`; runs in the loop's thread.
"""

import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import BinaryIO

from porthole_common.log import get_logger
from porthole_common.thread_pool import Job
from porthole_novncproxy.admission.dial import set_socket_options
from porthole_relay.loop import READ, WRITE, Loop, Timer

LOG = get_logger(__name__)
# Larger than any browser's request; what is more is not read.
MAX_HEAD_BYTES = 16384
_ACCEPTS_PER_TURN = 64
_ACCEPT_PAUSE_S = 0.5
# How much of a page is sent at once, how long a client may take to take all of it, and how many clients may be at it.
_SEND_BYTES = 65536
_SEND_TIMEOUT_S = 30.0
MAX_ANSWERS = 256
# How long a client that was answered for the last time may take to see it.
_LINGER_S = 2.0
_DISCARD_BYTES = 65536
_END_OF_HEAD = b"\r\n\r\n"
# TLS records begin with their content type, handshake (RFC 8446 section 5.1).
_TLS_HANDSHAKE = 0x16


class Overtaken(Exception):
    """The request has been answered, since it took too long; whoever was at it has to leave the connection alone."""


@dataclass(eq=False)
class Connection:
    """One client connection. ``received`` holds what was read and not yet used; ``address`` is (host, port).

    ``source``: the client's own address, where a request has said more than ``address``. ``job``: what its request is
    answered in, where others may answer before.
    """

    sock: socket.socket
    address: tuple[str, int]
    door: str
    fd: int
    received: bytearray = field(default_factory=bytearray)
    timer: Timer | None = None
    served: int = 0
    source: str = ""
    job: Job | None = None

    def claim(self) -> None:
        """Take the right to answer its request, before a byte is written; again and again is the same.

        :raises Overtaken: when somebody else has.
        """
        if self.job is not None and not self.job.settle():
            raise Overtaken
        self.job = None

    @property
    def is_new(self) -> bool:
        """Say whether not a byte of it has been read."""
        return not (self.is_tls or self.received or self.served)

    @property
    def is_tls(self) -> bool:
        """Say whether TLS stands on it."""
        return isinstance(self.sock, ssl.SSLSocket)


class Answer:
    """What a client is still to be sent: ``start``, and then what ``file`` has, which is closed at the end."""

    def __init__(self, start: bytes, file: BinaryIO | None) -> None:
        self._left = memoryview(start)
        self._file = file

    def send(self, sock: socket.socket) -> bool:
        """Send once, and return whether that was the end of it.

        :raises OSError: when the socket takes nothing now, or never again.
        """
        if not self._left and self._file is not None:
            self._left = memoryview(self._file.read(_SEND_BYTES))
        if self._left:
            self._left = self._left[sock.send(self._left[:_SEND_BYTES]) :]
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class Doorway:
    """Turns listening sockets into requests. Methods are called from any thread unless they say otherwise."""

    def __init__(
        self,
        loop: Loop,
        context: ssl.SSLContext | None,
        ssl_only: bool,
        timeout_s: float,
        on_request: Callable[[Connection, bytes], None],
        max_head_bytes: int = MAX_HEAD_BYTES,
    ) -> None:
        """``on_request`` gets a connection and a head with its blank line, from the loop's thread: it must not wait."""
        self._loop = loop
        self.context = context
        self._ssl_only = ssl_only
        self._timeout_s = timeout_s
        self._on_request = on_request
        self._max_head_bytes = max_head_bytes
        self._listeners: dict[socket.socket, str] = {}
        self._waiting: dict[int, Connection] = {}
        # By descriptor, the one that has been at it longest first.
        self._answers: dict[int, tuple[Connection, Answer]] = {}
        self._all_answered = threading.Event()

    def listen(self, listener: socket.socket, door: str) -> None:
        """Accept from ``listener``; its connections bear the name ``door``."""
        listener.setblocking(False)
        self._listeners[listener] = door
        self._loop.call_soon(lambda: self._resume(listener))

    def close(self) -> None:
        """Stop listening, and close every connection that is not a request yet. In the loop's thread."""
        for listener in self._listeners:
            self._loop.unregister(listener.fileno())
            listener.close()
        self._listeners.clear()
        for connection in list(self._waiting.values()):
            self._drop(connection)

    def await_request(self, connection: Connection) -> None:
        """Wait for the next request of a connection whose last one was answered (RFC 9112 section 9.3)."""
        self._loop.call_soon(lambda: self._await_request(connection))

    def hang_up(self, connection: Connection) -> None:
        """Close a connection whose last request was answered, so that the answer arrives."""
        self._loop.call_soon(lambda: self._linger(connection))

    def answer(self, connection: Connection, answer: Answer, is_last: bool) -> None:
        """Send ``answer`` as fast as the client takes it; then wait for its next request, unless this ``is_last``.

        Of more than :data:`MAX_ANSWERS` that are under way, the client that has been at its own longest is given up.
        """
        self._loop.call_soon(lambda: self._begin_answer(connection, answer, is_last))

    def wait_answered(self, timeout_s: float) -> bool:
        """Wait until every answer has been taken, for ``timeout_s`` at most; return whether that is so."""
        self._all_answered.clear()
        # Behind those that are given to the loop already.
        self._loop.call_soon(self._note_if_all_answered)
        return self._all_answered.wait(timeout_s)

    def refuse(self, connection: Connection, status: HTTPStatus, *headers: str) -> None:
        """Answer ``status`` without a body, and hang up. In the loop's thread."""
        lines = (f"HTTP/1.1 {int(status)} {status.phrase}", *headers, "Content-Length: 0", "Connection: close", "", "")
        try:
            connection.sock.send("\r\n".join(lines).encode("ascii"))
        except OSError as exc:
            LOG.debug("Client did not wait for its refusal", client=connection.address[0], error=type(exc).__name__)
        self._forget(connection)
        self._linger(connection)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.register(listener.fileno(), READ, lambda _events: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as exc:
                # Out of descriptors: those in use go on; the queue waits a little instead of spinning here.
                LOG.error("Connections cannot be accepted for now", door=self._listeners[listener], reason=exc.strerror)
                self._loop.unregister(listener.fileno())
                self._loop.call_later(_ACCEPT_PAUSE_S, lambda: self._resume(listener))
                return
            set_socket_options(sock)
            self._await_request(Connection(sock, (address[0], address[1]), self._listeners[listener], sock.fileno()))

    def _await_request(self, connection: Connection) -> None:
        if not self._listeners:
            connection.sock.close()
            return
        connection.sock.setblocking(False)
        connection.timer = self._loop.call_later(self._timeout_s, lambda: self._time_out(connection))
        self._waiting[connection.fd] = connection
        self._loop.register(connection.fd, READ, lambda _events: self._on_ready(connection))
        if connection.served:
            # Its next request may be here already, in ``received`` or within TLS, where epoll does not see it.
            self._on_ready(connection)

    def _on_ready(self, connection: Connection) -> None:
        try:
            if connection.is_new and not self._begin(connection):
                return
            self._read_head(connection)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._loop.modify(connection.fd, READ)
        except ssl.SSLWantWriteError:
            self._loop.modify(connection.fd, READ | WRITE)
        except ssl.SSLError as exc:
            LOG.info("TLS handshake failed", client=connection.address[0], door=connection.door, reason=exc.reason)
            self._drop(connection)
        except OSError:
            self._drop(connection)

    def _begin(self, connection: Connection) -> bool:
        """Look at the first byte: TLS or not? Return False when the connection was refused."""
        first = connection.sock.recv(1, socket.MSG_PEEK)
        is_tls = bool(first) and first[0] == _TLS_HANDSHAKE
        if is_tls and self.context is not None:
            connection.sock = self._wrap(connection, self.context)
        elif is_tls or (self._ssl_only and first):
            speaks = "TLS" if is_tls else "plain HTTP"
            LOG.info("Client speaks what its port does not", client=connection.address[0], speaks=speaks)
            self.refuse(connection, HTTPStatus.BAD_REQUEST)
            return False
        return True

    def _wrap(self, connection: Connection, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Return the socket with TLS on it; the descriptor moves there, with its number.

        :raises OSError: when the client is gone; the descriptor is closed.
        """
        try:
            return context.wrap_socket(connection.sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            self._loop.forget(connection.fd)
            raise

    def _read_head(self, connection: Connection) -> None:
        if isinstance(connection.sock, ssl.SSLSocket) and not connection.sock.version():
            connection.sock.do_handshake()
        while _END_OF_HEAD not in connection.received:
            if len(connection.received) >= self._max_head_bytes:
                _log_limit(connection, "max_header_bytes")
                self.refuse(connection, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
            chunk = connection.sock.recv(self._max_head_bytes - len(connection.received))
            if not chunk:
                self._drop(connection)
                return
            connection.received += chunk
        size = connection.received.index(_END_OF_HEAD) + len(_END_OF_HEAD)
        head = bytes(connection.received[:size])
        del connection.received[:size]
        connection.served += 1
        self._forget(connection)
        self._on_request(connection, head)

    def _note_if_all_answered(self) -> None:
        if not self._answers:
            self._all_answered.set()

    def _begin_answer(self, connection: Connection, answer: Answer, is_last: bool) -> None:
        if len(self._answers) >= MAX_ANSWERS:
            slowest, _answer = next(iter(self._answers.values()))
            self._give_answer_up(slowest)
        connection.sock.setblocking(False)
        connection.timer = self._loop.call_later(_SEND_TIMEOUT_S, lambda: self._give_answer_up(connection))
        self._answers[connection.fd] = (connection, answer)
        self._loop.register(connection.fd, WRITE, lambda _events: self._send_answer(connection, answer, is_last))

    def _send_answer(self, connection: Connection, answer: Answer, is_last: bool) -> None:
        """Send what the client takes now, and no more than a piece: others have their turn in between."""
        try:
            is_sent = answer.send(connection.sock)
        except (BlockingIOError, ssl.SSLWantWriteError):
            is_sent = False
        except ssl.SSLWantReadError:
            self._loop.modify(connection.fd, READ)
            return
        except OSError as exc:
            LOG.debug("Client went away", client=connection.address[0], error=type(exc).__name__)
            self._drop(connection)
            return
        if not is_sent:
            self._loop.modify(connection.fd, WRITE)
            return
        self._forget(connection)
        if is_last:
            self._linger(connection)
        else:
            self._await_request(connection)

    def _give_answer_up(self, connection: Connection) -> None:
        LOG.info("Client did not take its answer", client=connection.address[0], door=connection.door)
        self._drop(connection)

    def _time_out(self, connection: Connection) -> None:
        """408 for half a request; a connection that said nothing is just closed, as browsers expect of spare ones."""
        if connection.received:
            _log_limit(connection, "request_timeout")
            self.refuse(connection, HTTPStatus.REQUEST_TIMEOUT)
            return
        if isinstance(connection.sock, ssl.SSLSocket) and not connection.sock.version():
            _log_limit(connection, "request_timeout")
        else:
            LOG.debug("Client said nothing", client=connection.address[0], door=connection.door)
        self._drop(connection)

    def _linger(self, connection: Connection) -> None:
        """End our stream and pass over what still comes, until the client ends its own (RFC 9112 section 9.6).

        Unread input would turn the close into a reset, which takes the answer with it.
        """
        try:
            connection.sock.setblocking(False)
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            LOG.debug("Client was gone first", client=connection.address[0], error=type(exc).__name__)
            connection.sock.close()
            return
        if not self._listeners:
            self._discard(connection)
            connection.sock.close()
            return
        connection.timer = self._loop.call_later(_LINGER_S, lambda: self._drop(connection))
        self._waiting[connection.fd] = connection
        self._loop.register(connection.fd, READ, lambda _events: self._discard(connection))

    def _discard(self, connection: Connection) -> None:
        try:
            if connection.sock.recv(_DISCARD_BYTES):
                return
        except BlockingIOError:
            return
        except OSError as exc:
            LOG.debug("Client broke the connection off", client=connection.address[0], error=type(exc).__name__)
        self._drop(connection)

    def _forget(self, connection: Connection) -> None:
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None
        self._waiting.pop(connection.fd, None)
        self._loop.unregister(connection.fd)
        if connection.fd in self._answers:
            _connection, answer = self._answers.pop(connection.fd)
            answer.close()
            self._note_if_all_answered()

    def _drop(self, connection: Connection) -> None:
        self._forget(connection)
        connection.sock.close()


def _log_limit(connection: Connection, option: str) -> None:
    LOG.info("Client turned away", client=connection.address[0], door=connection.door, limit=f"[novncproxy] {option}")

# SPDX-License-Identifier: Apache-2.0
"""Connections until their request is whole: accept, TLS, and the head of a request, without a thread held.

Why: threads are few, and a client may connect and say nothing (browsers do, slowloris does). Here such a client costs
one descriptor until its deadline. Threads receive only complete requests.
Called by :mod:`porthole_novncproxy.server`; runs in the loop's thread.
"""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from porthole_common.allowance import find_site
from porthole_common.forwarded import normalize_address
from porthole_common.log import get_logger
from porthole_novncproxy.admission.descriptors import OUT_OF_DESCRIPTORS
from porthole_novncproxy.admission.dial import set_socket_options
from porthole_novncproxy.doors import Door
from porthole_novncproxy.front.connection import Connection, PendingRequest, count_refused
from porthole_novncproxy.front.request import (
    MAX_HEADER_BYTES,
    HeadTooLarge,
    ProxyProtocolSpoken,
    RequestMalformed,
    RequestParser,
    speaks_proxy_protocol,
)
from porthole_novncproxy.front.responses import Response, build_bare, build_error
from porthole_novncproxy.front.sender import Sender, open_outgoing
from porthole_novncproxy.front.tls_handshakes import HandshakeThread, Step
from porthole_novncproxy.front.turns import Turns
from porthole_novncproxy.front.waiting import Waiting
from porthole_relay.loop import READ, WRITE, Loop, Timer
from porthole_relay.tls_socket import TlsSocket

LOG = get_logger(__name__)
# Few, so that a flood of connections leaves the loop to open consoles after each of its turns.
_ACCEPTS_PER_TURN = 8
_CLIENTS_PER_TURN = 8
# A read of TLS returns one record, and a record may have one byte: a head could take ten thousand reads.
_READS_PER_TURN = 16
_ACCEPT_PAUSE_S = 0.5
# TLS records begin with their content type, handshake (RFC 8446 section 5.1).
_TLS_HANDSHAKE = 0x16
# Enough bytes to tell TLS, HTTP and the PROXY protocol apart.
_PEEK_BYTES = 16


@dataclass(eq=False, slots=True)
class Receiving:
    """A connection whose next request is awaited until ``timer``.

    ``is_new``: no byte has been looked at. ``is_secured``: no TLS handshake is under way. ``step``: the socket is the
    handshake thread's until it is made. ``received``: bytes that are not parsed yet. ``is_queued``: its turn is to
    come. ``is_dropped``: the socket is closed once the thread has given it back.
    """

    connection: Connection
    parser: RequestParser
    timer: Timer
    is_new: bool
    is_secured: bool = True
    step: Step | None = None
    received: bytes = b""
    is_queued: bool = False
    is_dropped: bool = False


class Listener:
    """Turns listening sockets into pending requests, in the loop's thread."""

    def __init__(
        self,
        loop: Loop,
        sender: Sender,
        waiting: Waiting,
        handshakes: HandshakeThread,
        tls_context: ssl.SSLContext | None,
        ssl_only: bool,
        timeout_s: float,
        on_request: Callable[[PendingRequest], None],
        max_header_bytes: int = MAX_HEADER_BYTES,
    ) -> None:
        """``on_request`` owns each pending request from then on, and must not wait.

        ``timeout_s`` is the time for a whole request, TLS included.
        """
        self._loop = loop
        self._sender = sender
        self._waiting = waiting
        self._handshakes = handshakes
        self.tls_context = tls_context
        self._ssl_only = ssl_only
        self._timeout_s = timeout_s
        self._on_request = on_request
        self._max_header_bytes = max_header_bytes
        self._sockets: dict[socket.socket, Door] = {}
        self._receiving: dict[int, Receiving] = {}
        self._turns: Turns[Receiving] = Turns()
        self._is_serving = False

    def listen(self, sock: socket.socket, door: Door) -> None:
        """Accept clients of ``door`` from the listening socket ``sock``. From any thread."""
        sock.setblocking(False)
        self._sockets[sock] = door
        self._loop.call_soon(lambda: self._resume(sock))

    def close(self) -> None:
        """Stop listening, and close every connection that has no whole request."""
        for sock in self._sockets:
            self._loop.unregister(sock.fileno())
            sock.close()
        self._sockets.clear()
        for receiving in list(self._receiving.values()):
            self._drop(receiving)

    def receive(self, connection: Connection, received: bytes = b"", is_new: bool = False) -> None:
        """Await a request of ``connection``, of which ``received`` is here already (RFC 9112 section 9.3)."""
        if not self._sockets:
            self._waiting.leave(connection)
            connection.sock.close()
            return
        connection.sock.setblocking(False)
        receiving = Receiving(
            connection,
            RequestParser(self._max_header_bytes),
            self._loop.call_later(self._timeout_s, lambda: self._time_out(receiving)),
            is_new,
            received=received,
        )
        self._receiving[connection.fd] = receiving
        self._waiting.set_idle(connection, lambda: self._drop(receiving))
        self._loop.register(connection.fd, READ, lambda _events: self._queue(receiving))
        # The next request may be whole in ``received``, or lie within TLS, where epoll does not see it.
        if not is_new:
            self._queue(receiving)

    def _resume(self, sock: socket.socket) -> None:
        if sock in self._sockets:
            self._loop.register(sock.fileno(), READ, lambda _events: self._accept(sock))

    def _accept(self, listening: socket.socket) -> None:
        door = self._sockets[listening]
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = listening.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as exc:
                if exc.errno in OUT_OF_DESCRIPTORS and self._waiting.end_oldest():
                    continue
                # Out of descriptors: open connections go on; the queue waits a little instead of spinning here.
                LOG.error("Accepting paused", door=door.name, reason=exc.strerror)
                self._loop.unregister(listening.fileno())
                self._loop.call_later(_ACCEPT_PAUSE_S, lambda: self._resume(listening))
                return
            set_socket_options(sock)
            connection = Connection(sock, normalize_address(address[0]), door, sock.fileno())
            self._waiting.enter(connection)
            self.receive(connection, is_new=True)

    def _queue(self, receiving: Receiving) -> None:
        """Look at the connection when it is its source's turn: a flood waits behind the others, and consoles do not."""
        if not receiving.is_queued:
            receiving.is_queued = True
            self._turns.add(find_site(receiving.connection.address), receiving)
        if not self._is_serving:
            self._is_serving = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Look at a few connections; the others wait for the next turn of the loop."""
        batch = [receiving for _ in range(_CLIENTS_PER_TURN) if (receiving := self._turns.take()) is not None]
        for receiving in batch:
            receiving.is_queued = False
        self._is_serving = bool(self._turns)
        if self._is_serving:
            self._loop.call_soon(self._serve)
        for receiving in batch:
            # It may have been dropped meanwhile.
            if self._receiving.get(receiving.connection.fd) is receiving:
                self._on_ready(receiving)

    def _on_ready(self, receiving: Receiving) -> None:
        connection = receiving.connection
        received, receiving.received = receiving.received, b""
        try:
            if received and self._feed(receiving, received):
                return
            if receiving.is_new and not self._begin(receiving):
                return
            self._read(receiving)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._loop.modify(connection.fd, READ)
        except ssl.SSLWantWriteError:
            self._loop.modify(connection.fd, READ | WRITE)
        except OSError as exc:
            self._fail(receiving, exc)

    def _fail(self, receiving: Receiving, error: OSError) -> None:
        connection = receiving.connection
        if isinstance(error, ssl.SSLError):
            count_refused(connection, "tls_handshake")
            LOG.info("TLS handshake failed", client=connection.address, door=connection.door.name, reason=error.reason)
        self._drop(receiving)

    def _begin(self, receiving: Receiving) -> bool:
        """Look at the first bytes: TLS or not? Return False when the connection was refused."""
        connection = receiving.connection
        first = connection.sock.recv(_PEEK_BYTES, socket.MSG_PEEK)
        receiving.is_new = False
        is_tls = bool(first) and first[0] == _TLS_HANDSHAKE
        if is_tls and self.tls_context is not None:
            connection.sock = TlsSocket(connection.sock, self.tls_context, server_side=True)
            receiving.is_secured = False
            return True
        if is_tls:
            LOG.info("TLS on a plain HTTP port", client=connection.address, door=connection.door.name)
        elif first and self._ssl_only and speaks_proxy_protocol(first):
            _log_proxy_protocol(connection)
        elif first and self._ssl_only:
            LOG.info("Plain HTTP on a TLS port", client=connection.address, door=connection.door.name)
        else:
            return True
        count_refused(connection, "wrong_protocol", HTTPStatus.BAD_REQUEST)
        self._refuse(receiving, build_bare(HTTPStatus.BAD_REQUEST))
        return False

    def _read(self, receiving: Receiving) -> None:
        """Read until the request is whole, the turn is over, or nothing is there (BlockingIOError or kin of TLS)."""
        sock, parser = receiving.connection.sock, receiving.parser
        if isinstance(sock, TlsSocket) and not receiving.is_secured:
            self._start_step(receiving, sock)
            return
        for _ in range(_READS_PER_TURN):
            data = sock.recv(parser.wanted_bytes)
            if not data:
                self._drop(receiving)
                return
            if self._feed(receiving, data):
                return
        # epoll does not tell of bytes that are within TLS already.
        self._queue(receiving)

    def _start_step(self, receiving: Receiving, sock: TlsSocket) -> None:
        """Give the socket to the handshake thread for one step; the loop does not look at it meanwhile."""
        self._loop.unregister(receiving.connection.fd)
        source = find_site(receiving.connection.address)
        receiving.step = Step(source, sock, lambda error: self._end_step(receiving, error))
        self._handshakes.start(receiving.step)

    def _end_step(self, receiving: Receiving, error: OSError | None) -> None:
        receiving.step = None
        if receiving.is_dropped:
            receiving.connection.sock.close()
            return
        events = READ | WRITE if isinstance(error, ssl.SSLWantWriteError) else READ
        self._loop.register(receiving.connection.fd, events, lambda _events: self._queue(receiving))
        if error is None:
            receiving.is_secured = True
            # The request may lie within TLS already.
            self._on_ready(receiving)
        elif not isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
            self._fail(receiving, error)

    def _feed(self, receiving: Receiving, data: bytes) -> bool:
        """Take bytes; return True once the connection has another owner."""
        connection, parser = receiving.connection, receiving.parser
        try:
            request = parser.feed(data)
        except RequestMalformed as exc:
            self._refuse_malformed(receiving, exc)
            return True
        if request is None:
            return False
        self._forget(receiving)
        self._on_request(PendingRequest(connection, request, parser.take_rest()))
        return True

    def _refuse_malformed(self, receiving: Receiving, exc: RequestMalformed) -> None:
        connection = receiving.connection
        door = connection.door
        count_refused(connection, "max_header_bytes" if isinstance(exc, HeadTooLarge) else "malformed", exc.status)
        if isinstance(exc, ProxyProtocolSpoken):
            _log_proxy_protocol(connection)
        elif isinstance(exc, HeadTooLarge):
            _log_limit(connection, "max_header_bytes")
        else:
            LOG.info("Request malformed", client=connection.address, door=door.name, status=exc.status, reason=exc)
        is_for_people = door.is_for_browsers and exc.status != HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self._refuse(receiving, build_error(exc.status, str(exc)) if is_for_people else build_bare(exc.status))

    def _time_out(self, receiving: Receiving) -> None:
        """408 for half a request; a connection that said nothing is just closed, as browsers expect of spare ones."""
        connection = receiving.connection
        if not receiving.parser.is_empty:
            count_refused(connection, "request_timeout", HTTPStatus.REQUEST_TIMEOUT)
            _log_limit(connection, "request_timeout")
            self._refuse(receiving, build_bare(HTTPStatus.REQUEST_TIMEOUT))
            return
        if not receiving.is_secured:
            count_refused(connection, "tls_handshake")
            _log_limit(connection, "request_timeout")
        else:
            LOG.debug("Silent connection closed", client=connection.address, door=connection.door.name)
        self._drop(receiving)

    def _refuse(self, receiving: Receiving, response: Response) -> None:
        self._forget(receiving)
        self._sender.send(receiving.connection, open_outgoing(response, has_content=True), self._sender.linger)

    def _forget(self, receiving: Receiving) -> None:
        receiving.timer.cancel()
        self._receiving.pop(receiving.connection.fd, None)
        self._loop.unregister(receiving.connection.fd)
        self._waiting.set_busy(receiving.connection)

    def _drop(self, receiving: Receiving) -> None:
        self._forget(receiving)
        self._waiting.leave(receiving.connection)
        if receiving.step is not None and not self._handshakes.withdraw(receiving.step):
            receiving.is_dropped = True
        else:
            receiving.connection.sock.close()


def _log_limit(connection: Connection, option: str) -> None:
    LOG.info("Client turned away", client=connection.address, door=connection.door.name, limit=f"[novncproxy] {option}")


def _log_proxy_protocol(connection: Connection) -> None:
    LOG.warning("PROXY protocol on an HTTP port", client=connection.address, door=connection.door.name)

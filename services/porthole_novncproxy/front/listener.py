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

from porthole_common.forwarded import normalize_address
from porthole_common.log import get_logger
from porthole_novncproxy.admission.dial import set_socket_options
from porthole_novncproxy.doors import Door
from porthole_novncproxy.front.connection import Connection, PendingRequest
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
from porthole_relay.loop import READ, WRITE, Loop, Timer

LOG = get_logger(__name__)
_ACCEPTS_PER_TURN = 64
_ACCEPT_PAUSE_S = 0.5
# TLS records begin with their content type, handshake (RFC 8446 section 5.1).
_TLS_HANDSHAKE = 0x16
# Enough bytes to tell TLS, HTTP and the PROXY protocol apart.
_PEEK_BYTES = 16


@dataclass(eq=False, slots=True)
class Receiving:
    """A connection whose next request is awaited until ``timer``. ``is_new``: no byte has been looked at."""

    connection: Connection
    parser: RequestParser
    timer: Timer
    is_new: bool


class Listener:
    """Turns listening sockets into pending requests, in the loop's thread."""

    def __init__(
        self,
        loop: Loop,
        sender: Sender,
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
        self.tls_context = tls_context
        self._ssl_only = ssl_only
        self._timeout_s = timeout_s
        self._on_request = on_request
        self._max_header_bytes = max_header_bytes
        self._sockets: dict[socket.socket, Door] = {}
        self._receiving: dict[int, Receiving] = {}

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
            connection.sock.close()
            return
        connection.sock.setblocking(False)
        receiving = Receiving(
            connection,
            RequestParser(self._max_header_bytes),
            self._loop.call_later(self._timeout_s, lambda: self._time_out(receiving)),
            is_new,
        )
        self._receiving[connection.fd] = receiving
        self._loop.register(connection.fd, READ, lambda _events: self._on_ready(receiving))
        # The next request may be whole in ``received``, or lie within TLS, where epoll does not see it.
        if not is_new and not self._feed(receiving, received):
            self._on_ready(receiving)

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
                # Out of descriptors: open connections go on; the queue waits a little instead of spinning here.
                LOG.error("Accepting paused", door=door.name, reason=exc.strerror)
                self._loop.unregister(listening.fileno())
                self._loop.call_later(_ACCEPT_PAUSE_S, lambda: self._resume(listening))
                return
            set_socket_options(sock)
            self.receive(Connection(sock, normalize_address(address[0]), door, sock.fileno()), is_new=True)

    def _on_ready(self, receiving: Receiving) -> None:
        connection = receiving.connection
        try:
            if receiving.is_new and not self._begin(receiving):
                return
            self._read(receiving)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._loop.modify(connection.fd, READ)
        except ssl.SSLWantWriteError:
            self._loop.modify(connection.fd, READ | WRITE)
        except ssl.SSLError as exc:
            LOG.info("TLS handshake failed", client=connection.address, door=connection.door.name, reason=exc.reason)
            self._drop(receiving)
        except OSError:
            self._drop(receiving)

    def _begin(self, receiving: Receiving) -> bool:
        """Look at the first bytes: TLS or not? Return False when the connection was refused."""
        connection = receiving.connection
        first = connection.sock.recv(_PEEK_BYTES, socket.MSG_PEEK)
        receiving.is_new = False
        is_tls = bool(first) and first[0] == _TLS_HANDSHAKE
        if is_tls and self.tls_context is not None:
            self._wrap(connection, self.tls_context)
            return True
        if is_tls:
            LOG.info("TLS on a plain HTTP port", client=connection.address, door=connection.door.name)
        elif first and self._ssl_only and speaks_proxy_protocol(first):
            _log_proxy_protocol(connection)
        elif first and self._ssl_only:
            LOG.info("Plain HTTP on a TLS port", client=connection.address, door=connection.door.name)
        else:
            return True
        self._refuse(receiving, build_bare(HTTPStatus.BAD_REQUEST))
        return False

    def _wrap(self, connection: Connection, tls_context: ssl.SSLContext) -> None:
        """Put TLS on the socket; the descriptor moves to the new one, with its number.

        :raises OSError: when the client is gone; the descriptor is closed.
        """
        try:
            connection.sock = tls_context.wrap_socket(connection.sock, server_side=True, do_handshake_on_connect=False)
        except OSError:
            self._loop.forget(connection.fd)
            raise

    def _read(self, receiving: Receiving) -> None:
        """Read until the request is whole, or nothing more is there (BlockingIOError or its kin of TLS)."""
        sock, parser = receiving.connection.sock, receiving.parser
        if isinstance(sock, ssl.SSLSocket) and not sock.version():
            sock.do_handshake()
        while True:
            data = sock.recv(parser.wanted_bytes)
            if not data:
                self._drop(receiving)
                return
            if self._feed(receiving, data):
                return

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
            _log_limit(connection, "request_timeout")
            self._refuse(receiving, build_bare(HTTPStatus.REQUEST_TIMEOUT))
            return
        if isinstance(connection.sock, ssl.SSLSocket) and not connection.sock.version():
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

    def _drop(self, receiving: Receiving) -> None:
        self._forget(receiving)
        receiving.connection.sock.close()


def _log_limit(connection: Connection, option: str) -> None:
    LOG.info("Client turned away", client=connection.address, door=connection.door.name, limit=f"[novncproxy] {option}")


def _log_proxy_protocol(connection: Connection) -> None:
    LOG.warning("PROXY protocol on an HTTP port", client=connection.address, door=connection.door.name)

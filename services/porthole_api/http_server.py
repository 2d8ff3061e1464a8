# SPDX-License-Identifier: Apache-2.0
"""The HTTP server of the daemon: cheroot, with deadlines and limits. The only module that imports cheroot.

Why not cheroot as it is: a silent connection holds a thread, a client that sends one byte at a time holds a thread for
ever, and an unread body is taken into memory whole. Called by :mod:`porthole_api.main`; uwsgi or gunicorn do the same
work in its place.
"""

import errno
import io
import logging
import socket
import threading
import time
from typing import Any

from cheroot import server as cheroot_server
from cheroot import wsgi as cheroot_wsgi
from cheroot.makefile import StreamReader

from porthole_api.auth import WsgiApplication
from porthole_common.listening import map_bind_error
from porthole_common.log import get_logger
from porthole_common.model import Target
from porthole_common.private_parts import report_missing

LOG = get_logger(__name__)

# From the first byte of a request to the last of its body: a slow client holds a thread at most so long.
REQUEST_DEADLINE_S = 5.0
# The wait for the first or the next request, and for a client to read the answer.
IDLE_TIMEOUT_S = 15
# Request line and headers; old Keystone tokens have 8 KiB.
MAX_HEADER_BYTES = 32 * 1024
# How many connections wait for a request, and how many for a thread; more get 503. It guards the file descriptors.
MAX_WAITING = 500
# So much of a body that was refused unread is discarded: a client that writes all of it before it reads gets the
# answer, while a close at once would be a reset.
MAX_DISCARD_BYTES = 4 * 1024 * 1024
DISCARD_TIMEOUT_S = 2.0
STOP_TIMEOUT_S = 5
_BACKLOG = 128
_BLOCK_BYTES = 64 * 1024


class HttpServer:
    """Serves one WSGI application at one address, from its own threads."""

    def __init__(self, application: WsgiApplication, host: str, port: int, threads: int) -> None:
        """Prepare; ``threads`` is how many requests are answered at the same time."""
        self._server = _Server((host, port), application, threads)
        self._thread = threading.Thread(target=self._server.serve, name="http", daemon=True)
        self._probe = _Probe()

    @property
    def port(self) -> int:
        """The TCP port, also when it was given as 0; known once started."""
        port: int = self._server.bind_addr[1]
        return port

    def start(self) -> None:
        """Listen; returns once connections are accepted.

        :raises ConfigInvalid: when this process may never listen there.
        :raises AddressUnavailable: when the port is in use, or the address is not this machine's yet.
        """
        host, port = self._server.bind_addr
        try:
            self._server.prepare()
        except OSError as error:
            cause = self._server.bind_error or error
            option = "[api] bind_port" if cause.errno in (errno.EADDRINUSE, errno.EACCES) else "[api] bind_host"
            raise map_bind_error(option, f"cannot listen on {host} port {port}", cause) from error
        self._thread.start()
        LOG.info("Listening", address=str(Target(host, self.port)))

    def is_alive(self) -> bool:
        """Whether the thread that accepts connections has answered since the last call; asks it again."""
        answered = self._probe.answered
        if answered:
            self._probe.answered = False
            self._server.put_conn(self._probe)
        return answered

    def stop(self) -> None:
        """Accept no more requests; running ones have ``STOP_TIMEOUT_S`` to end. Harmless when not started."""
        if self._thread.is_alive():
            self._server.stop()
            self._thread.join(STOP_TIMEOUT_S)
        self._probe.socket.close()


class _Probe:
    """A health check of cheroot's own thread: to cheroot it looks like a connection that has a request."""

    def __init__(self) -> None:
        self.socket, other = socket.socketpair()
        # Because the other end is closed, this one is always readable.
        other.close()
        self.rfile = self
        self.last_used: float | None = None
        self.answered = True

    def has_data(self) -> bool:
        """Return False, nothing is buffered, so that the thread polls the socket."""
        return False

    def close(self) -> None:
        """Do nothing: cheroot closes a connection that waits too long, and the remaining ones when it ends."""


class _Server(cheroot_wsgi.Server):
    """cheroot's server, in which a request takes a thread, and a connection without a request does not."""

    max_request_header_size = MAX_HEADER_BYTES
    keep_alive_conn_limit = MAX_WAITING

    def __init__(self, address: tuple[str, int], application: WsgiApplication, threads: int) -> None:
        super().__init__(
            address,
            application,
            numthreads=threads,
            # Also SERVER_NAME, which stands for the Host of a request without one.
            server_name=address[0],
            request_queue_size=_BACKLOG,
            timeout=IDLE_TIMEOUT_S,
            shutdown_timeout=STOP_TIMEOUT_S,
            accepted_queue_size=MAX_WAITING,
            # No wait for a full queue: it would block the thread that accepts.
            accepted_queue_timeout=0,
        )
        self.ConnectionClass = _Connection
        self.bind_error: OSError | None = None

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:  # noqa: A002 - cheroot's name
        """Bind one socket; after a failure, cheroot's own method leaves it open and keeps only the error's text."""
        sock: socket.socket = self.prepare_socket(
            self.bind_addr, family, type, proto, self.nodelay, self.ssl_adapter, reuse_port=False
        )
        try:
            self.bind_socket(sock, self.bind_addr)  # type: ignore[no-untyped-call]
        except OSError as error:
            sock.close()
            self.bind_error = error
            raise
        self.socket = sock
        self.bind_addr = self.resolve_real_bind_addr(sock)  # type: ignore[no-untyped-call]
        return sock

    def process_conn(self, conn: "_Connection | _Probe") -> None:
        """Let a new connection wait for a request, and give a connection with a request to the threads."""
        if isinstance(conn, _Probe):
            conn.answered = True
        elif conn.last_used is not None:
            super().process_conn(conn)
        elif self.can_add_keepalive_connection:
            self.put_conn(conn)
        elif hasattr(self, "_unservicable_conns"):
            self._unservicable_conns.put(conn)
        else:
            report_missing("cheroot", "HTTPServer._unservicable_conns", "A client beyond the limit waits, without 503.")
            super().process_conn(conn)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Log through the process's logging, which redacts tokens, and not on stderr."""
        LOG.log(level, "HTTP server reported", message=msg, exc_info=traceback)


class _HeaderReader(cheroot_server.HeaderReader):
    """cheroot's reader, which refuses folded lines (RFC 9112 section 5.2).

    cheroot itself adds a folded line to the header before it, and answers 500 if it is the first line.
    """

    def __call__(self, rfile: Any, hdict: Any = None) -> Any:
        """Read the headers.

        :raises ValueError: when they are not valid HTTP.
        """
        headers = {} if hdict is None else hdict
        headers.update(super().__call__(_UnfoldedLines(rfile), _Headers()))
        return headers


class _Headers(dict[bytes, bytes]):
    """The headers of a request, without those whose name has an underscore, and with lists of several lines.

    In WSGI ``X_Forwarded_Host`` has the name of ``X-Forwarded-Host``, which a proxy in front removes or overwrites. Of
    several lines of a proxy's header cheroot itself keeps the last.
    """

    def __setitem__(self, name: bytes, value: bytes) -> None:
        if b"_" in name:
            return
        if name in self and (name.startswith(b"X-Forwarded-") or name == b"Forwarded"):
            value = self[name] + b", " + value
        super().__setitem__(name, value)


class _UnfoldedLines:
    """The lines of a request's head."""

    def __init__(self, rfile: Any) -> None:
        self._rfile = rfile

    def readline(self) -> bytes:
        """Return the next line.

        :raises ValueError: when it is folded.
        """
        line: bytes = self._rfile.readline()
        if line[:1] in {b" ", b"\t"}:
            raise ValueError("Folded header lines are not accepted.")
        return line


class _Request(cheroot_server.HTTPRequest):
    """cheroot's request, which never waits for the rest of a refused body."""

    header_reader = _HeaderReader()

    def send_headers(self) -> None:
        """Send the head of the answer, and close the connection if a part of the body has not arrived yet."""
        if self._has_unread_body():
            self.close_connection = True
            self.conn.discards = True
        super().send_headers()

    def simple_response(self, status: str | int, msg: str = "") -> None:
        """Answer a request that is not HTTP, or is too long to be read."""
        # A client that was too slow once gets no more time.
        self.conn.discards = not str(status).startswith("408")
        super().simple_response(status, msg)

    def _has_unread_body(self) -> bool:
        if self.chunked_read:
            return not self.rfile.closed
        remaining: int = getattr(self.rfile, "remaining", 0)
        return remaining != 0 and not self._take_from_buffer(remaining)

    def _take_from_buffer(self, length: int) -> bool:
        """Read the rest of the body and return True, if all of it has arrived: then the connection can stay open."""
        if 0 < length <= self.conn.rfile.buffered_bytes:
            self.rfile.read(length)
            return True
        return False


class _Connection(cheroot_server.HTTPConnection):
    """cheroot's connection with a deadline for each request, and a close that does not reset the connection."""

    RequestHandlerClass = _Request
    deadline_s = float("inf")
    discards = False

    def __init__(self, server: _Server, sock: socket.socket, makefile: Any) -> None:
        def make_file(sock: socket.socket, mode: str, size_bytes: int) -> Any:
            return _DeadlineReader(self, sock) if "r" in mode else makefile(sock, mode, size_bytes)

        super().__init__(server, sock, make_file)

    def communicate(self) -> bool:
        """Answer one request; return True if the connection stays open."""
        self.deadline_s = time.monotonic() + REQUEST_DEADLINE_S
        return bool(super().communicate())  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close; first read what the client still writes, or a reset would destroy the answer."""
        if self.discards:
            try:
                self._discard()
            except OSError as error:
                LOG.debug("Client disconnected", error=type(error).__name__, reason=error)
        super().close()

    def _discard(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)
        give_up_at_s = time.monotonic() + DISCARD_TIMEOUT_S
        taken_bytes = 0
        while taken_bytes < MAX_DISCARD_BYTES:
            self.socket.settimeout(max(give_up_at_s - time.monotonic(), 0.001))
            block = self.socket.recv(_BLOCK_BYTES)
            if not block:
                return
            taken_bytes += len(block)


class _DeadlineReader(StreamReader):
    """The buffered reader of a connection, on :class:`_DeadlineIO`."""

    def __init__(self, connection: _Connection, sock: socket.socket) -> None:
        # StreamReader's own __init__ is skipped: it would make a raw reader without a deadline.
        super(StreamReader, self).__init__(_DeadlineIO(connection, sock), io.DEFAULT_BUFFER_SIZE)
        self.bytes_read = 0

    @property
    def buffered_bytes(self) -> int:
        """How many bytes can be read without the network."""
        if not (hasattr(self, "_read_buf") and hasattr(self, "_read_pos")):
            # Those of Python's _pyio.BufferedReader, of which cheroot's reader is one.
            report_missing("cheroot", "StreamReader._read_buf", "A refused request with a body ends its connection.")
            return 0
        return int(len(self._read_buf) - self._read_pos)


class _DeadlineIO(socket.SocketIO):
    """Reads until the deadline of the connection, which a late byte does not extend."""

    def __init__(self, connection: _Connection, sock: socket.socket) -> None:
        super().__init__(sock, "rb")
        self._connection = connection
        self._socket = sock

    def readinto(self, buffer: Any) -> int | None:
        """Read some bytes.

        :raises TimeoutError: when the deadline of the request has passed.
        """
        remaining_s = self._connection.deadline_s - time.monotonic()
        if remaining_s <= 0:
            # cheroot recognises a timeout by this text.
            raise TimeoutError("timed out")
        self._socket.settimeout(remaining_s)
        try:
            return super().readinto(buffer)
        finally:
            self._socket.settimeout(IDLE_TIMEOUT_S)

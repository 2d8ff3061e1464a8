# SPDX-License-Identifier: Apache-2.0
"""``/metrics`` of a daemon, over HTTP: one thread, a few connections, a deadline for each.

Why not prometheus_client's own server: it starts a thread for each connection, and a silent client holds its thread for
ever. Here all connections are in one thread, which waits for none of them: a slow client holds a socket and its answer
until its deadline, and when there are too many connections, the oldest one ends.

Metrics never keep a daemon from its work. A port that is in use is logged and tried again. The server is the first
service to start and the last to stop, so a daemon that waits for its broker, or drains, can be looked at.

Called by :mod:`porthole_common.service`; :mod:`porthole_common.metrics_gathering` has several processes behind one
port.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from oslo_config import cfg

from porthole_common import metrics, process_measures  # noqa: F401 - the second one has the process measured
from porthole_common.conf.metrics import find_port
from porthole_common.log import get_logger
from porthole_common.model import Target

LOG = get_logger(__name__)
PATH = "/metrics"
# Two Prometheus servers, people, and some clients that are slow or gone.
MAX_CONNECTIONS = 16
# From accept to the last byte: Prometheus gives up after 10 s.
DEADLINE_S = 5.0
# Prometheus sends a few hundred bytes.
MAX_REQUEST_BYTES = 8192
# How soon a port that is in use is tried again.
RETRY_S = 5.0
SAMPLE_INTERVAL_S = 1.0
STOP_TIMEOUT_S = 2.0
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_READ_BYTES = 4096
_ACCEPT_PAUSE_S = 0.1

Render = Callable[[], bytes]
# Returns a listening socket; raises OSError when it cannot listen, and is called again later.
Listen = Callable[[], socket.socket]


def build_answer(received: bytes, render: Render) -> bytes | None:
    """Return the answer to a request of which ``received`` has arrived; None while its head is not whole."""
    head, end, _ = received.partition(b"\r\n\r\n")
    if len(head) > MAX_REQUEST_BYTES:
        return _build(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"The request is too long.\n")
    if not end:
        return None
    method, *rest = head.partition(b"\r\n")[0].split(b" ")
    if fault := _find_fault(method, rest):
        return _build(*fault)
    try:
        body = render()
    except Exception:
        LOG.exception("Metrics not built")
        return _build(HTTPStatus.INTERNAL_SERVER_ERROR, b"The metrics could not be built; the log says why.\n")
    return _build(HTTPStatus.OK, body, has_body=method == b"GET")


def _find_fault(method: bytes, rest: list[bytes]) -> tuple[HTTPStatus, bytes] | None:
    """Return status and text of the error in a request line, or None."""
    if len(rest) != 2 or not rest[1].startswith(b"HTTP/1."):
        return HTTPStatus.BAD_REQUEST, b"This is not a request of HTTP/1.\n"
    if method not in {b"GET", b"HEAD"}:
        return HTTPStatus.METHOD_NOT_ALLOWED, b"Of HTTP's methods this port has GET and HEAD.\n"
    if rest[0].partition(b"?")[0] != PATH.encode():
        return HTTPStatus.NOT_FOUND, b"The metrics are at /metrics.\n"
    return None


def _build(status: HTTPStatus, body: bytes, has_body: bool = True) -> bytes:
    lines = [
        f"HTTP/1.1 {int(status)} {status.phrase}",
        f"Content-Type: {_CONTENT_TYPE}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(["Allow: GET, HEAD"] if status is HTTPStatus.METHOD_NOT_ALLOWED else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (body if has_body else b"")


class _Connection:
    """One client: its request, then its answer, then its end. ``due_at_s``: when it is cut off (monotonic)."""

    def __init__(self, sock: socket.socket, due_at_s: float) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.due_at_s = due_at_s
        self._received = bytearray()
        self._unsent: memoryview | None = None

    @property
    def events(self) -> int:
        """What to wait for."""
        return select.POLLOUT if self._unsent else select.POLLIN

    def go_on(self, render: Render) -> bool:
        """Read or write without waiting; return False when the connection is over."""
        try:
            if self._unsent is None:
                return self._read(render)
            if self._unsent:
                return self._write()
            # A close with unread bytes would be a reset, which destroys the answer.
            return bool(self.sock.recv(_READ_BYTES))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Close it for the client too, also where another process has inherited the socket by a fork."""
        with contextlib.suppress(OSError):
            # It fails where the client has closed, which is the rule.
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def _read(self, render: Render) -> bool:
        received = self.sock.recv(_READ_BYTES)
        self._received += received
        answer = build_answer(bytes(self._received), render)
        if answer is None:
            return bool(received)
        self._unsent = memoryview(answer)
        return self._write()

    def _write(self) -> bool:
        if self._unsent:
            self._unsent = self._unsent[self.sock.send(self._unsent) :]
        if not self._unsent:
            self.sock.shutdown(socket.SHUT_WR)
        return True


class MetricsServer:
    """A service (:class:`porthole_common.service.Service`) that serves what ``render`` returns.

    ``listen`` is tried until it returns a socket. ``deadline_s`` is the time for one client.
    """

    name = "metrics"
    stop_timeout_s = STOP_TIMEOUT_S

    def __init__(
        self,
        listen: Listen,
        render: Render,
        deadline_s: float = DEADLINE_S,
        retry_s: float = RETRY_S,
        is_spare: bool = False,
    ) -> None:
        """``is_spare``: another process may have the address, so that this one cannot listen is no news."""
        self._listen = listen
        self._render = render
        self._deadline_s = deadline_s
        self._retry_s = retry_s
        self._listener: socket.socket | None = None
        self._connections: dict[int, _Connection] = {}
        self._is_told = self._is_spare = is_spare
        self._retry_at_s = self._sample_at_s = 0.0
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def waits_for(self) -> str:
        """Return "": no daemon waits for its metrics."""
        return ""

    def is_alive(self) -> bool:
        """Return True: no daemon is restarted for its metrics."""
        return True

    def reload(self) -> None:
        """Do nothing: the address needs a restart."""

    def stop(self) -> None:
        """Stop serving."""
        self._stopping = True
        if self._thread.is_alive():
            os.eventfd_write(self._wakeup, 1)
            self._thread.join(STOP_TIMEOUT_S)
        if not self._thread.is_alive():
            self.disown()

    def disown(self) -> None:
        """Close the descriptors of a server that does not run: it was stopped, or is the parent's, behind a fork."""
        for connection in self._connections.values():
            connection.sock.close()
        self._connections.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._wakeup >= 0:
            os.close(self._wakeup)
            self._wakeup = -1

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception:
                # This thread must live on; the pause keeps a lasting fault from filling the log.
                LOG.exception("Metrics server failed")
                time.sleep(self._retry_s)
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()

    def _turn(self) -> None:
        self._open()
        for fd in self._wait():
            if self._listener is not None and fd == self._listener.fileno():
                self._accept(self._listener)
            elif fd in self._connections and not self._connections[fd].go_on(self._render):
                self._connections.pop(fd).close()
        now_s = time.monotonic()
        for fd in [fd for fd, connection in self._connections.items() if connection.due_at_s <= now_s]:
            self._connections.pop(fd).close()
        if metrics.SAMPLERS and now_s >= self._sample_at_s:
            self._sample_at_s = now_s + SAMPLE_INTERVAL_S
            for sample in list(metrics.SAMPLERS):
                sample()

    def _wait(self) -> list[int]:
        """Return the descriptors that are ready, when one is, or when something is due."""
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        if self._listener is not None:
            poll.register(self._listener, select.POLLIN)
        for connection in self._connections.values():
            poll.register(connection.sock, connection.events)
        due_at_s = [connection.due_at_s for connection in self._connections.values()]
        if self._listener is None:
            due_at_s.append(self._retry_at_s)
        # A sampler may be added at any time.
        due_at_s.append(max(self._sample_at_s, time.monotonic()) if metrics.SAMPLERS else time.monotonic() + RETRY_S)
        wait_s = max(0.0, min(due_at_s) - time.monotonic())
        return [fd for fd, _ in poll.poll(wait_s * 1000 + 1)]

    def _open(self) -> None:
        if self._listener is not None or time.monotonic() < self._retry_at_s:
            return
        try:
            self._listener = self._listen()
        except OSError as exc:
            self._retry_at_s = time.monotonic() + self._retry_s
            if not self._is_told:
                LOG.warning("Metrics not served; trying again", reason=exc.strerror or exc)
            self._is_told = True
            return
        self._listener.setblocking(False)
        self._is_told = self._is_spare

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as exc:
            # Out of descriptors, or the client has left. Clients wait in the queue of the kernel.
            LOG.debug("Metrics client not accepted", reason=exc)
            time.sleep(_ACCEPT_PAUSE_S)
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            self._connections.pop(next(iter(self._connections))).close()
        self._connections[sock.fileno()] = _Connection(sock, time.monotonic() + self._deadline_s)


def listen_tcp(conf: cfg.ConfigOpts, daemon: str) -> socket.socket:
    """Return a socket that listens at the address of the options.

    :raises OSError: when that is not possible now.
    """
    host, port = conf.metrics.bind_host, find_port(conf, daemon)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=MAX_CONNECTIONS)
    except OSError as exc:
        raise OSError(exc.errno, f"[metrics] bind_host, bind_port: {Target(host, port)}: {exc.strerror}") from exc
    LOG.info("Metrics served", address=str(Target(host, port)))
    return listener


def build_servers(conf: cfg.ConfigOpts, daemon: str) -> list[MetricsServer]:
    """Return the server of a daemon that is one process; none when the options have it off."""
    if not find_port(conf, daemon):
        return []
    return [MetricsServer(lambda: listen_tcp(conf, daemon), lambda: metrics.render(daemon))]

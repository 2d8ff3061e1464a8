# SPDX-License-Identifier: Apache-2.0
"""The HTTP server of the daemon: waitress, whose one loop reads each request whole before a thread gets it (C38).

Why not waitress as it is: its limits are for all connections together and in requests, not in time
(:mod:`porthole_api.http_channel`); at its limit it takes nobody; and a health check waits behind slow requests. This
module, ``http_channel`` and ``http_parser`` import waitress. The classes that they extend are not in its documentation,
which is why setup.cfg has an upper bound. Called by :mod:`porthole_api.main`; uwsgi or gunicorn do the same work in its
place.
"""

import errno
import resource
import socket
import threading
import time
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from porthole_api.app import HEALTHCHECK
from porthole_api.auth import WsgiApplication
from porthole_api.http_channel import Channel, Reports
from porthole_api.http_crowd import find_leaving, find_limit, find_room
from porthole_api.http_parser import BODY_LIMIT_BYTES, MAX_HEADER_BYTES
from porthole_api.http_refusals import CROWDED, CROWDED_SOURCE, STOPPING
from porthole_common import pools
from porthole_common.allowance import find_network
from porthole_common.listening import map_bind_error
from porthole_common.log import get_logger
from porthole_common.model import Target
from porthole_common.private_parts import report_missing

LOG = get_logger(__name__)

STOP_TIMEOUT_S = 5.0
# Answers that nobody has read yet, of all connections together. It guards the memory.
MAX_UNREAD_BYTES = 64 * 1024 * 1024
_BACKLOG = 1024
_ACCEPTS_PER_TURN = 32
# How often deadlines are looked at while there are connections.
_TICK_S = 0.25
_IDLE_TICK_S = 5.0
# After a failed accept: how long the queue waits, instead of a loop that spins.
_ACCEPT_PAUSE_S = 0.5
# More than any answer: no thread waits for a client to read, and no answer goes into a temporary file.
_NO_LIMIT = 1 << 40
# What is replaced in waitress, and what is lost in a release that does not ask for it any more.
_HOOKS = (
    (TcpWSGIServer, "channel_class", "Slow clients have no deadline."),
    (TcpWSGIServer, "handle_accept", "A source may have any number of connections."),
    (TcpWSGIServer, "add_task", "Health checks wait for a thread."),
    (TcpWSGIServer, "pull_trigger", "The loop may be woken when its descriptor is another's."),
    (HTTPChannel, "parser_class", "Malformed requests are taken."),
    (HTTPChannel, "check_client_disconnected", "Slow clients have no deadline."),
    (HTTPRequestParser, "parse_header", "Malformed requests are taken."),
)


class HttpServer:
    """Serves one WSGI application at one address, from its own threads."""

    # For the metrics of the pool of threads.
    name = "http"

    def __init__(self, application: WsgiApplication, host: str, port: int, threads: int) -> None:
        """Prepare; ``threads`` is how many requests are answered at the same time."""
        self._application = application
        self._host, self._port, self.limit = host, port, threads
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._seen_turns = -1
        pools.watch(self)

    @property
    def busy(self) -> int:
        """The number of threads that answer a request."""
        return 0 if self._server is None else int(self._server.task_dispatcher.active_count)

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a thread."""
        return 0 if self._server is None else len(self._server.task_dispatcher.queue)

    @property
    def port(self) -> int:
        """The TCP port, also when it was given as 0; known once started."""
        return self._port

    def start(self) -> None:
        """Listen; returns once connections are accepted.

        :raises ConfigInvalid: when this process may never listen there.
        :raises AddressUnavailable: when the port is in use, or the address is not this machine's yet.
        """
        _report_missing_hooks()
        try:
            sock = _bind(self._host, self._port)
        except OSError as error:
            option = "[api] bind_port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "[api] bind_host"
            raise map_bind_error(option, f"cannot listen on {self._host} port {self._port}", error) from error
        self._port = sock.getsockname()[1]
        self._server = _Server(self._application, sock, self._host, self.limit)
        self._thread = threading.Thread(target=self._server.run, name="http", daemon=True)
        self._thread.start()
        LOG.info("Listening", address=str(Target(self._host, self._port)))

    def is_alive(self) -> bool:
        """Whether the loop has turned since the last call; has it turn again."""
        if self._server is None:
            return False
        answered = self._server.turns != self._seen_turns
        if answered:
            self._seen_turns = self._server.turns
            self._server.pull_trigger()
        return answered

    def stop(self) -> None:
        """Accept no more requests; running ones have ``STOP_TIMEOUT_S`` to end. Harmless when not started."""
        if self._server is not None and self._thread is not None and self._thread.is_alive():
            self._server.stop()
            self._thread.join(2 * STOP_TIMEOUT_S)


class _Threads(ThreadedTaskDispatcher):  # type: ignore[misc]
    """waitress's threads, which have a name, and whose end can be waited for."""

    logger = Reports()

    def __init__(self, name: str, count: int) -> None:
        super().__init__()
        self._name = name
        self._started: list[threading.Thread] = []
        # waitress logs a line for each request that waits for a thread.
        self.queue_logger = _Silence()
        self.set_thread_count(count)

    def start_new_thread(self, target: Any, thread_no: int) -> None:
        """Start one."""
        thread = threading.Thread(target=target, name=f"{self._name}-{thread_no}", args=(thread_no,), daemon=True)
        self._started.append(thread)
        thread.start()

    def end(self, until_s: float) -> None:
        """Let the threads end until the monotonic time ``until_s``; a blocked one ends with the process."""
        self.shutdown(timeout=max(0.0, until_s - time.monotonic()))
        for thread in self._started:
            thread.join(max(0.1, until_s - time.monotonic()) if thread.is_alive() else None)


class _Silence:
    def warning(self, *_: object) -> None:
        """Log nothing."""


class _Server(TcpWSGIServer):  # type: ignore[misc]
    """waitress's server: the loop, in which every connection has its turn and its deadlines."""

    channel_class = Channel
    logger = Reports()

    def __init__(self, application: WsgiApplication, sock: socket.socket, host: str, threads: int) -> None:
        adj = Adjustments(
            sockets=[sock],
            # The Host of a request that names none.
            server_name=host,
            ident="",
            backlog=_BACKLOG,
            max_request_header_size=MAX_HEADER_BYTES,
            max_request_body_size=BODY_LIMIT_BYTES,
            inbuf_overflow=_NO_LIMIT,
            outbuf_overflow=_NO_LIMIT,
            outbuf_high_watermark=_NO_LIMIT,
            log_socket_errors=False,
            # porthole_api.proxy_headers reads them, and noauth refuses them.
            clear_untrusted_proxy_headers=False,
        )
        self.turns = 0
        self._limit = find_limit(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._accepts_from_s = 0.0
        self._stops_at_s: float | None = None
        self._trigger_lock = threading.Lock()
        self._has_ended = False
        # Beside the others, so that a health check is answered when all of them are busy.
        self._health_threads = _Threads("http-health", 1)
        info = (sock.family, sock.type, sock.proto, sock.getsockname())
        super().__init__(
            application,
            map={},
            _sock=sock,
            dispatcher=_Threads("http-request", threads),
            adj=adj,
            sockinfo=info,
            bind_socket=False,
        )

    def run(self) -> None:
        """Serve until :meth:`stop`."""
        next_tick_s = 0.0
        while not self._is_drained():
            self.turns += 1
            timeout_s = _TICK_S if self.active_channels or self._stops_at_s else _IDLE_TICK_S
            wasyncore.loop(timeout=timeout_s, use_poll=True, map=self._map, count=1)
            now_s = time.monotonic()
            if now_s >= next_tick_s or self._stops_at_s:
                next_tick_s = now_s + _TICK_S
                self._tick(now_s)
        self._close_all()

    def stop(self) -> None:
        """Have the loop end; called by another thread."""
        self._stops_at_s = time.monotonic() + STOP_TIMEOUT_S
        self.pull_trigger()

    def pull_trigger(self) -> None:
        """Wake the loop, from any thread; harmless once the loop has ended."""
        # Its descriptor may belong to something else by then.
        with self._trigger_lock:
            if not self._has_ended:
                super().pull_trigger()

    def add_task(self, task: Channel) -> None:
        """Give a connection with a whole request to a thread."""
        is_health = task.requests[0].path == HEALTHCHECK
        (self._health_threads if is_health else self.task_dispatcher).add_task(task)

    def readable(self) -> bool:
        """Whether the loop is to accept connections."""
        return bool(self.accepting) and time.monotonic() >= self._accepts_from_s

    def handle_accept(self) -> None:
        """Accept some connections."""
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                accepted = self.accept()
            except OSError as error:
                self._pause(error)
                return
            if accepted is None:
                return
            self._admit(*accepted)

    def _admit(self, sock: socket.socket, address: Any) -> None:
        try:
            self.set_socket_options(sock)
        except OSError:
            # The client is gone already.
            sock.close()
            return
        source = find_network(str(address[0]))
        room = find_room(self.active_channels.values(), source, self._limit)
        while room.leaves is not None and room.leaves.has_moved():
            room = find_room(self.active_channels.values(), source, self._limit)
        refusal = CROWDED_SOURCE if room.of_source else CROWDED
        if room.leaves is not None:
            room.leaves.leave(refusal)
        channel = self.channel_class(self, sock, address, self.adj, map=self._map)
        if room.is_full:
            # It can leave for the next one at once, so there is one such at a time.
            channel.refuse(refusal)

    def _pause(self, error: OSError) -> None:
        """Accept nothing for a moment, and make room: most likely the descriptors are used up."""
        LOG.error("Connection not accepted", reason=error)
        self._accepts_from_s = time.monotonic() + _ACCEPT_PAUSE_S
        leaves = find_leaving(self.active_channels.values())
        if leaves is not None:
            leaves.leave(CROWDED)

    def _tick(self, now_s: float) -> None:
        for channel in list(self.active_channels.values()):
            channel.check_deadlines(now_s)
        unread = sorted(
            (one for one in self.active_channels.values() if one.total_outbufs_len), key=lambda one: one.moved_at_s
        )
        unread_bytes = sum(one.total_outbufs_len for one in unread)
        for channel in unread:
            if unread_bytes <= MAX_UNREAD_BYTES:
                return
            unread_bytes -= channel.total_outbufs_len
            channel.handle_close()

    def _is_drained(self) -> bool:
        """Whether the loop ends: it is to stop, and no request is under way, or their time is over."""
        if self._stops_at_s is None:
            return False
        if self.accepting:
            # The queue's connections are reset, so that their clients try elsewhere.
            wasyncore.dispatcher.close(self)
        for channel in list(self.active_channels.values()):
            if channel.waits and (channel.is_at_rest or channel.request is not None):
                channel.leave(STOPPING)
        return not self.active_channels or time.monotonic() >= self._stops_at_s

    def _close_all(self) -> None:
        until_s = self._stops_at_s or time.monotonic()
        self._health_threads.end(until_s)
        self.task_dispatcher.end(until_s)
        for channel in list(self.active_channels.values()):
            channel.handle_close()
        with self._trigger_lock:
            self._has_ended = True
            self.trigger.close()


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the first address of ``host`` that can be had.

    :raises OSError: when none can.
    """
    failure: OSError = OSError(errno.EADDRNOTAVAIL, "no address")
    for family, kind, proto, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # [::] takes IPv4 as well, where the system has both.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
            sock.bind(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def _report_missing_hooks() -> None:
    for kind, name, effect in _HOOKS:
        if not hasattr(kind, name):
            report_missing("waitress", f"{kind.__name__}.{name}", effect)

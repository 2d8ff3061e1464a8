# SPDX-License-Identifier: Apache-2.0
"""The proxy of one process: doors, handshake threads, relay, joined.

The path of a connection: :mod:`doorway` reads its request in the event loop; a handshake thread answers it
(:mod:`handler` for browsers, :mod:`xvp` for native viewers), which asks :mod:`admission`; an admitted one goes to
:mod:`relay`, back in the loop. Built and driven by :mod:`porthole_novncproxy.daemon`.
"""

import concurrent.futures
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from porthole_common import errors
from porthole_common.context import RequestContext, serving
from porthole_common.log import get_logger
from porthole_novncproxy import xvp
from porthole_novncproxy.access import ConsoleRequest
from porthole_novncproxy.admission import Admission, Gate
from porthole_novncproxy.codec import RawCodec, WebSocketCodec
from porthole_novncproxy.doorway import MAX_HEAD_BYTES, Connection, Doorway
from porthole_novncproxy.handler import ConsoleHandler
from porthole_novncproxy.loop import Loop
from porthole_novncproxy.pages import PageResponse, Pages
from porthole_novncproxy.relay import Relay

LOG = get_logger(__name__)
# Files are sent by threads of their own: no console that waits for a daemon holds up a page.
_PAGE_THREADS = 4
_ASKS_FOR_CONSOLE = re.compile(rb"\n(?:upgrade:|accept:[^\n]*application/json)", re.IGNORECASE)
NOVNC = "novnc"
XVPVNC = "xvpvnc"
# How long a client may take to take an answer.
_WRITE_TIMEOUT_S = 10.0


class ProxyServer:
    """Serves both doors until :meth:`stop`."""

    def __init__(
        self,
        *,
        loop: Loop,
        gate: Gate,
        pages: Pages,
        context: ssl.SSLContext | None,
        ssl_only: bool,
        request_timeout_s: float,
        handshake_threads: int,
        handshake_backlog: int,
        relay: Relay,
        max_header_bytes: int = MAX_HEAD_BYTES,
    ) -> None:
        self._gate = gate
        self._pages = pages
        self._loop = loop
        self._relay = relay
        self._started = False
        self._doorway = Doorway(self._loop, context, ssl_only, request_timeout_s, self._on_request, max_header_bytes)
        self._threads = concurrent.futures.ThreadPoolExecutor(handshake_threads, thread_name_prefix="handshake")
        self._page_threads = concurrent.futures.ThreadPoolExecutor(_PAGE_THREADS, thread_name_prefix="page")
        self._places = threading.Semaphore(handshake_threads + _PAGE_THREADS + handshake_backlog)
        self._patience_s = request_timeout_s
        self._doors: dict[str, Callable[[Connection, bytes], bool]] = {
            NOVNC: self._answer_http,
            XVPVNC: self._answer_xvp,
        }

    def start(self, listeners: dict[str, socket.socket]) -> None:
        """Serve from ``listeners``: listening sockets by door."""
        self._started = True
        self._loop.start()
        for door, listener in listeners.items():
            self._doorway.listen(listener, door)

    def set_context(self, context: ssl.SSLContext | None) -> None:
        """Shake hands with another certificate from the next connection on."""
        self._doorway.context = context

    def is_alive(self) -> bool:
        """Whether the event loop has come round since this was last asked."""
        return self._loop.is_alive()

    def stop(self, drain_timeout_s: float) -> None:
        """Close the doors, let handshakes end, give consoles their time, end the rest with 1001, and the threads."""
        closed = threading.Event()

        def close_doors() -> None:
            self._doorway.close()
            closed.set()

        if not self._started:
            self._loop.stop()
            return
        self._loop.call_soon(close_doors)
        closed.wait(_WRITE_TIMEOUT_S)
        for threads in (self._page_threads, self._threads):
            threads.shutdown(wait=True)
        self._relay.stop(drain_timeout_s)
        self._loop.stop()

    def admit(self, request: ConsoleRequest) -> Admission:
        """Let a browser in (:class:`porthole_novncproxy.handler.Desk`).

        :raises PortholeError: when it may not in.
        """
        return self._gate.admit(request)

    def find_source(self, request: ConsoleRequest) -> str:
        """Return the address of the client itself (:class:`porthole_novncproxy.handler.Desk`)."""
        return self._gate.find_source(request)

    def respond(self, raw_path: str, if_modified_since: str | None) -> PageResponse:
        """Return the page at ``raw_path`` (:class:`porthole_novncproxy.handler.Desk`)."""
        return self._pages.respond(raw_path, if_modified_since)

    def open_websocket(self, connection: Connection, admission: Admission) -> None:
        """Relay an upgraded browser (:class:`porthole_novncproxy.handler.Desk`)."""
        self._relay.open(connection.sock, bytes(connection.received), admission, WebSocketCodec())

    def _on_request(self, connection: Connection, head: bytes) -> None:
        """Give a request to a handshake thread; turn it away when too many wait already."""
        if not self._places.acquire(blocking=False):
            LOG.warning("Client turned away", client=connection.address[0], limit="[novncproxy] handshake_backlog")
            self._doorway.refuse(connection, HTTPStatus.SERVICE_UNAVAILABLE, "Retry-After: 1")
            return
        threads = self._threads if connection.door == XVPVNC or _ASKS_FOR_CONSOLE.search(head) else self._page_threads
        future = threads.submit(self._answer, connection, head, time.monotonic())
        future.add_done_callback(lambda _done: self._places.release())

    def _answer(self, connection: Connection, head: bytes, arrived_at: float) -> None:
        """Answer one request, in a handshake thread; a fault in one must not silence the thread."""
        if time.monotonic() - arrived_at > self._patience_s:
            # Nobody waits for it any more, and those behind it still do.
            LOG.warning("Client turned away", client=connection.address[0], limit="[novncproxy] request_timeout")
            self._loop.call_soon(
                lambda: self._doorway.refuse(connection, HTTPStatus.SERVICE_UNAVAILABLE, "Retry-After: 1")
            )
            return
        kept = False
        context = RequestContext(overwrite=False)
        try:
            connection.sock.settimeout(_WRITE_TIMEOUT_S)
            with serving(context):
                kept = self._doors[connection.door](connection, head)
        except OSError as exc:
            LOG.debug("Client went away", context=context, client=connection.address[0], error=type(exc).__name__)
        except Exception:
            LOG.exception("Request failed", context=context, client=connection.address[0])
        finally:
            if not kept:
                self._doorway.hang_up(connection)

    def _answer_http(self, connection: Connection, head: bytes) -> bool:
        """Answer a browser; return whether somebody else has its socket now."""
        handler = ConsoleHandler(connection, head, self)
        if handler.handed_over:
            return True
        if handler.close_connection:
            return False
        self._doorway.await_request(connection)
        return True

    def _answer_xvp(self, connection: Connection, head: bytes) -> bool:
        """Answer a native viewer; return whether somebody else has its socket now."""
        try:
            admission = self._gate.admit(xvp.parse_request(head, connection.address[0]))
        except errors.PortholeError as exc:
            xvp.refuse(connection, exc)
            return False
        try:
            xvp.accept(connection)
        except BaseException:
            admission.close()
            raise
        self._relay.open(connection.sock, bytes(connection.received), admission, RawCodec())
        return True

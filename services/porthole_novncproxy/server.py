# SPDX-License-Identifier: Apache-2.0
"""The proxy of one process: doors, handshake threads, relay, joined.

The path of a connection: :mod:`doorway` reads its request in the event loop; a handshake thread answers it
(:mod:`handler` for browsers, :mod:`xvp` for native viewers), which asks :mod:`admission`; an admitted one goes to
:mod:`relay`, back in the loop. Built and driven by :mod:`porthole_novncproxy.daemon`.
"""

import concurrent.futures
import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

from porthole_common import errors
from porthole_common.context import RequestContext, build_request_context, serving
from porthole_common.deadline import DeadlinePassed
from porthole_common.log import get_logger
from porthole_common.model import ConsoleType
from porthole_common.rpc import log_unanswered
from porthole_novncproxy.admission.access import ConsoleRequest
from porthole_novncproxy.admission.gate import Admission, Gate, log_refusal
from porthole_novncproxy.front import connect
from porthole_novncproxy.front.handler import ConsoleHandler
from porthole_novncproxy.front.handshakes import Handshake, Handshakes
from porthole_novncproxy.front.listener import MAX_HEAD_BYTES, Connection, Doorway, Overtaken
from porthole_novncproxy.front.pages import PageResponse, Pages
from porthole_novncproxy.sessions.registry import SessionRegistry
from porthole_relay.codec import RawCodec, WebSocketCodec
from porthole_relay.loop import Loop

LOG = get_logger(__name__)
# Files are read by threads of their own: no console that waits for a daemon holds up a page.
_PAGE_THREADS = 4
_ASKS_FOR_CONSOLE = re.compile(rb"\n(?:upgrade:|accept:[^\n]*application/json)", re.IGNORECASE)
NOVNC = "novnc"
XVPVNC = "xvpvnc"
# How long a client may take to take an answer.
_WRITE_TIMEOUT_S = 10.0
# What is on its way to a client that takes it is there sooner; who does not take it holds up no end.
_PAGES_END_S = 2.0
# Longer than the two calls and the dial of a handshake take with the options as they are by themselves.
_HANDSHAKES_END_S = 27.0


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
        relay: SessionRegistry,
        max_header_bytes: int = MAX_HEAD_BYTES,
    ) -> None:
        self._gate = gate
        self._pages = pages
        self._loop = loop
        self._relay = relay
        self._started = False
        self._doorway = Doorway(self._loop, context, ssl_only, request_timeout_s, self._on_request, max_header_bytes)
        self._handshakes = Handshakes(loop, handshake_threads, handshake_backlog, request_timeout_s, self._answer_late)
        self._page_threads = concurrent.futures.ThreadPoolExecutor(_PAGE_THREADS, thread_name_prefix="page")
        self._page_places = threading.Semaphore(_PAGE_THREADS + handshake_backlog)
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
        self._page_threads.shutdown(wait=True)
        self._doorway.wait_answered(_PAGES_END_S)
        self._handshakes.stop(_HANDSHAKES_END_S)
        self._relay.stop(drain_timeout_s)
        self._loop.stop()

    def admit(self, request: ConsoleRequest) -> Admission:
        """Let a browser in (:class:`porthole_novncproxy.front.handler.Desk`).

        :raises PortholeError: when it may not in.
        """
        return self._gate.admit(request)

    def find_source(self, request: ConsoleRequest) -> str:
        """Return the address of the client itself (:class:`porthole_novncproxy.front.handler.Desk`)."""
        return self._gate.find_source(request)

    def respond(self, raw_path: str, if_modified_since: str | None) -> PageResponse:
        """Return the page at ``raw_path`` (:class:`porthole_novncproxy.front.handler.Desk`)."""
        return self._pages.respond(raw_path, if_modified_since)

    def open_websocket(self, connection: Connection, admission: Admission) -> None:
        """Relay an upgraded browser (:class:`porthole_novncproxy.front.handler.Desk`)."""
        self._relay.open(connection.sock, bytes(connection.received), admission, WebSocketCodec())

    def _on_request(self, connection: Connection, head: bytes) -> None:
        """Give a request to a thread; turn it away when too many wait already."""
        context = build_request_context()
        if connection.door == XVPVNC or _ASKS_FOR_CONSOLE.search(head):
            has_place = self._handshakes.begin(connection, context, lambda: self._answer(connection, context, head))
        else:
            has_place = self._page_places.acquire(blocking=False)
            if has_place:
                self._page_threads.submit(self._answer_page, connection, context, head, time.monotonic())
        if not has_place:
            self._turn_away(connection, "handshake_backlog")

    def _turn_away(self, connection: Connection, limit: str) -> None:
        LOG.warning("Client turned away", client=connection.address[0], limit=f"[novncproxy] {limit}")
        self._doorway.refuse(connection, HTTPStatus.SERVICE_UNAVAILABLE, "Retry-After: 1")

    def _answer_page(self, connection: Connection, context: RequestContext, head: bytes, arrived_at: float) -> None:
        """Answer a request for a page, in a thread for pages."""
        try:
            if time.monotonic() - arrived_at > self._patience_s:
                # Nobody waits for it any more, and those behind it still do.
                self._loop.call_soon(lambda: self._turn_away(connection, "request_timeout"))
            else:
                self._answer(connection, context, head)
        finally:
            self._page_places.release()

    def _answer(self, connection: Connection, context: RequestContext, head: bytes) -> None:
        """Answer one request, in a thread for it; a fault in one must not silence the thread."""
        kept = False
        try:
            connection.sock.settimeout(_WRITE_TIMEOUT_S)
            with serving(context):
                kept = self._doors[connection.door](connection, head)
        except Overtaken:
            kept = True
        except OSError as exc:
            LOG.debug("Client went away", context=context, client=connection.address[0], error=type(exc).__name__)
        except Exception:
            LOG.exception("Request failed", context=context, client=connection.address[0])
        if not kept:
            with contextlib.suppress(Overtaken):
                connection.claim()
                self._doorway.hang_up(connection)

    def _answer_late(self, handshake: Handshake) -> None:
        """Tell a client that it takes too long, in the loop's thread."""
        connection, subject = handshake.connection, handshake.job.subject
        connection.sock.setblocking(False)
        if subject is None:
            self._turn_away(connection, "request_timeout")
            return
        source = connection.source or connection.address[0]
        topic, method = subject
        with serving(handshake.context):
            unavailable = log_unanswered(handshake.context, topic, method, DeadlinePassed())
            status = log_refusal(unavailable, ConsoleType(connection.door), source)
        request_id = f"X-OpenStack-Request-ID: {handshake.context.request_id}"
        self._doorway.refuse(connection, status, "Retry-After: 1", request_id)

    def _answer_http(self, connection: Connection, head: bytes) -> bool:
        """Answer a browser; return whether somebody else has its socket now."""
        handler = ConsoleHandler(connection, head, self)
        if handler.handed_over:
            return True
        if handler.answer is not None:
            self._doorway.answer(connection, handler.answer, is_last=handler.close_connection)
            return True
        if handler.close_connection:
            return False
        self._doorway.await_request(connection)
        return True

    def _answer_xvp(self, connection: Connection, head: bytes) -> bool:
        """Answer a native viewer; return whether somebody else has its socket now."""
        try:
            admission = self._gate.admit(connect.parse_request(head, connection.address[0]))
        except errors.PortholeError as exc:
            connection.claim()
            connect.refuse(connection, exc)
            return False
        try:
            connection.claim()
            connect.accept(connection)
        except BaseException:
            admission.close()
            raise
        self._relay.open(connection.sock, bytes(connection.received), admission, RawCodec())
        return True

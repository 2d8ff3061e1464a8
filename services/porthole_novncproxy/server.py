# SPDX-License-Identifier: Apache-2.0
"""The proxy of one process: its parts, joined, and the way of a request through them.

1. :mod:`~porthole_novncproxy.front.listener` reads a request in the event loop, and gives it to :class:`ProxyServer`.
2. The answer is found: at once (:func:`~porthole_novncproxy.front.handler.find_quick_answer`); in a thread for pages;
   or, for a console, in a thread of :mod:`~porthole_novncproxy.front.in_flight`, which asks
   :mod:`~porthole_novncproxy.admission.gate`.
3. Back in the loop, :mod:`~porthole_novncproxy.front.sender` sends the answer.
4. The connection waits for its next request, ends, or is the relay's: a console.

Built and driven by :mod:`porthole_novncproxy.daemon`.
"""

import concurrent.futures
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import TypeVar

from porthole_common import errors, metrics, pools
from porthole_common.context import RequestContext, build_request_context, serving
from porthole_common.deadline import Deadline, DeadlinePassed
from porthole_common.log import get_logger
from porthole_common.rpc import log_unanswered
from porthole_novncproxy.admission.descriptors import OUT_OF_DESCRIPTORS
from porthole_novncproxy.admission.gate import Admission, Gate
from porthole_novncproxy.doors import ClientProtocol, Door
from porthole_novncproxy.front import connect, handler
from porthole_novncproxy.front.connection import Connection, PendingRequest
from porthole_novncproxy.front.in_flight import RequestInFlight, RequestsInFlight
from porthole_novncproxy.front.listener import Listener
from porthole_novncproxy.front.pages import Pages
from porthole_novncproxy.front.request import MAX_HEADER_BYTES, Request
from porthole_novncproxy.front.responses import Answer, Response, Upgrade, build_bare, build_error
from porthole_novncproxy.front.sender import Outgoing, Sender, open_outgoing
from porthole_novncproxy.front.tls_handshakes import HandshakeThread
from porthole_novncproxy.front.waiting import Waiting, WaitingLimits
from porthole_novncproxy.sessions.registry import SessionRegistry
from porthole_relay.loop import Loop

LOG = get_logger(__name__)
# Files are read by threads of their own: no console that waits for a daemon holds up a page.
_PAGE_THREADS = 4
# How long the loop may take to close the ports.
_CLOSE_TIMEOUT_S = 10.0
# After this time the proxy stops waiting for slow clients.
_ANSWERS_END_S = 2.0
# Longer than the three calls and the dial of a console take with the options' defaults.
_CONSOLES_END_S = 38.0
_RETRY_AFTER = ("Retry-After", "1")

Result = TypeVar("Result")
# Request, door, the peer's address, gate and deadline.
ConsoleAnswerer = Callable[[Request, Door, str, Gate, Deadline], Answer]


class ProxyServer:
    """Serves every door until :meth:`stop`."""

    def __init__(
        self,
        *,
        loop: Loop,
        gate: Gate,
        pages: Pages,
        tls_context: ssl.SSLContext | None,
        ssl_only: bool,
        request_timeout_s: float,
        handshake_threads: int,
        handshake_backlog: int,
        sessions: SessionRegistry,
        waiting_limits: WaitingLimits,
        max_header_bytes: int = MAX_HEADER_BYTES,
    ) -> None:
        self._gate = gate
        self._pages = pages
        self._loop = loop
        self._sessions = sessions
        self._started = False
        self._waiting = Waiting(waiting_limits, gate.is_trusted_proxy)
        self._sender = Sender(loop, self._waiting)
        self._handshakes = HandshakeThread(loop)
        self._listener = Listener(
            loop=loop,
            sender=self._sender,
            waiting=self._waiting,
            handshakes=self._handshakes,
            tls_context=tls_context,
            ssl_only=ssl_only,
            timeout_s=request_timeout_s,
            on_request=self._on_request,
            max_header_bytes=max_header_bytes,
        )
        self._in_flight = RequestsInFlight(
            loop, handshake_threads, handshake_backlog, request_timeout_s, self._answer, self._answer_late
        )
        self._page_threads = concurrent.futures.ThreadPoolExecutor(_PAGE_THREADS, thread_name_prefix="page")
        self._page_work = pools.Work("page", _PAGE_THREADS)
        self._page_places = threading.Semaphore(_PAGE_THREADS + handshake_backlog)
        self._request_timeout_s = request_timeout_s

    def start(self, sockets: Mapping[Door, socket.socket]) -> None:
        """Serve from ``sockets``, which listen already."""
        self._started = True
        self._loop.start()
        for door, sock in sockets.items():
            self._listener.listen(sock, door)

    def set_tls_context(self, tls_context: ssl.SSLContext | None) -> None:
        """Shake hands with another certificate from the next connection on."""
        self._listener.tls_context = tls_context

    def set_waiting_limits(self, limits: WaitingLimits) -> None:
        """Bound the connections that are not admitted by other limits from the next connection on."""
        self._waiting.limits = limits

    def is_alive(self) -> bool:
        """Whether the event loop has turned since the last call."""
        return self._loop.is_alive()

    def stop(self, drain_timeout_s: float) -> None:
        """Close the doors, and answer the pending requests. Drain the consoles; close the remaining ones with 1001."""
        if not self._started:
            self._loop.stop()
            return
        with contextlib.suppress(TimeoutError):
            self._loop.ask(self._close_doors, _CLOSE_TIMEOUT_S)
        self._handshakes.close()
        self._page_threads.shutdown(wait=True)
        self._in_flight.stop(_CONSOLES_END_S)
        # Consoles that were just admitted are the relay's before it drains.
        self._sender.wait_sent(_ANSWERS_END_S)
        self._sender.drop_rest()
        self._sessions.stop(drain_timeout_s)
        self._loop.stop()

    def _close_doors(self) -> None:
        self._listener.close()
        self._sender.close()

    def _on_request(self, pending: PendingRequest) -> None:
        """Have a request answered at once or in a thread; turn it away when too many wait. In the loop's thread."""
        door, request = pending.connection.door, pending.request
        context = build_request_context()
        is_viewer = door.client_protocol is ClientProtocol.CONNECT
        quick = None if is_viewer else handler.find_quick_answer(request, self._pages)
        if quick is None and (is_viewer or handler.is_console_work(request)):
            quick = handler.refuse_source(request, door, pending.connection.address, self._gate, context.request_id)
        if quick is not None:
            self._answer(pending, quick)
            return
        if is_viewer:
            has_place = self._begin_console(pending, context, connect.answer_console)
        elif handler.is_console_work(request):
            has_place = self._begin_console(pending, context, handler.answer_console)
        else:
            has_place = self._begin_page(pending, context)
        if not has_place:
            self._turn_away(pending, "handshake_backlog")

    def _begin_console(self, pending: PendingRequest, context: RequestContext, find_answer: ConsoleAnswerer) -> bool:
        connection = pending.connection

        def work(deadline: Deadline) -> Answer:
            return find_answer(pending.request, connection.door, connection.address, self._gate, deadline)

        return self._in_flight.begin(
            pending, context, lambda deadline: self._run(pending, context, lambda: work(deadline))
        )

    def _begin_page(self, pending: PendingRequest, context: RequestContext) -> bool:
        if not self._page_places.acquire(blocking=False):
            return False
        self._page_threads.submit(self._find_page, pending, context, time.monotonic())
        return True

    def _find_page(self, pending: PendingRequest, context: RequestContext, arrived_at: float) -> None:
        """Find and open a page, in a thread for pages."""
        try:
            if time.monotonic() - arrived_at > self._request_timeout_s:
                # This client has left, and the clients behind it still wait.
                self._loop.call_soon(lambda: self._turn_away(pending, "request_timeout"))
                return
            with self._page_work.counted():
                page = self._run(pending, context, lambda: self._open_page(pending.request))
            self._loop.call_soon(lambda: self._send(pending, *page) if page else self._answer(pending, None))
        finally:
            self._page_places.release()

    def _open_page(self, request: Request) -> tuple[Response, Outgoing]:
        has_content = request.method != "HEAD"
        response = _finish(handler.answer_page(request, self._pages), request)
        try:
            return response, open_outgoing(response, has_content)
        except OSError as exc:
            if exc.errno in OUT_OF_DESCRIPTORS:
                LOG.error("Page not opened", reason=exc.strerror)
                failed = build_error(HTTPStatus.SERVICE_UNAVAILABLE, "The proxy is out of descriptors.")
            else:
                failed = build_error(HTTPStatus.NOT_FOUND, "This page has just gone.")
            return failed, open_outgoing(failed, has_content)

    def _answer(self, pending: PendingRequest, answer: Answer | None) -> None:
        """Send the answer; without one, hang up. In the loop's thread."""
        if answer is None:
            self._sender.linger(pending.connection)
        elif isinstance(answer, Upgrade):
            self._send_upgrade(pending, answer)
        else:
            response = _finish(answer, pending.request)
            self._send(pending, response, open_outgoing(response, pending.request.method != "HEAD"))

    def _send(self, pending: PendingRequest, response: Response, outgoing: Outgoing) -> None:
        connection = pending.connection
        self._log_answer(pending, response)
        if response.is_last:
            self._sender.send(connection, outgoing, self._sender.linger)
        else:
            # Not at once: hundreds of pipelined requests would be as many calls within each other.
            self._sender.send(
                connection,
                outgoing,
                lambda _: self._loop.call_soon(lambda: self._listener.receive(connection, pending.rest)),
            )

    def _run(self, pending: PendingRequest, context: RequestContext, work: Callable[[], Result]) -> Result | None:
        """Return what ``work()`` returns; None when it fails, so that a fault in one request ends no thread."""
        try:
            with serving(context):
                return work()
        except Exception:
            LOG.exception("Request failed", context=context, client=self._find_source(pending))
            return None

    def _send_upgrade(self, pending: PendingRequest, upgrade: Upgrade) -> None:
        admission, codec = upgrade.admission, pending.connection.door.build_codec()

        def open_session(connection: Connection) -> None:
            self._waiting.leave(connection)
            self._sessions.open(connection.sock, pending.rest, admission, codec)

        self._log_answer(pending, upgrade.response)
        self._sender.send(
            pending.connection,
            open_outgoing(upgrade.response, has_content=True),
            open_session,
            on_lost=lambda: _lose(admission, pending.connection.door),
        )

    def _turn_away(self, pending: PendingRequest, limit: str) -> None:
        LOG.warning("Client turned away", client=self._find_source(pending), limit=f"[novncproxy] {limit}")
        door, status = pending.connection.door, HTTPStatus.SERVICE_UNAVAILABLE
        metrics.REFUSALS.labels(door.name, limit, str(int(status))).inc()
        if not door.is_for_browsers or handler.is_console_work(pending.request):
            metrics.OPENINGS.labels(door.name, "refused").inc()
        self._answer(pending, build_bare(status, _RETRY_AFTER))

    def _answer_late(self, late: RequestInFlight) -> None:
        """Tell a client that its console takes too long, in the loop's thread."""
        pending, error = late.pending, late.deadline.waits_for
        if error is None:
            self._turn_away(pending, "request_timeout")
            return
        with serving(late.context):
            if isinstance(error, errors.RpcUnavailable):
                error = log_unanswered(late.context, error.topic, error.method, DeadlinePassed())
            status = self._gate.log_refusal(error, pending.connection.door, self._find_source(pending))
        request_id = ("X-OpenStack-Request-ID", late.context.request_id)
        self._answer(pending, build_bare(status, _RETRY_AFTER, request_id))

    def _log_answer(self, pending: PendingRequest, response: Response) -> None:
        if pending.connection.door.is_for_browsers:
            handler.log_answer(pending.request, pending.connection.address, self._gate, response.status)

    def _find_source(self, pending: PendingRequest) -> str:
        """Return the address of the client itself. For a native viewer this is the address of the connection."""
        door, address = pending.connection.door, pending.connection.address
        return handler.find_source(pending.request, address, self._gate) if door.is_for_browsers else address


def _lose(admission: Admission, door: Door) -> None:
    """Close the console of a client that left before its answer."""
    metrics.OPENINGS.labels(door.name, "lost").inc()
    admission.close()


def _finish(response: Response, request: Request) -> Response:
    """Return ``response`` with what the client wants of its connection."""
    return response if request.keeps_connection else replace(response, is_last=True)

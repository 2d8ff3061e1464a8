# SPDX-License-Identifier: Apache-2.0
"""One connection of the HTTP server: what the loop reads and writes, until a request is whole and a thread may have it.

Why not waitress's channel as it is: it has no deadline for a request, parses all that a client sends ahead in one turn
of the loop, lets a thread wait for a client that does not read, and closes on unread bytes, which is a reset. Here one
request is parsed at a time, each state has a deadline, and a refusal is written and lingers in the loop. All methods
but :meth:`Channel.service` are the loop's. Called by :mod:`porthole_api.http_server`.
"""

import logging
import socket
import time
from typing import Any

from waitress.channel import ClientDisconnected, HTTPChannel

from porthole_api.http_parser import RequestParser, find_other_protocol
from porthole_api.http_refusals import BODY_TOO_SLOW, ENDED_EARLY, NOT_HTTP, TOO_SLOW, Refusal, build_answer
from porthole_common.allowance import find_network, find_site
from porthole_common.context import RequestContext, serving
from porthole_common.log import get_logger

LOG = get_logger(__name__)

# From the first byte of a request to the last of its body.
REQUEST_DEADLINE_S = 5.0
# The wait for the first request, and for a client to read more of its answer.
IDLE_TIMEOUT_S = 15.0
# The wait for the next request. Reverse proxies close earlier (Traefik after 90 s, nginx and AWS after 60 s): if the
# server closed first, a POST might be on its way, and a proxy repeats no POST.
NEXT_REQUEST_TIMEOUT_S = 100.0
# For a client to read the whole answer.
ANSWER_DEADLINE_S = 60.0
# So much that follows a refused request is discarded: a client that writes all of its body before it reads gets the
# answer, while a close at once would be a reset.
MAX_DISCARD_BYTES = 4 * 1024 * 1024
DISCARD_TIMEOUT_S = 2.0
# What one connection may bring in one turn of the loop.
_TURN_BYTES = 8 * 1024
_DISCARD_TURN_BYTES = 256 * 1024


class Reports:
    """Where waitress logs: its texts quote the path of a request, which may have a token in it, and are left out."""

    def log(self, level: int, *_: object) -> None:
        """Log that there was something."""
        LOG.log(level, "HTTP server reported", message="waitress has logged an event")

    def info(self, *_: object, **__: object) -> None:
        """Log a client that went away while its request was being answered."""
        LOG.debug("Client disconnected", error="ClientDisconnected")

    def warning(self, *_: object, **__: object) -> None:
        """Log an answer that is other than it says."""
        self.log(logging.WARNING)

    def exception(self, *_: object, **__: object) -> None:
        """Log a bug, with its trace."""
        LOG.error("HTTP server reported", message="a request failed", exc_info=True)


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection (:class:`porthole_api.http_crowd.Connection`)."""

    parser_class = RequestParser
    logger = Reports()
    # waitress's own: the request that arrives, and the one that is being answered.
    request: RequestParser | None
    requests: list[RequestParser]
    connected: bool

    def __init__(self, server: Any, sock: socket.socket, address: Any, adj: Any, map: Any = None) -> None:  # noqa: A002
        self.source, self.site = find_network(str(address[0])), find_site(str(address[0]))
        self.moved_at_s = self.answered_at_s = time.monotonic()
        self._has_answered = False
        # What has arrived behind the request that is being answered.
        self._rest = b""
        # The request that has arrived in part, and since when.
        self._partial: RequestParser | None = None
        self._partial_since_s = 0.0
        # After a refusal: until when, and how much, is discarded.
        self._lingers_until_s: float | None = None
        self._has_shut_down = False
        self._discarded_bytes = 0
        super().__init__(server, sock, address, adj, map)

    @property
    def waits(self) -> bool:
        """Whether no request is being answered, or waits for a thread."""
        return not self.requests

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is under way: no request, not a part of one, no answer."""
        return not (self.requests or self.request or self._rest or self.total_outbufs_len)

    def readable(self) -> bool:
        """Whether the loop is to read. It asks every connection in every turn, hence no call of another method."""
        if self._lingers_until_s is not None:
            return not self.will_close
        return not (self._rest or self.requests or self.total_outbufs_len or self.will_close or self.close_when_flushed)

    def writable(self) -> bool:
        """Whether the loop is to write, or to go on with what has arrived."""
        return bool(
            self.total_outbufs_len or self.will_close or self.close_when_flushed or (self._rest and not self.requests)
        )

    def handle_read(self) -> None:
        """Read some bytes."""
        lingers = self._lingers_until_s is not None
        try:
            data = self.socket.recv(_DISCARD_TURN_BYTES if lingers else _TURN_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data, self.request = b"", None
        if lingers:
            self._discard(data)
        elif data:
            self._rest += data
            self._take_request()
        elif self.request is not None:
            self.refuse(ENDED_EARLY)
        else:
            self.handle_close()

    def handle_write(self) -> None:
        """Write some bytes; go on with the next request when the answer is written."""
        super().handle_write()
        if self.connected and self._lingers_until_s is not None:
            self._shut_down()
        elif self.connected and self._rest and not (self.requests or self.total_outbufs_len or self.close_when_flushed):
            self._take_request()

    def handle_error(self) -> None:
        """Close after a bug."""
        self.logger.exception()
        self.handle_close()

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Write some bytes, in the loop or in a thread."""
        sent: int = super().send(data, do_close)
        if sent:
            self.moved_at_s = time.monotonic()
        return sent

    def service(self) -> None:
        """Answer the request, in a thread."""
        super().service()
        self.answered_at_s = self.moved_at_s = time.monotonic()
        self._has_answered = True

    def check_deadlines(self, now_s: float) -> None:
        """Refuse a request that takes too long to arrive; close a connection that waits too long."""
        if self.requests:
            # The next request is not read meanwhile.
            self._partial = None
        elif self._lingers_until_s is not None:
            if now_s >= self._lingers_until_s:
                self.handle_close()
        elif self.total_outbufs_len:
            if now_s >= min(self.moved_at_s + IDLE_TIMEOUT_S, self.answered_at_s + ANSWER_DEADLINE_S):
                self.handle_close()
        elif self.request is None:
            if now_s >= self.moved_at_s + (NEXT_REQUEST_TIMEOUT_S if self._has_answered else IDLE_TIMEOUT_S):
                self.handle_close()
        elif self.request is not self._partial:
            self._partial, self._partial_since_s = self.request, now_s
        elif now_s >= self._partial_since_s + REQUEST_DEADLINE_S:
            self.refuse(BODY_TOO_SLOW if self.request.headers_finished else TOO_SLOW)

    def refuse(self, refusal: Refusal) -> None:
        """Answer in place of the application; then read what the client still writes, for a while."""
        self._write_refusal(refusal)
        if self.connected:
            self._shut_down()

    def has_moved(self) -> bool:
        """Read once more before the connection has to leave; return whether another one may have to leave instead.

        In a burst of connections, those that were accepted may have sent their request before the loop looks at them.
        """
        moved_at_s = self.moved_at_s
        if self.readable():
            self.handle_read()
        return self.moved_at_s != moved_at_s or not (self.connected and self.waits)

    def leave(self, refusal: Refusal) -> None:
        """Close at once for another connection; a client with a part of a request is told ``refusal``."""
        if self.request is not None and not self.total_outbufs_len and self._lingers_until_s is None:
            self._write_refusal(refusal)
        self.handle_close()

    def _take_request(self) -> None:
        """Parse what has arrived, up to the end of one request."""
        if self.request is None:
            # RFC 9112 section 2.2: empty lines before a request are ignored.
            self._rest = self._rest.lstrip(b"\r\n")
            if (refusal := find_other_protocol(self._rest)) is not None:
                self.refuse(refusal)
                return
        with self.requests_lock:
            request = self._parse()
        if request is None:
            return
        self.request, self.sent_continue = None, False
        if request.refusal is not None or request.empty:
            self.request = request
            self.refuse(request.refusal or NOT_HTTP)
            return
        self.requests.append(request)
        self.server.add_task(self)

    def _parse(self) -> RequestParser | None:
        """Feed the parser; return the request when it is whole."""
        while self._rest:
            if self.request is None:
                self.request = self.parser_class(self.adj)
                # Of the connections that wait, those without a part of a request leave first.
                self.moved_at_s = time.monotonic()
            request: RequestParser = self.request
            self._rest = self._rest[request.received(self._rest) :]
            if request.completed:
                return request
            if request.expect_continue and request.headers_finished and not (self.sent_continue or self._rest):
                self.send_continue()
        return None

    def _write_refusal(self, refusal: Refusal) -> None:
        request, self.request = self.request, None
        self._rest = b""
        self._lingers_until_s = time.monotonic() + DISCARD_TIMEOUT_S
        context = RequestContext(overwrite=False)
        with serving(context):
            LOG.info("Request refused", client=self.addr[0], status=refusal.status, reason=refusal.message)
        method, path = (request.command, request.path) if request is not None else ("", "")
        try:
            self.write_soon(build_answer(refusal, context.request_id, method, path))
        except ClientDisconnected:
            self.handle_close()

    def _shut_down(self) -> None:
        """End the answer, once all of it is written."""
        if self.total_outbufs_len or self._has_shut_down:
            return
        self._has_shut_down = True
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.handle_close()

    def _discard(self, data: bytes) -> None:
        self._discarded_bytes += len(data)
        if not data or self._discarded_bytes >= MAX_DISCARD_BYTES:
            self.handle_close()

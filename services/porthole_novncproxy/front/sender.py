# SPDX-License-Identifier: Apache-2.0
"""Sends answers as fast as clients take them, without a thread held.

Why: a client may take its answer slowly, or not at all. Here such a client costs one descriptor until its deadline.
Called by :mod:`porthole_novncproxy.front.listener` and :mod:`porthole_novncproxy.server`; runs in the loop's thread.
"""

import collections
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from porthole_common.allowance import find_site
from porthole_common.log import get_logger
from porthole_novncproxy.front.connection import Connection
from porthole_novncproxy.front.responses import Response, build_head
from porthole_novncproxy.front.waiting import Waiting
from porthole_relay.loop import READ, WRITE, Loop, Timer

LOG = get_logger(__name__)
# How much of a page is sent at once, how long a client may take to take all of it, and how many clients may be slow.
_SEND_BYTES = 65536
_SEND_TIMEOUT_S = 30.0
MAX_SENDING = 256
# How long a client that was answered for the last time may take to see it.
_LINGER_S = 2.0
_DISCARD_BYTES = 65536


class Outgoing:
    """The bytes that a client is still to be sent: ``start``, and then ``size_bytes`` of ``file``.

    A file may grow or shrink meanwhile, and the client reads by Content-Length.
    """

    def __init__(self, start: bytes, file: BinaryIO | None = None, size_bytes: int = 0) -> None:
        self._left = memoryview(start)
        self._file = file
        self._file_bytes = size_bytes

    def send(self, sock: socket.socket) -> bool:
        """Send once, and return whether everything is sent.

        :raises OSError: when the socket takes nothing now, or never again.
        """
        if not self._left and self._file is not None and self._file_bytes:
            self._left = memoryview(self._file.read(min(_SEND_BYTES, self._file_bytes)))
            self._file_bytes -= len(self._left)
            if not self._left:
                raise ConnectionAbortedError("the file has become shorter than its Content-Length")
        if self._left:
            self._left = self._left[sock.send(self._left[:_SEND_BYTES]) :]
        return not self._left and not self._file_bytes

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def open_outgoing(response: Response, has_content: bool) -> Outgoing:
    """Return the bytes of ``response``, without its content for HEAD; opens its file.

    :raises OSError: when the file is gone.
    """
    start = build_head(response) + (response.body if has_content else b"")
    if response.file is None or not has_content:
        return Outgoing(start)
    return Outgoing(start, response.file.open("rb"), int(dict(response.headers)["Content-Length"]))


@dataclass(eq=False, slots=True)
class _Sending:
    """A connection whose client is sent ``outgoing``. Then ``on_sent`` owns it; ``on_lost`` is told when it is lost.

    ``source``: once the client has not taken all at once.
    """

    connection: Connection
    outgoing: Outgoing
    on_sent: Callable[[Connection], None]
    on_lost: Callable[[], None]
    timer: Timer | None = None
    source: str = ""


@dataclass(eq=False, slots=True)
class _Lingering:
    """A connection whose last answer was sent."""

    connection: Connection
    timer: Timer


class Sender:
    """Sends answers on one loop. Methods are called in the loop's thread unless they say otherwise."""

    def __init__(self, loop: Loop, waiting: Waiting) -> None:
        self._loop = loop
        self._waiting = waiting
        # By descriptor, the client that has been taking its answer for longest first.
        self._sending: dict[int, _Sending] = {}
        self._lingering: dict[int, _Lingering] = {}
        self._closed = False
        self._all_sent = threading.Event()

    def send(
        self,
        connection: Connection,
        outgoing: Outgoing,
        on_sent: Callable[[Connection], None],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Send ``outgoing`` as fast as the client takes it, and then give the connection to ``on_sent``.

        Of more than :data:`MAX_SENDING` clients that take their answers slowly one is given up: of the source with the
        most of them the slowest.
        """
        connection.sock.setblocking(False)
        sending = _Sending(connection, outgoing, on_sent, on_lost)
        # Most answers go out at once, and need neither a timer nor the loop.
        awaited = self._send_piece(sending)
        if not awaited:
            return
        if len(self._sending) >= MAX_SENDING:
            self._give_up(self._find_slowest())
        sending.source = find_site(connection.address)
        sending.timer = self._loop.call_later(_SEND_TIMEOUT_S, lambda: self._give_up(sending))
        self._sending[connection.fd] = sending
        self._waiting.set_idle(connection, lambda: self._give_up(sending))
        self._loop.register(connection.fd, awaited, lambda _events: self._on_ready(sending))

    def _find_slowest(self) -> _Sending:
        counts = collections.Counter(sending.source for sending in self._sending.values())
        most = max(counts, key=counts.__getitem__)
        return next(sending for sending in self._sending.values() if sending.source == most)

    def linger(self, connection: Connection) -> None:
        """End our stream and pass over what still comes, until the client ends its own (RFC 9112 section 9.6).

        Unread input would turn the close into a reset, which takes the answer with it.
        """
        try:
            connection.sock.setblocking(False)
            # TlsSocket's own method takes TLS off the socket too: what still comes is not decrypted.
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            LOG.debug("Client went away", client=connection.address, error=type(exc).__name__)
            self._close(connection)
            return
        lingering = _Lingering(connection, self._loop.call_later(_LINGER_S, lambda: self._end(lingering)))
        self._lingering[connection.fd] = lingering
        self._waiting.set_idle(connection, lambda: self._end(lingering))
        self._loop.register(connection.fd, READ, lambda _events: self._discard(lingering))
        if self._closed:
            self._discard(lingering)
            self._end(lingering)

    def close(self) -> None:
        """Wait no longer for clients to see their last answer."""
        self._closed = True
        for lingering in list(self._lingering.values()):
            self._end(lingering)

    def drop_rest(self) -> None:
        """Hang up on the clients that have not taken their answers. From any thread."""

        def drop() -> None:
            for sending in list(self._sending.values()):
                self._lose(sending)

        self._loop.call_soon(drop)

    def wait_sent(self, timeout_s: float) -> bool:
        """Wait until every answer has been taken, for ``timeout_s`` at most; return whether it has. From any thread.

        Answers that were given to the loop before the call count.
        """
        self._all_sent.clear()
        self._loop.call_soon(self._note_if_all_sent)
        return self._all_sent.wait(timeout_s)

    def _note_if_all_sent(self) -> None:
        if not self._sending:
            self._all_sent.set()

    def _send_piece(self, sending: _Sending) -> int:
        """Send as much as the client takes now, at most one piece: other clients have their turn in between.

        Return the events to wait for; 0 when the connection has another owner, or is closed.
        """
        try:
            is_sent = sending.outgoing.send(sending.connection.sock)
        except ssl.SSLWantReadError:
            return READ
        except (BlockingIOError, ssl.SSLWantWriteError):
            return WRITE
        except OSError as exc:
            LOG.debug("Client went away", client=sending.connection.address, error=type(exc).__name__)
            self._lose(sending)
            return 0
        if not is_sent:
            return WRITE
        self._forget(sending)
        sending.on_sent(sending.connection)
        # Only now: a console must be the relay's before a drain counts the consoles.
        self._note_if_all_sent()
        return 0

    def _on_ready(self, sending: _Sending) -> None:
        awaited = self._send_piece(sending)
        if awaited:
            self._loop.modify(sending.connection.fd, awaited)

    def _give_up(self, sending: _Sending) -> None:
        LOG.info("Answer not taken", client=sending.connection.address, door=sending.connection.door.name)
        self._lose(sending)

    def _lose(self, sending: _Sending) -> None:
        self._forget(sending)
        self._close(sending.connection)
        sending.on_lost()
        self._note_if_all_sent()

    def _forget(self, sending: _Sending) -> None:
        sending.outgoing.close()
        if sending.timer is None:
            return
        sending.timer.cancel()
        self._loop.unregister(sending.connection.fd)
        del self._sending[sending.connection.fd]
        self._waiting.set_busy(sending.connection)

    def _discard(self, lingering: _Lingering) -> None:
        try:
            if lingering.connection.sock.recv(_DISCARD_BYTES):
                return
        except BlockingIOError:
            return
        except OSError as exc:
            LOG.debug("Client went away", client=lingering.connection.address, error=type(exc).__name__)
        self._end(lingering)

    def _end(self, lingering: _Lingering) -> None:
        if self._lingering.pop(lingering.connection.fd, None) is not None:
            lingering.timer.cancel()
            self._loop.unregister(lingering.connection.fd)
            self._close(lingering.connection)

    def _close(self, connection: Connection) -> None:
        self._waiting.leave(connection)
        connection.sock.close()

# SPDX-License-Identifier: Apache-2.0
"""One leg of a console as the relay sees it: a non-blocking stream, plain or TLS.

Why: a plain socket and Python's SSLSocket say "not now" in different ways, and only the plain one takes
scattered buffers. Called by :mod:`porthole_novncproxy.relay` alone, from the loop's thread.
"""

import socket
import ssl

_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Leg:
    """A connected stream. ``mask`` and ``watched`` belong to the relay: what epoll waits for on it."""

    __slots__ = ("at_end", "fd", "mask", "sock", "tls", "watched")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.tls = isinstance(sock, ssl.SSLSocket)
        self.mask = 0
        self.watched = False
        self.at_end = False

    def read_into(self, buffer: memoryview) -> int | None:
        """Read what is there into ``buffer``; return how many bytes, 0 at the end, None when nothing is there.

        :raises OSError: when the connection is broken.
        """
        try:
            return self.sock.recv_into(buffer)
        except _NOT_NOW:
            return None
        except ssl.SSLEOFError:
            # The peer left without close_notify, as browsers do.
            return 0

    def has_buffered(self) -> bool:
        """Say whether TLS holds decrypted bytes that epoll will not tell of."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def write(self, header: bytes, payload: memoryview | bytes) -> int:
        """Write header and payload as far as they go at once; return how many bytes of both went.

        :raises OSError: when the connection is broken.
        """
        try:
            if self.tls:
                return self.sock.send(b"".join((header, payload)) if header else payload)
            if header:
                return self.sock.sendmsg((header, payload))
            return self.sock.send(payload)
        except _NOT_NOW:
            return 0

    def write_end(self) -> None:
        """Tell the peer that no more comes, and keep reading; over TLS that is left to :meth:`close`."""
        if not self.tls:
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the descriptor."""
        self.sock.close()

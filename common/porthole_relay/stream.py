# SPDX-License-Identifier: Apache-2.0
"""One connection of a console: a non-blocking stream, plain or TLS.

Why: a plain socket and Python's SSLSocket say "not now" in different ways, and only the plain one takes scattered
buffers. Called by :mod:`porthole_relay.transport` and :mod:`porthole_relay.pipe`, from the loop's thread.
"""

import array
import fcntl
import socket
import ssl
import termios
from collections.abc import Sequence

# What one TLS record holds (RFC 8446 section 5.1), and what is not worth a record of its own.
_RECORD_BYTES = 16384
_SHORT_BYTES = 1024
# Where ioctl puts its answer: one for all, since one thread asks.
_UNSENT = array.array("i", [0])
_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Stream:
    """A connected socket. ``mask`` and ``watched`` belong to its transport: what epoll waits for on it."""

    __slots__ = ("_late", "fd", "mask", "sock", "tls", "watched")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.tls = isinstance(sock, ssl.SSLSocket)
        self.mask = 0
        self.watched = False
        # How the last read would have ended, had it not had bytes to return.
        self._late: OSError | int | None = None

    def read_into(self, buffer: memoryview) -> int | None:
        """Read what is there into ``buffer``; return how many bytes, 0 at the end, None when nothing is there.

        :raises OSError: when the connection is broken.
        """
        if self._late is not None:
            return self._repeat_end()
        try:
            size = self.sock.recv_into(buffer)
        except _NOT_NOW:
            return None
        except ssl.SSLEOFError:
            # The peer left without close_notify, as browsers do.
            return 0
        return self._read_records(buffer, size) if self.tls and size else size

    def _read_records(self, buffer: memoryview, size: int) -> int:
        """Read on behind ``size`` bytes, a record at a time: each alone would be a write and a frame of its own."""
        while size < len(buffer):
            try:
                read = self.sock.recv_into(buffer[size:])
            except _NOT_NOW:
                break
            except ssl.SSLEOFError:
                read = 0
            except OSError as exc:
                self._late = exc
                break
            if not read:
                self._late = 0
                break
            size += read
        return size

    def _repeat_end(self) -> int:
        if isinstance(self._late, OSError):
            raise self._late
        return 0

    def has_buffered(self) -> bool:
        """Say whether there are decrypted bytes, or an end, that epoll will not tell of."""
        return isinstance(self.sock, ssl.SSLSocket) and (self._late is not None or self.sock.pending() > 0)

    def write(self, parts: Sequence[bytes | memoryview]) -> int:
        """Write ``parts`` (at most 64) one after another as far as they go at once; return how many bytes went.

        :raises OSError: when the connection is broken.
        """
        try:
            if self.tls:
                return self._write_records(parts)
            if len(parts) == 1:
                return self.sock.send(parts[0])
            return self.sock.sendmsg(parts)
        except _NOT_NOW:
            return 0

    def _write_records(self, parts: Sequence[bytes | memoryview]) -> int:
        """Write to TLS, which takes one buffer and one record (16 KiB) at a time.

        A short part in front, a frame's header, shares the record of what follows it.
        """
        view = memoryview(parts[0])
        rest = list(parts[1:])
        if rest and len(view) < _SHORT_BYTES:
            view = memoryview(b"".join((view, rest[0][:_RECORD_BYTES])))
            rest[0] = rest[0][_RECORD_BYTES:]
        written = 0
        try:
            for part in (view, *rest):
                left = memoryview(part)
                while left:
                    sent = self.sock.send(left)
                    written += sent
                    left = left[sent:]
        except _NOT_NOW:
            return written
        return written

    def free_bytes(self) -> int:
        """Return about how many bytes the kernel takes for this stream at once, on top of what it holds; 0 for TLS.

        SO_SNDBUF counts the kernel's own bookkeeping too, about as much again as the data (socket(7)).
        """
        if self.tls:
            return 0
        fcntl.ioctl(self.fd, termios.TIOCOUTQ, _UNSENT)
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2 - _UNSENT[0]

    def write_end(self) -> None:
        """Tell the peer that no more comes, and keep reading.

        Over TLS that is the end of TCP alone: behind a close_notify of its own OpenSSL drops what the peer still says.
        """
        # SSLSocket's own method would take TLS off the socket.
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def close(self) -> None:
        """Close the descriptor."""
        self.sock.close()

# SPDX-License-Identifier: Apache-2.0
"""One connection of a console: a non-blocking stream, plain or TLS.

Why: a plain socket and TLS say "not now" in different ways, and only the plain one takes scattered
buffers. Called by :mod:`porthole_relay.stream_pair` and :mod:`porthole_relay.pipe`, from the loop's thread.
"""

import array
import fcntl
import socket
import ssl
import termios
from collections.abc import Sequence

from porthole_relay.tls_socket import TlsSocket

# The size of a TLS record (RFC 8446 section 5.1), and a size that is not worth a record of its own.
_RECORD_BYTES = 16384
_SHORT_BYTES = 1024
# A record costs the same however small it is, and a peer may send tens of thousands of one byte. After so many, about a
# millisecond of work, the other sessions have their turn. So many full ones are 1 MiB.
_RECORDS_PER_READ = 64
# ioctl writes its answer here. One is enough, since one thread asks.
_UNSENT = array.array("i", [0])
_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Stream:
    """A connected socket. ``mask`` and ``watched`` belong to the stream pair: the events that epoll waits for."""

    __slots__ = ("_late", "fd", "mask", "sock", "tls", "watched")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.tls = isinstance(sock, TlsSocket)
        self.mask = 0
        self.watched = False
        # The end or the error behind the bytes that the last read returned.
        self._late: OSError | int | None = None

    def read_into(self, buffer: memoryview) -> int | None:
        """Read the bytes that are there into ``buffer``; return their number, 0 at the end, None when there are none.

        :raises OSError: when the connection is broken.
        """
        if self._late is not None:
            return self._repeat_end()
        try:
            size = self.sock.recv_into(buffer)
        except _NOT_NOW:
            return None
        return self._read_records(self.sock, buffer, size) if isinstance(self.sock, TlsSocket) and size else size

    def _read_records(self, sock: TlsSocket, buffer: memoryview, size: int) -> int:
        """Read on behind ``size`` bytes, record by record: each alone would make a write and a frame of its own."""
        # Records without payload count too.
        stop = sock.records + _RECORDS_PER_READ - 1
        while size < len(buffer) and sock.records < stop:
            try:
                read = sock.recv_into(buffer[size:])
            except _NOT_NOW:
                break
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
        """Say whether there are decrypted bytes, or an end, that epoll does not report."""
        return isinstance(self.sock, TlsSocket) and (self._late is not None or self.sock.pending() > 0)

    def write(self, parts: Sequence[bytes | memoryview]) -> int:
        """Write ``parts`` (at most 64), as many bytes as the kernel takes at once; return the number of bytes.

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
        """Write to TLS, which takes one buffer at a time.

        A short part in front, a frame's header, shares the record of what follows it.
        """
        view = memoryview(parts[0])
        rest = list(parts[1:])
        if rest and len(view) < _SHORT_BYTES:
            room = _RECORD_BYTES - len(view)
            view = memoryview(b"".join((view, rest[0][:room])))
            rest[0] = rest[0][room:]
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
        """Return about how many more bytes the kernel takes for this stream at once; 0 for TLS.

        SO_SNDBUF counts the kernel's own bookkeeping too, about as much again as the data (socket(7)).
        """
        if self.tls:
            return 0
        fcntl.ioctl(self.fd, termios.TIOCOUTQ, _UNSENT)
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2 - _UNSENT[0]

    def write_end(self) -> None:
        """Tell the peer that the stream has ended, and keep reading.

        Over TLS this ends TCP alone: after a close_notify of its own OpenSSL drops the bytes of the peer.
        """
        # TlsSocket's own method would take TLS off the socket.
        socket.socket.shutdown(self.sock, socket.SHUT_WR)

    def close(self) -> None:
        """Close the descriptor."""
        self.sock.close()

# SPDX-License-Identifier: Apache-2.0
"""TLS on a connected socket, with an end to the work of each call.

Why not :class:`ssl.SSLSocket`: OpenSSL handles records without payload (KeyUpdate, RFC 8446 section 4.6.3) inside one
read, and Python has it go on for as long as they come. A peer that sends them without end would keep a thread, or the
event loop, inside one call. Here OpenSSL is given the bytes of a few records in each call, and the rest stays with the
kernel, so that epoll tells of it again. A peer whose records carry nothing is hung up on.

Called by :mod:`porthole_novncproxy.front.listener` (clients) and :mod:`porthole_novncproxy.admission.vencrypt` (VNC
servers), whose sockets :mod:`porthole_relay.stream` relays.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from porthole_common.forwarded import normalize_address
from porthole_common.log import get_logger

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

LOG = get_logger(__name__)
Result = TypeVar("Result")
# The header of a record: type, version and the length of the rest (RFC 8446 section 5.1).
_HEADER_BYTES = 5
_LENGTH_OFFSET = 3
# How often a call asks the kernel for more. A record takes two of them at most when it is there, and a KeyUpdate 50 us.
_READS_PER_CALL = 8
# How many records a peer may send without payload, its handshake included. A record with payload makes good for itself
# and one more. Peers change their keys after gigabytes.
MAX_SILENT_RECORDS = 256
_PAID_RECORDS = 2
# How much is encrypted for one send of the kernel.
_WRITE_BYTES = 65536
# How much may wait for a peer that does not read: one write, and many answers to KeyUpdates.
_MAX_UNSENT_BYTES = 2 * _WRITE_BYTES


class TlsFlooded(ConnectionAbortedError):
    """The peer uses TLS for nothing: its records have no payload, or it does not take the answers to them."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TlsSocket(socket.socket):
    """A socket with TLS on it, as :class:`ssl.SSLSocket` is one, for the calls that are used here.

    A call that would wait, or has done its share of work, raises :class:`ssl.SSLWantReadError` or
    :class:`ssl.SSLWantWriteError`; on a socket with a timeout too, so that the caller looks at its deadline in between.
    """

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        """Take the descriptor of ``sock``, with its number and its timeout, out of ``sock``."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        # The record that OpenSSL has not been given whole: a part of its header, or how many bytes are missing behind.
        self._head = b""
        self._missing_bytes = 0
        self._silent_records = 0
        # Whether OpenSSL has told of the end, or of an error.
        self._is_over = False
        # How many records have begun.
        self.records = 0
        # Encrypted bytes that the kernel has not taken, and how many of the caller's bytes they stand for.
        self._unsent = memoryview(b"")
        self._accepted_bytes = 0
        timeout_s = sock.gettimeout()
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.settimeout(timeout_s)

    def do_handshake(self) -> None:
        """Go on with the handshake.

        :raises OSError: when it fails (:class:`ssl.SSLError`), or cannot go on now.
        """
        tls = self._get_tls()
        if not self._unsent:
            self._run(tls.do_handshake)
        self._flush()

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Return up to ``bufsize`` bytes, none at the end, with or without a close_notify.

        :raises OSError: when there are none yet, or the connection is broken.
        """
        tls = self._tls
        if tls is None:
            return super().recv(bufsize, flags)
        try:
            data = self._run(lambda: tls.read(bufsize), is_fed=self._is_over or tls.pending() > 0)
        except ssl.SSLEOFError:
            return b""
        self._pay(len(data))
        return data

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0) -> int:
        """Read into ``buffer`` as :meth:`recv` does; return the number of bytes.

        :raises OSError: as :meth:`recv`.
        """
        tls = self._tls
        if tls is None:
            return super().recv_into(buffer, nbytes, flags)
        size = nbytes or memoryview(buffer).nbytes
        # typeshed has a bytearray here; any writable buffer is taken.
        target: Any = buffer
        try:
            read = int(self._run(lambda: tls.read(size, target), is_fed=self._is_over or tls.pending() > 0))
        except ssl.SSLEOFError:
            return 0
        self._pay(read)
        return read

    def send(self, data: "ReadableBuffer", flags: int = 0, /) -> int:
        """Encrypt and send the beginning of ``data``; return its length.

        After an error for want of room the same bytes must be offered again, as OpenSSL has it.

        :raises OSError: when the kernel does not take it now, or the connection is broken.
        """
        tls = self._tls
        if tls is None:
            return super().send(data, flags)
        self._flush()
        if not self._accepted_bytes:
            left = memoryview(data)[:_WRITE_BYTES]
            while left:
                written = tls.write(left)
                self._accepted_bytes += written
                left = left[written:]
            self._flush()
        accepted, self._accepted_bytes = self._accepted_bytes, 0
        return accepted

    def sendall(self, data: "ReadableBuffer", flags: int = 0, /) -> None:
        """Send all of ``data``, for a socket with a timeout, which is the time for all of it.

        :raises OSError: as :meth:`send`.
        """
        timeout_s = self.gettimeout()
        due_at = None if timeout_s is None else time.monotonic() + timeout_s
        left = memoryview(data)
        while left:
            left = left[self.send(left, flags) :]
            if left and due_at is not None and time.monotonic() > due_at:
                raise TimeoutError("the peer takes its bytes too slowly")

    def pending(self) -> int:
        """Return how many decrypted bytes wait; epoll does not tell of them."""
        return 0 if self._tls is None else self._tls.pending()

    def version(self) -> str | None:
        """Return the version of TLS, such as ``TLSv1.3``; None before the handshake."""
        return None if self._tls is None else self._tls.version()

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the name of the cipher, the version that defines it, and its bits."""
        return None if self._tls is None else self._tls.cipher()

    def get_certificate(self) -> bytes | None:
        """Return the peer's certificate in DER; None when it has shown none."""
        return self._get_tls().getpeercert(True)

    def shutdown(self, how: int, /) -> None:
        """Shut the connection down and take TLS off: bytes that still come are not decrypted."""
        self._tls = None
        super().shutdown(how)

    def _get_tls(self) -> ssl.SSLObject:
        if self._tls is None:
            raise ConnectionAbortedError("the connection has been shut down")
        return self._tls

    def _run(self, call: Callable[[], Result], is_fed: bool = True) -> Result:
        """Call OpenSSL, and give it more bytes while it asks for them, within the share of one call.

        ``is_fed``: it may have what it needs. Otherwise the question alone would cost as much as a record.
        """
        reads_left = 1 if self.gettimeout() else _READS_PER_CALL
        if not is_fed:
            reads_left -= 1
            self._feed()
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                self._flush_answers()
                if not reads_left:
                    raise
            except ssl.SSLError:
                self._is_over = True
                # The alert that says why.
                self._flush_answers()
                raise
            reads_left -= 1
            self._feed()

    def _feed(self) -> None:
        """Give OpenSSL the rest of one record, and the header of the next: nothing of it waits where epoll is blind.

        :raises OSError: when there is nothing to read now, the connection is broken, or the peer floods.
        """
        if self._silent_records > MAX_SILENT_RECORDS:
            self._end_flood("its records have no payload")
        try:
            data = super().recv(self._missing_bytes + _HEADER_BYTES - len(self._head))
        except (BlockingIOError, InterruptedError):
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "nothing to read") from None
        except ConnectionResetError:
            # A peer that leaves with bytes unread, such as session tickets. For ssl.SSLSocket too this is an end.
            data = b""
        if not data:
            self._incoming.write_eof()
            return
        self._incoming.write(data)
        if len(data) < self._missing_bytes:
            self._missing_bytes -= len(data)
            return
        head = self._head + data[self._missing_bytes :]
        self._head, self._missing_bytes = head, 0
        if len(head) == _HEADER_BYTES:
            self._head, self._missing_bytes = b"", int.from_bytes(head[_LENGTH_OFFSET:])
            self.records += 1
            self._silent_records += 1

    def _pay(self, size: int) -> None:
        if not size:
            self._is_over = True
        self._silent_records = max(0, self._silent_records - _PAID_RECORDS)

    def _flush(self) -> None:
        """Send what OpenSSL has for the peer.

        :raises OSError: when the kernel does not take all of it now, or the connection is broken.
        """
        self._collect()
        while self._unsent:
            try:
                sent = super().send(self._unsent)
            except (BlockingIOError, InterruptedError):
                raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "no room") from None
            self._unsent = self._unsent[sent:]

    def _flush_answers(self) -> None:
        """Send OpenSSL's own records as far as they go now; reading tells whether the connection is broken."""
        with contextlib.suppress(OSError):
            self._flush()
        if len(self._unsent) > _MAX_UNSENT_BYTES:
            self._end_flood("it does not take the answers to its records")

    def _collect(self) -> None:
        if self._outgoing.pending:
            data = self._outgoing.read()
            self._unsent = memoryview(b"".join((self._unsent, data)) if self._unsent else data)

    def _end_flood(self, reason: str) -> None:
        peer: object = None
        with contextlib.suppress(OSError):
            peer = self.getpeername()
        address = normalize_address(peer[0]) if isinstance(peer, tuple) else None
        LOG.info("TLS flood ended", peer=address, reason=reason)
        raise TlsFlooded(reason)

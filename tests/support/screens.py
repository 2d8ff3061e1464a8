# SPDX-License-Identifier: Apache-2.0
"""VNC servers by the dozen, each of which says who it is: one thread for all of a host's.

Why: the tests of several hosts ask of every console whether it is the right one, and hold a thousand of them open;
``vnc_servers.py`` has a thread for each connection and no name.
"""

import collections
import contextlib
import selectors
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

GREETING = b"RFB 003.008\n"
NAME_BYTES = 36


class Screens:
    """A listener for each of ``names`` (UUIDs as text): it greets, and answers every byte with its name.

    Made inside :meth:`support.hosts.Host.entered`, they listen there.
    """

    def __init__(self, address: str, names: Sequence[str]) -> None:
        self._selector = selectors.DefaultSelector()
        self._waker, wakened = socket.socketpair()
        self._selector.register(wakened, selectors.EVENT_READ, None)
        self._sockets = [wakened]
        self.ports: dict[str, int] = {}
        # Connections that were accepted, ever, by name.
        self.accepted: collections.Counter[str] = collections.Counter()
        for name in names:
            listener = socket.create_server((address, 0), backlog=512)
            self._sockets.append(listener)
            self._selector.register(listener, selectors.EVENT_READ, name)
            self.ports[name] = listener.getsockname()[1]
        self._listeners = set(self._sockets[1:])
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._run, name="screens", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for key, _events in self._selector.select():
                if key.data is None:
                    return
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj in self._listeners:
                    self._accept(key.fileobj, key.data)
                else:
                    self._answer(key.fileobj, key.data)

    def _accept(self, listener: socket.socket, name: str) -> None:
        sock, _address = listener.accept()
        self.accepted[name] += 1
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(sock)
        self._selector.register(sock, selectors.EVENT_READ, name)
        with contextlib.suppress(OSError):
            sock.sendall(GREETING)

    def _answer(self, sock: socket.socket, name: str) -> None:
        try:
            data = sock.recv(4096)
            sock.sendall(name.encode() * len(data))
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(sock)
            self._open.discard(sock)
            sock.close()

    def stop(self) -> None:
        """Hang up on everybody and release the ports."""
        self._waker.close()
        self._thread.join(10)
        for sock in (*self._sockets, *self._open):
            sock.close()
        self._selector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

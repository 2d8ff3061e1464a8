# SPDX-License-Identifier: Apache-2.0
"""Many clients at once, in one thread: each asks for its console, and asks again when it has been answered.

Why no thread for each: two hundred threads of the test would hold up the proxy in the same process by themselves.
"""

import collections
import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from support.websocket import build_upgrade

_POLL_S = 0.05


class Crowd:
    """``clients`` who share the tokens out among them, and come again ``pause_s`` after each answer, until the end."""

    def __init__(self, port: int, tokens: Sequence[str], clients: int, pause_s: float) -> None:
        self._port, self._pause_s = port, pause_s
        # How often each status was answered; 0 stands for a connection that ended without one.
        self.answers: collections.Counter[int] = collections.Counter()
        self._due = [(0.0, tokens[number % len(tokens)]) for number in range(clients)]
        self._selector = selectors.DefaultSelector()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crowd", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._over.is_set():
            now = time.monotonic()
            due, self._due = (
                [each for each in self._due if each[0] <= now],
                [each for each in self._due if each[0] > now],
            )
            for _at, token in due:
                self._ask(token)
            for key, _events in self._selector.select(_POLL_S):
                self._hear(key)
        for key in list(self._selector.get_map().values()):
            self._leave(key)
        self._selector.close()

    def _ask(self, token: str) -> None:
        sock = socket.create_connection(("127.0.0.1", self._port), 10)
        sock.sendall(build_upgrade(f"/?token={token}"))
        self._selector.register(sock, selectors.EVENT_READ, token)

    def _hear(self, key: selectors.SelectorKey) -> None:
        answer = b""
        with contextlib.suppress(OSError):
            answer = key.fileobj.recv(65536)  # type: ignore[union-attr]
        self.answers[int(answer.split()[1]) if answer else 0] += 1
        self._leave(key)
        self._due.append((time.monotonic() + self._pause_s, key.data))

    def _leave(self, key: selectors.SelectorKey) -> None:
        self._selector.unregister(key.fileobj)
        key.fileobj.close()  # type: ignore[union-attr]

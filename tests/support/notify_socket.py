# SPDX-License-Identifier: Apache-2.0
"""systemd's end of sd_notify(3): a datagram socket that notes what a daemon says, and when."""

import contextlib
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self


class NotifySocket:
    """Listens from the beginning to the end of a ``with``; the path must be short."""

    def __init__(self, path: Path, watchdog_s: float | None = None) -> None:
        """Prepare; with ``watchdog_s`` the daemon is told that it is watched."""
        self.path = path
        self._watchdog_s = watchdog_s
        self._states: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._listen, name="notify socket", daemon=True)

    @property
    def env(self) -> dict[str, str]:
        """What systemd adds to the environment of a service."""
        env = {"NOTIFY_SOCKET": str(self.path)}
        if self._watchdog_s:
            env["WATCHDOG_USEC"] = str(int(self._watchdog_s * 1e6))
        return env

    def states(self) -> list[str]:
        """Return the lines said so far, in order."""
        return list(self._states)

    def count(self, line: str) -> int:
        """Return how often ``line`` was said."""
        return self._states.count(line)

    def __enter__(self) -> Self:
        self._socket.bind(str(self.path))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as last:
            last.sendto(b"", str(self.path))
        self._thread.join(10)
        self._socket.close()

    def _listen(self) -> None:
        while datagram := self._socket.recv(4096):
            self._states += datagram.decode().splitlines()

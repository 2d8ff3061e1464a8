# SPDX-License-Identifier: Apache-2.0
"""What everybody else notices of an attack: the echo of an open console, opening another one, and ``/healthcheck``.

Why one place: each attack is measured in the same way, quiet first and then under attack, in the same test.
"""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from support.processes import wait_until
from support.vnc_servers import GREETING
from support.websocket import RawWebSocket, connect, read_reply

ROUNDS = 12
_ECHO_PAUSE_S = 0.005
_ROUND_PAUSE_S = 0.1
# An attack ends in so many seconds at most: the longest deadline of a connection that is not admitted, and a bit.
_SETTLE_S = 30.0


@dataclass(frozen=True)
class Notice:
    """The 99th percentile of echoes, the slowest opening and the slowest health check, in seconds."""

    echo_p99_s: float
    opening_s: float
    health_s: float

    def __str__(self) -> str:
        return (
            f"echo p99 {1000 * self.echo_p99_s:.1f} ms, opening {1000 * self.opening_s:.0f} ms, "
            f"/healthcheck {1000 * self.health_s:.0f} ms"
        )


class Witness:
    """A user of the proxy at ``port`` who has one console open, and opens others with the same ``token``."""

    def __init__(self, port: int, token: str, context: ssl.SSLContext | None = None) -> None:
        self._port, self._context = port, context
        self._path = f"/?token={token}"
        self._console = self._open()

    def measure(self, rounds: int = ROUNDS) -> Notice:
        """Measure for so many rounds, with echoes all the time."""
        echoes: list[float] = []
        over = threading.Event()
        echoing = threading.Thread(target=self._echo, args=(echoes, over))
        echoing.start()
        openings, checks = [], []
        try:
            for _ in range(rounds):
                openings.append(_time(self.open_another))
                checks.append(_time(self.check_health))
                time.sleep(_ROUND_PAUSE_S)
        finally:
            over.set()
            echoing.join(30)
        assert not echoing.is_alive()
        ranked = sorted(echoes)
        return Notice(ranked[len(ranked) * 99 // 100], max(openings), max(checks))

    def open_another(self) -> None:
        """Open a console, and have an echo of it."""
        with self._open() as console:
            console.send(b"?")
            assert console.read_data(1) == b"?"

    def check_health(self) -> None:
        """See that the proxy calls itself well."""
        with connect(self._port, self._context) as sock:
            sock.sendall(b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert read_reply(sock).status == 200

    def close(self) -> None:
        """Leave."""
        self._console.close()

    def _open(self) -> RawWebSocket:
        with contextlib.ExitStack() as opened:
            console = opened.enter_context(RawWebSocket(self._port, self._path, context=self._context))
            assert console.reply.status == 101, console.reply
            assert console.read_data(len(GREETING)) == GREETING
            opened.pop_all()
        return console

    def _echo(self, echoes: list[float], over: threading.Event) -> None:
        while not over.is_set():
            echoes.append(_time(self._echo_once))
            over.wait(_ECHO_PAUSE_S)

    def _echo_once(self) -> None:
        self._console.send(b"!")
        assert self._console.read_data(1) == b"!"


@contextlib.contextmanager
def leaving_nothing(pid: int) -> Iterator[None]:
    """See that the process has as many descriptors after the block as before, and as many threads."""
    descriptors, threads = _count(pid)
    yield

    def is_settled() -> bool:
        now = _count(pid)
        return now[0] <= descriptors and now[1] <= threads

    wait_until(is_settled, _SETTLE_S, f"{descriptors} descriptors and {threads} threads", lambda: str(_count(pid)))


def _count(pid: int) -> tuple[int, int]:
    """Return how many descriptors and threads the process has."""
    process = Path(f"/proc/{pid}")
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


def _time(call: Callable[[], None]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began

# SPDX-License-Identifier: Apache-2.0
"""People who open consoles one after the other while something is broken, and the count of what became of it.

Why: "no failed request beyond those in flight" is a number, and the same number is wanted of every part that can die.
Each guest has a VNC server that says whose it is (:class:`NamedVnc`), so that a wrong console would be seen.
"""

import base64
import collections
import json
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from support.processes import wait_until
from support.vnc_servers import GREETING, EchoVnc
from support.websocket import BINARY, PING, PONG, RawWebSocket

OPEN_TIMEOUT_S = 30


class NamedVnc(EchoVnc):
    """A VNC server that says its guest's UUID behind its version, and then echoes."""

    def __init__(self, uuid: str) -> None:
        super().__init__(GREETING + uuid.encode())
        self.uuid = uuid


class WrongConsole(AssertionError):
    """A console showed another guest than the one it was asked for."""


@dataclass(frozen=True)
class User:
    """Somebody with a password of ``[api] auth_strategy = http_basic``, in front of a reverse proxy."""

    url: str
    tls: ssl.SSLContext
    name: str
    password: str

    def ask_console(self, uuid: str, console_type: str = "novnc") -> str:
        """Return the URL of a new console.

        :raises urllib.error.HTTPError: when the answer is another than 200.
        """
        body = json.dumps({"os-getVNCConsole": {"type": console_type}}).encode()
        return str(json.loads(self.send(f"/v2.1/servers/{uuid}/action", body))["console"]["url"])

    def send(self, path: str, body: bytes | None = None) -> bytes:
        """Send one request on a connection of its own and return the body of the answer."""
        login = base64.b64encode(f"{self.name}:{self.password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=body, headers=headers)  # noqa: S310
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self.tls))
        with urllib.request.build_opener(*handlers).open(request, timeout=OPEN_TIMEOUT_S) as answer:
            content: bytes = answer.read()
        return content

    def open_console(self, uuid: str) -> "OpenConsole":
        """Ask for a console and open it as a browser does; see :class:`OpenConsole`."""
        return OpenConsole(self.ask_console(uuid), uuid, self.tls)


class Refused(Exception):
    """The upgrade was answered with another status than 101."""


class OpenConsole:
    """A console that said whose it is. One thread at a time may use it."""

    def __init__(self, url: str, uuid: str, tls: ssl.SSLContext) -> None:
        """Open a novnc console's URL as its page does: the WebSocket is beside the page, whatever the page's folder.

        :raises Refused: when it is not let in.
        :raises WrongConsole: when it is another guest's than ``uuid``.
        """
        parts = urllib.parse.urlsplit(url)
        query = urllib.parse.parse_qs(parts.query)["path"][0]
        path = f"{parts.path.rpartition('/')[0]}/{query}"
        headers = [("Origin", f"{parts.scheme}://{parts.netloc}"), ("Sec-WebSocket-Protocol", "binary")]
        self.socket = RawWebSocket(parts.port or 443, path, headers, context=tls, timeout_s=OPEN_TIMEOUT_S)
        with ExitStack() as stack:
            stack.callback(self.close)
            if self.socket.reply.status != 101:
                raise Refused(str(self.socket.reply.status))
            said = self.socket.read_data(len(GREETING) + len(uuid)).decode()
            if said != GREETING.decode() + uuid:
                raise WrongConsole(f"{uuid} was asked for, and this is {said!r}")
            stack.pop_all()

    def is_alive(self) -> bool:
        """Say whether bytes still go through it and come back."""
        probe = b"%016x" % time.monotonic_ns()
        try:
            self.socket.send(probe)
            return self._read(len(probe)) == probe
        except OSError:
            return False

    def _read(self, size: int) -> bytes:
        """Return that many bytes, and answer the pings before them as browsers do."""
        received = b""
        while len(received) < size:
            opcode, payload = self.socket.read_frame()
            if opcode == PING:
                self.socket.send(payload, PONG)
            elif opcode == BINARY:
                received += payload
            else:
                raise ConnectionError(f"opcode {opcode} with {payload!r}")
        return received

    def close(self) -> None:
        """Leave, without a word."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class Tally:
    """What became of the attempts: how many, how long the good ones took, and the others by what they met."""

    attempts: int = 0
    seconds: list[float] = field(default_factory=list)
    failures: collections.Counter[str] = field(default_factory=collections.Counter)
    slowest_failure_s: float = 0.0

    @property
    def failed(self) -> int:
        """How many did not come to a console."""
        return self.failures.total()

    def percentile(self, percent: float) -> float:
        """Return the seconds within which so many of the good attempts were through."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def __str__(self) -> str:
        figures = f"p50 {self.percentile(50):.3f} s, p99 {self.percentile(99):.3f} s" if self.seconds else "none good"
        failures = ", ".join(f"{count} x {what}" for what, count in sorted(self.failures.items())) or "none"
        return f"{self.attempts} consoles asked for and opened, {figures}; failures: {failures}"


class ConsoleLoad:
    """``people`` threads, each opening, using and closing a console of one guest after the other."""

    def __init__(self, open_console: Callable[[str], OpenConsole], uuids: Sequence[str], people: int = 4) -> None:
        self.tally = Tally()
        self._open = open_console
        self._uuids = list(uuids)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._faults: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(n,), name=f"person-{n}") for n in range(people)]

    def wait_for(self, attempts: int, timeout_s: float = 120) -> None:
        """Return when so many more attempts have come to an end than at the call."""
        goal = self.tally.attempts + attempts
        wait_until(lambda: self._faults or self.tally.attempts >= goal, timeout_s, f"{attempts} more attempts")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * OPEN_TIMEOUT_S)
        if self._faults:
            raise self._faults[0]

    def _run(self, number: int) -> None:
        try:
            while not self._stopping.is_set():
                self._attempt(self._uuids[number % len(self._uuids)])
                number += 1
        except BaseException as exc:  # noqa: BLE001 (raised again where the test can see it)
            self._faults.append(exc)

    def _attempt(self, uuid: str) -> None:
        begun = time.monotonic()
        failure = ""
        try:
            with self._open(uuid) as console:
                if not console.is_alive():
                    failure = "lost while in use"
        except urllib.error.HTTPError as exc:
            with exc:
                failure = f"api {exc.code}"
        except Refused as exc:
            failure = f"proxy {exc}"
        except OSError as exc:
            failure = type(exc).__name__
        took = time.monotonic() - begun
        with self._lock:
            self.tally.attempts += 1
            if failure:
                self.tally.failures[failure] += 1
                self.tally.slowest_failure_s = max(self.tally.slowest_failure_s, took)
            else:
                self.tally.seconds.append(took)

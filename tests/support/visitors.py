# SPDX-License-Identifier: Apache-2.0
"""Users of a site (``site.py``): who open consoles all the time, who keep one open, and what is counted of them.

Why: a test breaks a part under this load, and reads in the :class:`Ledger` what that meant to users: which answers, how
late, and above all whether any console was the wrong one.
"""

import collections
import contextlib
import http.client
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from support.balancer import CONSOLE_PATH, NAMES, SERVED_BY
from support.balancer import PORT as BALANCER_PORT
from support.console import token_of
from support.deadlines import MACHINE_SLACK_S, REVOCATION_S
from support.processes import POLL_S
from support.screens import GREETING, NAME_BYTES, Screens
from support.site import API_PORT, NOVNC_PORT, Instance, Site
from support.websocket import BINARY, PING, PONG, RawWebSocket

# A user's patience, above every deadline of Porthole and of haproxy.
PATIENCE_S = 40.0
PACE_S = 0.8
# The controller of an answer that no controller gave.
NOBODY = -1
# What is no answer: the connection ended, or the user's patience did.
BROKEN, TIMEOUT, REFUSED, WRONG = "broken", "timeout", "refused", "wrong console"
# A console that was open, and ended before its screen could say who it is.
ENDED = "ended"
ASK, OPEN = "ask", "open"
_UPGRADE = [("Sec-WebSocket-Protocol", "binary")]
Outcome = int | str


class WrongConsole(AssertionError):
    """A console showed another instance than the one that was asked for."""


@dataclass(frozen=True)
class Request:
    """One request: ``kind`` (ask the api, open on the proxy), the controller that got it, and what came of it."""

    kind: str
    controller: int
    instance: Instance
    begun: float
    seconds: float
    outcome: Outcome

    @property
    def failed(self) -> bool:
        """Whether the user did not get what he asked for."""
        return self.outcome not in {200, 101}


@dataclass
class Ledger:
    """Everything that happened to users; appending is all that threads do to it."""

    requests: list[Request] = field(default_factory=list)
    opened_seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    revoked_opened: list[str] = field(default_factory=list)
    revoked_alive: list["Session"] = field(default_factory=list)
    revocations: int = 0

    def failures(self) -> dict[str, int]:
        """Return how many requests failed, by kind and outcome."""
        return dict(collections.Counter(f"{r.kind} {r.outcome}" for r in self.requests if r.failed))

    def p99_s(self) -> float:
        """Return what 99 of 100 consoles took at most, from asking to the first byte of the right screen."""
        ranked = sorted(self.opened_seconds)
        return ranked[min(len(ranked) - 1, len(ranked) * 99 // 100)] if ranked else 0.0


class Session:
    """A console that stays open. ``controller`` is the one whose proxy it runs through."""

    def __init__(self, instance: Instance, controller: int, socket: RawWebSocket) -> None:
        self.instance, self.controller = instance, controller
        self._socket = socket
        self._rest = b""

    def check(self) -> None:
        """Have the screen say who it is.

        :raises WrongConsole: when it is another.
        :raises OSError: when the console has ended, or is silent.
        """
        if self.instance.guest:
            self._read_update()
            return
        self._socket.send(b"?")
        name = self._read(NAME_BYTES).decode()
        if name != self.instance.uuid:
            raise WrongConsole(f"{self.instance.uuid} was asked for, and {name} answers")

    def greet(self) -> None:
        """Read the greeting, and a guest's name; see :meth:`check`."""
        if self._read(len(GREETING)) != GREETING:
            raise WrongConsole("no VNC server")
        if self.instance.guest:
            self._greet_guest(self.instance.guest)
        else:
            self.check()

    def _greet_guest(self, guest: str) -> None:
        """Go through RFB's handshake without authentication up to ServerInit (RFC 6143 section 7.1 to 7.3)."""
        self._socket.send(GREETING)
        self._read(self._read(1)[0])
        self._socket.send(b"\x01")
        if self._read(4) != b"\0\0\0\0":
            raise WrongConsole("SecurityResult is not OK")
        self._socket.send(b"\x01")
        name = self._read(int.from_bytes(self._read(24)[20:], "big")).decode()
        if name != f"QEMU ({guest})":
            raise WrongConsole(f"{guest} was asked for, and {name} answers")

    def _read_update(self) -> None:
        """Have a guest show its first pixel; what has changed elsewhere comes along (RFC 6143 section 7.5.3, 7.6.1)."""
        self._socket.send(b"\x03\x00\x00\x00\x00\x00\x00\x01\x00\x01")
        message, rectangles = self._read(1)[0], int.from_bytes(self._read(3)[1:], "big")
        if message != 0:
            raise WrongConsole(f"message {message} is no FramebufferUpdate")
        for _ in range(rectangles):
            header = self._read(12)
            # Raw, of four bytes for a pixel: QEMU's format as long as no other is asked for.
            self._read(4 * int.from_bytes(header[4:6], "big") * int.from_bytes(header[6:8], "big"))

    def _read(self, size: int) -> bytes:
        """Return the next bytes, and answer the pings before them as browsers do."""
        while len(self._rest) < size:
            opcode, payload = self._socket.read_frame()
            if opcode == PING:
                self._socket.send(payload, PONG)
            elif opcode == BINARY:
                self._rest += payload
            else:
                raise ConnectionError(f"opcode {opcode} with {payload!r}")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def read_end(self) -> int:
        """Return the code of the proxy's close frame (RFC 6455 section 7.4), whatever comes before it."""
        return self._socket.read_close()[0]

    def is_over(self) -> bool:
        """Say whether the proxy ends it in time."""
        self._socket.sock.settimeout(REVOCATION_S + MACHINE_SLACK_S)
        try:
            self._read(1 << 20)
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    def close(self) -> None:
        """Leave without a word."""
        self._socket.close()


@dataclass(frozen=True)
class Way:
    """How a user comes to a controller; ``controller`` is None where a balancer chooses, and says so in its answer."""

    address: str
    controller: int | None = None
    api_port: int = API_PORT
    novnc_port: int = NOVNC_PORT
    console_path: str = "/"

    def read_controller(self, served_by: str | None) -> int:
        """Return who answered; :data:`NOBODY` where the balancer did in his place."""
        if self.controller is not None:
            return self.controller
        return NAMES.index(served_by) if served_by else NOBODY


class User:
    """Somebody at the site's fifth host, who knows both controllers and tries the other when one refuses to connect.

    With ``balanced`` he knows haproxy alone, and the controllers that he is told to take mean nothing. Every method
    must be called inside that host.
    """

    def __init__(self, site: Site, ledger: Ledger, balanced: bool = False) -> None:
        self._ledger = ledger
        self._ways = [Way(controller.host.address, index) for index, controller in enumerate(site.controllers)]
        if balanced:
            address = site.start_balancer().address
            self._ways = [Way(address, None, BALANCER_PORT, BALANCER_PORT, CONSOLE_PATH)]

    def ask(self, instance: Instance, controller: int) -> tuple[Outcome, str]:
        """Ask an api for a console; return status and URL."""
        body = json.dumps({"os-getVNCConsole": {"type": "novnc"}})
        headers = {"Content-Type": "application/json"}

        def send(way: Way) -> tuple[Outcome, Any, int]:
            connection = http.client.HTTPConnection(way.address, way.api_port, timeout=PATIENCE_S)
            with contextlib.closing(connection):
                connection.request("POST", f"/v2.1/servers/{instance.uuid}/action", body, headers)
                response = connection.getresponse()
                text = response.read()
            url = json.loads(text)["console"]["url"] if response.status == 200 else ""
            return response.status, url, way.read_controller(response.getheader(SERVED_BY))

        return self._record(ASK, instance, controller, send)

    def open(self, instance: Instance, token: str, controller: int) -> tuple[Outcome, Session | None]:
        """Open the console on a proxy and see that it is the right one; return status and session."""

        def send(way: Way) -> tuple[Outcome, Any, int]:
            path = f"{way.console_path}?token={token}"
            socket = RawWebSocket(way.novnc_port, path, _UPGRADE, host=way.address, timeout_s=PATIENCE_S)
            controller = way.read_controller(socket.reply.headers.get(SERVED_BY))
            session = Session(instance, controller, socket)
            with contextlib.ExitStack() as stack:
                stack.callback(session.close)
                if socket.reply.status != 101:
                    return socket.reply.status, None, controller
                try:
                    session.greet()
                except ConnectionError:
                    return ENDED, None, controller
                stack.pop_all()
            return 101, session, controller

        return self._record(OPEN, instance, controller, send)

    def visit(self, instance: Instance, api: int, proxy: int) -> Session | None:
        """Ask and open; return the session, or None when it did not come to that."""
        begun = time.monotonic()
        outcome, url = self.ask(instance, api)
        if outcome != 200:
            return None
        session = self.open(instance, token_of(url), proxy)[1]
        if session:
            self._ledger.opened_seconds.append(time.monotonic() - begun)
        return session

    def _record(
        self, kind: str, instance: Instance, controller: int, send: Callable[[Way], tuple[Outcome, Any, int]]
    ) -> tuple[Outcome, Any]:
        begun = time.monotonic()
        outcome: Outcome = REFUSED
        result = None
        for way in self._ways[controller:] + self._ways[:controller]:
            controller = NOBODY if way.controller is None else way.controller
            try:
                outcome, result, controller = send(way)
            except ConnectionRefusedError:
                continue
            except TimeoutError:
                outcome = TIMEOUT
            except WrongConsole as exc:
                self._ledger.wrong.append(str(exc))
                outcome = WRONG
            except (OSError, http.client.HTTPException):
                outcome = BROKEN
            break
        seconds = time.monotonic() - begun
        self._ledger.requests.append(Request(kind, controller, instance, begun, seconds, outcome))
        return outcome, result


class Crowd:
    """Users who open consoles of ``instances`` all the time, through haproxy, until :meth:`stop`."""

    def __init__(self, site: Site, ledger: Ledger, instances: Sequence[Instance], size: int = 3) -> None:
        self._site, self._instances = site, instances
        self._user = User(site, ledger, balanced=True)
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, name=f"user-{number}") for number in range(size)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        with self._site.user.entered():
            while not self._over.wait(PACE_S):
                session = self._user.visit(random.choice(self._instances), 0, 0)
                if session:
                    session.close()

    def stop(self) -> None:
        """Let everybody end what is under way."""
        self._over.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)
            assert not thread.is_alive(), f"{thread.name} waits for ever"


class Revocations:
    """Has tokens of one instance of the second compute revoked all the time, and tries those that are.

    The instance goes to another port and comes back to where it was: what a token says is right again, and it opens
    nothing for the one reason that it was revoked. Revoked is what compute's log calls so.
    """

    def __init__(self, site: Site, ledger: Ledger, instance: Instance) -> None:
        self._site, self._ledger, self._instance = site, ledger, instance
        # Apart: most of these requests are meant to be refused.
        self._user = User(site, Ledger())
        self._compute = site.computes[instance.compute]
        with self._compute.host.entered():
            self._elsewhere = Screens(self._compute.host.address, [instance.uuid])
        self._over = threading.Event()
        self._dead: list[str] = []
        self._sessions: list[Session] = []
        self._thread = threading.Thread(target=self._run, name="revocations")
        self._thread.start()

    def _run(self) -> None:
        with self._site.user.entered():
            while not self._over.wait(PACE_S):
                outcome, url = self._user.ask(self._instance, random.randrange(2))
                if outcome == 200:
                    self._revoke(token_of(url))

    def _revoke(self, token: str) -> None:
        session = self._user.open(self._instance, token, random.randrange(2))[1]
        if session:
            self._sessions.append(session)
        for ports in (self._elsewhere.ports, {}):
            before = self._count()
            self._site.write_instances(self._compute, ports)
            self._compute.porthole.compute.signal(signal.SIGHUP)
            deadline = time.monotonic() + 2 * PATIENCE_S
            while self._count() == before:
                assert time.monotonic() < deadline, "the tokens were not revoked"
                # The whole log is read each time.
                time.sleep(5 * POLL_S)
        self._dead.append(token)
        self._ledger.revocations += 1
        self._try(token)

    def _count(self) -> int:
        return self._compute.porthole.compute.log().count(f"Revocation done instance={self._instance.uuid} ")

    def _try(self, token: str) -> None:
        for index in range(2):
            outcome, session = self._user.open(self._instance, token, index)
            if session:
                session.close()
            if outcome == 101:
                self._ledger.revoked_opened.append(f"{token[:8]} at controller {index + 1}")

    def stop(self) -> None:
        """Try all of them once more; what their consoles were must be over."""
        self._over.set()
        self._thread.join(4 * PATIENCE_S)
        assert not self._thread.is_alive()
        with self._site.user.entered():
            for token in self._dead:
                self._try(token)
        for session in self._sessions:
            if not session.is_over():
                self._ledger.revoked_alive.append(session)
            session.close()
        self._elsewhere.stop()

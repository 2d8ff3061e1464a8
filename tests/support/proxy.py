# SPDX-License-Identifier: Apache-2.0
"""The proxy in this process, on real sockets, with consoleauth and compute faked at their two ports.

Why: what the proxy does with clients and VNC servers needs no broker; a test issues a token for any server, and says
what the daemons answer. The whole path on real daemons is tested elsewhere.
"""

import os
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline
from porthole_common.model import Claim, ConnectInfo, ConsoleType, Target, TokenReason
from porthole_novncproxy.admission.access import OriginPolicy
from porthole_novncproxy.admission.circuit_breaker import HostCircuitBreaker
from porthole_novncproxy.admission.dialler import Dialler
from porthole_novncproxy.admission.gate import Gate
from porthole_novncproxy.admission.host_questions import HostQuestions
from porthole_novncproxy.admission.limits import Limits, SessionCounter
from porthole_novncproxy.admission.token_failures import TokenFailures
from porthole_novncproxy.admission.vencrypt import Security
from porthole_novncproxy.doors import DOORS
from porthole_novncproxy.front.pages import Pages
from porthole_novncproxy.front.waiting import WaitingLimits
from porthole_novncproxy.server import ProxyServer
from porthole_novncproxy.sessions.registry import SessionRegistry
from porthole_relay.liveness import LivenessPolicy
from porthole_relay.loop import Loop
from porthole_relay.pipe import Watermarks
from support.vnc_servers import GREETING
from support.websocket import RawWebSocket


class Address(Protocol):
    """Where a VNC server is; every server of ``vnc_servers.py`` and ``xvnc.py`` is one."""

    host: str
    port: int


class FakeConsoleauth:
    """Knows the tokens that a test issued; raises :attr:`error` when there is one."""

    def __init__(self) -> None:
        self.tokens: dict[str, ConnectInfo] = {}
        self.asked: list[str] = []
        self.error: errors.PortholeError | None = None

    def check_token(self, context: RequestContext, token: str, *, deadline: Deadline) -> ConnectInfo:
        """Answer as consoleauth does."""
        self.asked.append(token)
        if self.error is not None:
            raise self.error
        if token not in self.tokens:
            raise errors.TokenInvalid(TokenReason.UNKNOWN)
        if self.tokens[token].uses == 0:
            raise errors.TokenInvalid(TokenReason.SPENT)
        return self.tokens[token]

    def spend_token(self, context: RequestContext, token: str, *, deadline: Deadline) -> None:
        """Take one use, as consoleauth does."""
        info = self.tokens[token]
        if not info.uses:
            raise errors.TokenInvalid(TokenReason.SPENT)
        self.tokens[token] = replace(info, uses=info.uses - 1)


class FakeCompute:
    """Confirms every target, or sends the proxy to :attr:`moved_to`; raises :attr:`error` when there is one.

    It answers only while :attr:`may_answer` is set.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.error: errors.PortholeError | None = None
        self.moved_to: Target | None = None
        self.may_answer = threading.Event()
        self.may_answer.set()

    def validate_console(
        self,
        context: RequestContext,
        compute_host: str,
        claim: Claim,
        deadline: Deadline,
    ) -> Target:
        """Answer as compute does."""
        self.asked.append(claim.instance_uuid)
        self.may_answer.wait(30)
        if self.error is not None:
            raise self.error
        return self.moved_to or claim.target

    def validate_consoles(
        self,
        context: RequestContext,
        compute_host: str,
        consoles: Sequence[ConnectInfo],
        deadline: Deadline,
        timeout_s: float,
    ) -> list[Target | errors.PortholeError]:
        """Answer as compute does."""
        answers: list[Target | errors.PortholeError] = []
        for info in consoles:
            try:
                answers.append(self.validate_console(context, compute_host, info.claim, deadline))
            except errors.PortholeError as exc:
                answers.append(exc)
        return answers


class InProcessProxy:
    """A running :class:`ProxyServer` on free ports of loopback."""

    def __init__(
        self,
        web_root: Path,
        *,
        allowed_origins: tuple[str, ...] = (),
        trusted_proxies: tuple[str, ...] = (),
        limits: Limits | None = None,
        dial_timeout_s: float = 5.0,
        request_timeout_s: float = 5.0,
        handshake_threads: int = 8,
        pause_s: float = 0.0,
        marks: Watermarks | None = None,
        liveness: LivenessPolicy | None = None,
        enforce_session_timeout: bool = False,
        context: ssl.SSLContext | None = None,
        ssl_only: bool = False,
        host: str = "127.0.0.1",
        security: Security | None = None,
        security_timeout_s: float = 10.0,
        waiting_limits: WaitingLimits | None = None,
        force_shared: bool = False,
    ) -> None:
        self.consoleauth = FakeConsoleauth()
        self.compute = FakeCompute()
        self.counter = SessionCounter(limits or Limits(2000, 2000, 2000, 2000))
        self.gate = Gate(
            consoleauth=self.consoleauth,
            questions=HostQuestions(self.compute, 10.0),
            counter=self.counter,
            circuit_breaker=HostCircuitBreaker(time.monotonic, pause_s),
            origins=OriginPolicy(allowed_origins, trusted_proxies),
            token_failures=TokenFailures(time.monotonic),
            dialler=Dialler(dial_timeout_s, handshake_threads, pause_s),
            security=security,
        )
        self.loop = Loop("relay")
        self.sessions = SessionRegistry(
            self.loop,
            marks or Watermarks(262144, 65536),
            liveness or LivenessPolicy(),
            enforce_session_timeout,
            security_timeout_s,
            force_shared=force_shared,
        )
        self.server = ProxyServer(
            loop=self.loop,
            sessions=self.sessions,
            gate=self.gate,
            pages=Pages(str(web_root), ["'self'"]),
            tls_context=context,
            ssl_only=ssl_only,
            request_timeout_s=request_timeout_s,
            handshake_threads=handshake_threads,
            handshake_backlog=1024,
            waiting_limits=waiting_limits or WaitingLimits(2000, 2000),
        )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listeners = {door: socket.create_server((host, 0), family=family, backlog=1024) for door in DOORS}
        self.novnc_port, self.xvp_port = (sock.getsockname()[1] for sock in self._listeners.values())
        self.server.start(self._listeners)

    def issue(
        self, server: Address, console_type: ConsoleType = ConsoleType.NOVNC, scheme: str = "http", **fields: Any
    ) -> str:
        """Return a token for ``server``; ``fields`` are further ones of ConnectInfo."""
        token = str(uuid.uuid4())
        self.consoleauth.tokens[token] = ConnectInfo(
            **{
                "instance_uuid": str(uuid.uuid4()),
                "console_type": console_type,
                "host": server.host,
                "port": server.port,
                "access_url": f"{scheme}://localhost:{self.novnc_port}/console.html",
                "compute_host": "host-1",
                **fields,
            }
        )
        return token

    def instance_of(self, token: str) -> str:
        """Return the instance a token is for."""
        return self.consoleauth.tokens[token].instance_uuid

    def stop(self) -> None:
        """Stop it and release everything."""
        self.compute.may_answer.set()
        self.server.stop(0)
        for listener in self._listeners.values():
            listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def open_console(proxy: InProcessProxy, server: Address, **options: Any) -> RawWebSocket:
    """Return a raw WebSocket on ``server``, behind the greeting; ``options`` are its own."""
    with ExitStack() as opened:
        client = opened.enter_context(RawWebSocket(proxy.novnc_port, f"/?token={proxy.issue(server)}", **options))
        assert client.reply.status == 101
        assert client.read_data(len(GREETING)) == GREETING
        opened.pop_all()
    return client


def assert_echoes(client: RawWebSocket, payload: bytes = b"ping?") -> None:
    """See that ``client``, whose VNC server returns what it gets, gets ``payload`` back."""
    client.send(payload)
    assert client.read_data(len(payload)) == payload


def make_web_root(directory: Path) -> Path:
    """Return a folder with as much of a noVNC as the proxy asks for, and some things that it must not show."""
    root = directory / "novnc"
    (root / "core").mkdir(parents=True)
    page = (
        "<!DOCTYPE html><html><head><title>noVNC</title></head><body><script src='core/rfb.js'></script></body></html>"
    )
    (root / "vnc_lite.html").write_text(page, encoding="utf-8")
    (root / "core" / "rfb.js").write_text("export default class RFB {}\n", encoding="utf-8")
    (root / "large.js").write_text("// padding\n" * 40_000, encoding="utf-8")
    (directory / "secret.txt").write_text("secret", encoding="utf-8")
    (root / "escape.txt").symlink_to(directory / "secret.txt")
    return root


def count_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def count_children() -> int:
    """How many child processes this process has, those included that have ended and wait to be reaped."""
    count = 0
    for task in Path("/proc/self/task").iterdir():
        # A thread may end in between.
        with suppress(FileNotFoundError, ProcessLookupError):
            count += len((task / "children").read_text(encoding="ascii").split())
    return count


def resident_bytes() -> int:
    """How much memory this process holds now; its peak, of which an earlier test may be the cause, says nothing."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def own_socket(local: tuple[str, int] | None = None, peer: tuple[str, int] | None = None) -> Iterator[socket.socket]:
    """Give a duplicate of this process's socket with that local or peer address: the proxy's end of a connection.

    :raises LookupError: when there is none.
    """
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            # Closed by its thread in the meantime.
            continue
        with sock:
            try:
                found = sock.getsockname()[:2], sock.getpeername()[:2]
            except OSError:
                continue
            if (local is None or found[0] == local) and (peer is None or found[1] == peer):
                yield sock
                return
    raise LookupError(f"no socket from {local} to {peer}")

# SPDX-License-Identifier: Apache-2.0
"""porthole-api without a bus: the whole WSGI application on fakes of the two services it calls.

Why: its unit tests speak HTTP to it, as its clients do, and the fakes stand where the RPC ports are.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import webob
from oslo_config import cfg

from porthole_api.app import build_app
from porthole_api.consoles import NO_WISH, ConsoleOpener
from porthole_api.directory import Directory
from porthole_api.policy import Policy
from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline
from porthole_common.history.event import HistoryEvent
from porthole_common.model import ConnectInfo, ConsoleType, Instance, InstanceState, RevocationReason
from porthole_common.notifications import Inventory
from porthole_common.open_session import OpenSession, SessionFilter
from porthole_consoleauth.rpcapi import Authorized, TokenWish

HOST = "host-a"
TOKEN = "0d9f1c2e-7a50-4c1e-9b43-5a1f5ac0ffee"
EXPIRES_AT = datetime(2026, 1, 31, 12, 10, tzinfo=UTC)
NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def build_uuid(number: int) -> str:
    """Return the ``number``-th well-formed UUID."""
    return f"5a9d4f5e-0000-4000-8000-{number:012x}"


def build_instance(number: int, name: str | None = None, **fields: Any) -> Instance:
    """Return a running instance; ``fields`` are those of :class:`Instance`."""
    fields = {"state": InstanceState.RUNNING, **fields}
    return Instance(build_uuid(number), name or f"vm{number}", **fields)


def build_conf(**api_options: Any) -> cfg.ConfigOpts:
    """Return a configuration of its own with ``[api]`` options overridden."""
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "porthole-api", [], default_config_files=[], default_config_dirs=[])
    for name, value in api_options.items():
        conf.set_override(name, value, "api")
    return conf


class FakeCompute:
    """Stands at :class:`porthole_compute.rpcapi.ComputeAPI`: gives consoles, or raises ``error``.

    ``changes`` are fields of a console that is not the one that was asked for.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[RequestContext, str, str, str]] = []
        self.inventories_asked = 0
        self.changes: dict[str, Any] = {}

    def get_vnc_console(
        self,
        context: RequestContext,
        host: str,
        instance_uuid: str,
        console_type: str,
        deadline: Deadline | None = None,
    ) -> ConnectInfo:
        self.calls.append((context, host, instance_uuid, console_type))
        if self.error:
            raise self.error
        url = f"http://proxy.example:6080/console.html?path=%3Ftoken%3D{TOKEN}"
        info = ConnectInfo(instance_uuid, ConsoleType(console_type), "127.0.0.1", 5900, url, host, token=TOKEN)
        return replace(info, **self.changes)

    def publish_inventory(self, context: RequestContext) -> None:
        self.inventories_asked += 1
        if self.error:
            raise self.error


class FakeConsoleAuth:
    """Stands at :class:`porthole_consoleauth.rpcapi.ConsoleAuthAPI`: takes and knows tokens, or raises ``error``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[RequestContext, ConnectInfo]] = []
        self.wishes: list[TokenWish] = []
        self.events: list[HistoryEvent] = []
        self.revoked: list[str] = []
        self.asked: list[tuple[dict[str, str], int, str | None]] = []

    def authorize_console(
        self,
        context: RequestContext,
        connect_info: ConnectInfo,
        deadline: Deadline | None = None,
        wish: TokenWish = NO_WISH,
    ) -> Authorized:
        self.calls.append((context, connect_info))
        self.wishes.append(wish)
        if self.error:
            raise self.error
        return Authorized(EXPIRES_AT, wish.uses or None)

    def check_token(
        self, context: RequestContext, token: str, server: str | None = None, deadline: Deadline | None = None
    ) -> ConnectInfo:
        if self.error:
            raise self.error
        if token != TOKEN:
            raise errors.TokenInvalid("unknown, expired or revoked")
        return ConnectInfo(build_uuid(1), ConsoleType.NOVNC, "127.0.0.1", 5900, "http:", HOST)

    def delete_tokens_for_instance(
        self,
        context: RequestContext,
        instance_uuid: str,
        compute_host: str | None = None,
        reason: RevocationReason = RevocationReason.ENDED,
        server: str | None = None,
    ) -> int:
        if self.error:
            raise self.error
        self.revoked.append(instance_uuid)
        return 3

    def list_events(
        self, context: RequestContext, filters: dict[str, str], limit: int, marker: str | None = None
    ) -> tuple[list[HistoryEvent], bool]:
        if self.error:
            raise self.error
        self.asked.append((filters, limit, marker))
        return self.events[:limit], len(self.events) > limit


class FakeSessions:
    """Stands at :class:`porthole_api.proxies.ProxySessions`: has sessions, or raises ``error``."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.open: list[OpenSession] = []
        self.unreachable: list[str] = []
        self.asked: list[tuple[dict[str, str], int, str | None]] = []
        self.ended: list[tuple[dict[str, str], str]] = []

    def list_sessions(
        self, context: RequestContext, asked: SessionFilter, limit: int, marker: str | None = None
    ) -> tuple[list[OpenSession], bool, list[str]]:
        self.asked.append((asked.to_primitive(), limit, marker))
        if self.error:
            raise self.error
        found = [each for each in self.open if each.id == asked.equal.get("session", each.id)]
        return found[:limit], len(found) > limit, self.unreachable

    def end_sessions(
        self, context: RequestContext, asked: SessionFilter, reason: str, proxy: str | None = None
    ) -> tuple[int, list[str]]:
        if self.error:
            raise self.error
        self.ended.append((asked.to_primitive(), reason))
        return len(self.open), self.unreachable


class FakeClock:
    """A monotonic clock that stands still until it is told, in seconds."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class FakeCondition(threading.Condition):
    """A condition whose waits take no time: each moves ``clock``, after ``on_wait`` had its chance to notify."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(threading.RLock())
        self.clock = clock
        self.waits_s: list[float] = []
        self.on_wait: Callable[[], None] | None = None

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None, "a wait without a deadline"
        self.waits_s.append(timeout)
        if self.on_wait is not None:
            act, self.on_wait = self.on_wait, None
            act()
            return True
        self.clock.now_s += timeout
        return False


def build_directory(clock: FakeClock | None = None) -> Directory:
    """Return an empty directory, whose computes were asked long ago."""
    clock = clock or FakeClock()
    directory = Directory(clock, lambda: NOW, FakeCondition(clock))
    directory.mark_asked()
    clock.now_s += 60
    return directory


class Api:
    """The application, on fakes; ``request`` sends it one HTTP request."""

    def __init__(self, instances: Sequence[Instance] = (), conf: cfg.ConfigOpts | None = None) -> None:
        self.clock = FakeClock()
        self.compute = FakeCompute()
        self.consoleauth = FakeConsoleAuth()
        self.directory = build_directory(self.clock)
        self.directory.update(Inventory(HOST, tuple(instances)))
        self.conf = conf or build_conf()
        policy = Policy(self.conf)
        opener = ConsoleOpener(self.directory, self.compute, self.consoleauth, policy)  # type: ignore[arg-type]
        self.sessions = FakeSessions()
        self.application = build_app(self.conf, opener, self.sessions)

    def request(
        self,
        method: str,
        path: str,
        microversion: str | None = None,
        headers: dict[str, str] | None = None,
        environ: dict[str, Any] | None = None,
        **attributes: Any,
    ) -> webob.Response:
        """Send it; ``attributes`` are those of ``webob.Request`` (``json_body``, ``body``, ``content_type``).

        ``environ`` goes over the WSGI environment last of all.
        """
        request = webob.Request.blank(path, method=method, headers=headers or {})
        if "json_body" in attributes:
            request.content_type = "application/json"
        for name, value in attributes.items():
            setattr(request, name, value)
        if microversion:
            request.headers["OpenStack-API-Version"] = f"compute {microversion}"
        request.environ.update(environ or {})
        return request.get_response(self.application)

    def get(self, path: str, microversion: str | None = None, **arguments: Any) -> webob.Response:
        return self.request("GET", path, microversion, **arguments)

    def post(self, path: str, json_body: Any, microversion: str | None = None, **arguments: Any) -> webob.Response:
        return self.request("POST", path, microversion, json_body=json_body, **arguments)

# SPDX-License-Identifier: Apache-2.0
"""Discovery and the questions, over a bus in memory with real endpoints behind it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from oslo_config import cfg

from porthole_api.endpoint import ApiEndpoint
from porthole_cli.doctor import bus as bus_module
from porthole_cli.doctor.bus import DISCOVERY_S, TOPICS, RpcBus
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.discovery import DaemonProcess, DiscoveryEndpoint
from porthole_common.model import ConnectInfo, ConsoleType
from porthole_common.rpc import Rpc, RpcTarget
from porthole_consoleauth.endpoint import ConsoleAuthEndpoint
from porthole_consoleauth.memory_store import MemoryStore
from support.bus import parse_global_conf
from support.compute_fakes import make_conf
from support.descriptions import INSTANCE, make_vitals

TOKEN = "0f1e2d3c-4b5a-4978-8697-a5b4c3d2e1f0"
INFO = ConnectInfo(INSTANCE, ConsoleType.NOVNC, "127.0.0.1", 1, "http://proxy:6080/console.html", "host1", token=TOKEN)


class Hosts:
    def list_silences(self) -> dict[str, float]:
        return {"compute1": 1.5}

    def list_duplicates(self, limit: int) -> dict[str, list[str]]:
        return {}


class Publisher:
    def publish(self, *_arguments: Any) -> None:
        return


class EndpointThatHears:
    """A proxy that notes who asks."""

    target = RpcTarget(version="1.1")

    def __init__(self) -> None:
        self.users: list[str | None] = []

    def dial_targets(self, context: RequestContext, targets: Any) -> list[Any]:
        self.users.append(context.user_id)
        return []


@contextmanager
def daemons(rpc: Rpc) -> Iterator[None]:
    """An api and two consoleauths, each with a store of its own, and somebody whom nobody knows."""
    consoleauths = [
        ConsoleAuthEndpoint(MemoryStore(), Publisher(), 600, lambda name=name: make_vitals(name))  # type: ignore[misc]
        for name in ("a", "b")
    ]
    api: Any = ApiEndpoint(make_conf(), Hosts())
    served = [
        (TOPICS["api"], "api-1", [api, DiscoveryEndpoint(rpc, "api", "a", "api-1")]),
        (TOPICS["consoleauth"], "a", [consoleauths[0], DiscoveryEndpoint(rpc, "consoleauth", "a", "a")]),
        (TOPICS["consoleauth"], "b", [consoleauths[1], DiscoveryEndpoint(rpc, "consoleauth", "b", "b")]),
        (TOPICS["compute"], "x", [DiscoveryEndpoint(rpc, "stranger", "x", "x")]),
    ]
    servers = [rpc.get_server(*each) for each in served]
    for server in servers:
        server.start()
    yield
    for server in servers:
        server.stop()


@pytest.fixture
def bus() -> Iterator[RpcBus]:
    parse_global_conf()
    rpc = Rpc(cfg.CONF, 10, transport_url="fake://")
    bus = RpcBus(rpc)
    with daemons(rpc):
        yield bus
    # Closes the Rpc too, which is why it is not one of fake_bus.
    bus.close()
    cfg.CONF.reset()


def test_the_roll_call_ends_when_nobody_is_missing(bus: RpcBus) -> None:
    started = time.monotonic()
    presences = bus.discover({"api": 1, "consoleauth": 2, "compute": 0})
    assert [(each.daemon, each.host) for each in presences] == [
        ("api", "a"),
        ("consoleauth", "a"),
        ("consoleauth", "b"),
    ]
    assert time.monotonic() - started < DISCOVERY_S


def test_who_is_missing_is_waited_for_and_no_longer(bus: RpcBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "DISCOVERY_S", 2.0)
    assert len(bus.discover({"consoleauth": 3})) == 3


def test_each_is_asked_by_the_name_that_it_gave(bus: RpcBus) -> None:
    api, *stores = bus.discover({"api": 1, "consoleauth": 2})
    assert bus.describe(api).silent_s == {"compute1": 1.5}
    assert [bus.describe(store).vitals.host for store in stores] == ["a", "b"]


def test_the_one_who_asks_is_named(bus: RpcBus) -> None:
    heard = EndpointThatHears()
    server = bus._rpc.get_server(TOPICS["novncproxy"], "n", [heard])
    server.start()
    try:
        assert bus.dial(DaemonProcess("novncproxy", "n", "n", "n"), []) == []
    finally:
        server.stop()
    assert heard.users == ["porthole-doctor"]


class CountingRpc(Rpc):
    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


def test_a_bus_closes_the_rpc_that_it_owns() -> None:
    parse_global_conf()
    rpc = CountingRpc(cfg.CONF, 10, transport_url="fake://")
    RpcBus(rpc, owns_rpc=False).close()
    assert rpc.closed == 0
    RpcBus(rpc).close()
    assert rpc.closed == 1
    cfg.CONF.reset()


def test_a_token_is_checked_and_revoked_where_it_is_said(bus: RpcBus, caplog: pytest.LogCaptureFixture) -> None:
    bus.authorize(INFO)
    known = []
    for server in ("a", "b"):
        try:
            bus.check(TOKEN, server)
            known.append(server)
        except errors.TokenInvalid:
            continue
    assert len(known) == 1, "each has a store of its own"
    bus.revoke(INSTANCE, {"a": "b", "b": "a"}[known[0]])
    bus.check(TOKEN, known[0])
    bus.revoke(INSTANCE, known[0])
    with pytest.raises(errors.TokenInvalid):
        bus.check(TOKEN, known[0])
    assert TOKEN not in caplog.text

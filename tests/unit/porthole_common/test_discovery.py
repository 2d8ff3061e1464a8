# SPDX-License-Identifier: Apache-2.0
import logging
import queue
from typing import Any

import pytest

from porthole_common import errors
from porthole_common.context import RequestContext, build_daemon_context
from porthole_common.discovery import (
    DISCOVERY_TOPIC,
    DaemonProcess,
    DiscoveryAnswers,
    DiscoveryEndpoint,
    DiscoveryWatch,
    ask_processes,
)
from support.bus import fake_bus


def test_everybody_who_is_asked_answers_by_name() -> None:
    arrived: queue.Queue[DaemonProcess] = queue.Queue()
    with fake_bus() as bus:
        servers = [
            bus.get_server("first", "a", [DiscoveryEndpoint(bus, "compute", "host1", "a")]),
            bus.get_server("first", "b", [DiscoveryEndpoint(bus, "compute", "host2", "b")]),
            bus.get_server("second", "c", [DiscoveryEndpoint(bus, "api", "host1", "c")]),
            bus.get_server("third", "d", [DiscoveryEndpoint(bus, "novncproxy", "host1", "d")]),
            bus.get_server(DISCOVERY_TOPIC, "doctor", [DiscoveryAnswers(arrived.put)]),
        ]
        for server in servers:
            server.start()
        ask_processes(bus, build_daemon_context(), ["first", "second"])
        answers = [arrived.get(timeout=10) for _ in range(3)]
        for server in servers:
            server.stop()
    assert {(each.daemon, each.host, each.server) for each in answers} == {
        ("compute", "host1", "a"),
        ("compute", "host2", "b"),
        ("api", "host1", "c"),
    }
    assert len({each.process for each in answers}) == 3
    assert arrived.empty()


class BrokenBus:
    """An Rpc whose broker takes nothing."""

    def get_client(self, topic: str, version: str) -> "BrokenBus":
        return self

    def publish(self, context: RequestContext, method: str, **values: Any) -> None:
        raise errors.RpcUnavailable(DISCOVERY_TOPIC, method)


def test_an_answer_that_no_broker_takes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    DiscoveryEndpoint(BrokenBus(), "compute", "host1", "host1").report_presence(  # type: ignore[arg-type]
        build_daemon_context()
    )
    assert "Discovery not answered" in caplog.text


def test_a_watch_asks_again_and_again() -> None:
    arrived: queue.Queue[DaemonProcess] = queue.Queue()
    calls: queue.Queue[str] = queue.Queue()
    with fake_bus() as bus:
        server = bus.get_server("first", "a", [DiscoveryEndpoint(bus, "novncproxy", "host1", "a")])
        server.start()
        watch = DiscoveryWatch(
            bus, "w", ["first"], 0.01, arrived.put, lambda: calls.put("asked"), lambda: calls.put("round")
        )
        watch.start()
        assert {arrived.get(timeout=10).server for _ in range(2)} == {"a"}
        assert [calls.get(timeout=10) for _ in range(4)] == ["asked", "round", "asked", "round"]
        watch.stop()
        server.stop()

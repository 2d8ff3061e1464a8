# SPDX-License-Identifier: Apache-2.0
import logging
import queue
from typing import Any

import pytest

from porthole_common import errors
from porthole_common.context import RequestContext, build_daemon_context
from porthole_common.discovery import DISCOVERY_TOPIC, DaemonProcess, DiscoveryAnswers, DiscoveryEndpoint, ask_processes
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

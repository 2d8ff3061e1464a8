# SPDX-License-Identifier: Apache-2.0
"""Each private part of oslo.messaging: what Porthole makes of it, and what happens on the day it is gone."""

import importlib
from collections.abc import Iterator
from types import ModuleType

import pytest

from porthole_common import oslo_messaging_patches
from porthole_common.broker_watch import BrokerWatch
from porthole_common.messaging import oslo_messaging
from porthole_common.oslo_messaging_patches import LOOK_UP_S, Consumers, apply_patches
from porthole_common.private_parts import forget_reports
from porthole_common.rpc_server import RpcServer
from porthole_common.thread_pool import ThreadPool
from support.bus import fake_bus
from support.messaging_fakes import FakeServer

WARNING = "Private part of a library not found library=oslo.messaging version="


@pytest.fixture(autouse=True)
def reports() -> Iterator[None]:
    forget_reports()
    yield
    forget_reports()


@pytest.fixture
def driver() -> ModuleType:
    """The driver as the patches leave it."""
    apply_patches()
    return importlib.import_module("oslo_messaging._drivers.amqpdriver")


def list_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_an_idle_consumer_does_not_look_up_every_few_milliseconds(driver: ModuleType) -> None:
    common = importlib.import_module("oslo_messaging._drivers.common")
    waits: list[float] = []

    class Connection:
        def consume(self, timeout: float) -> None:
            waits.append(timeout)
            # One message, then silence until the end.
            if len(waits) == 4:
                return
            if len(waits) == 8:
                listener._shutdown.set()
                listener._shutoff.set()
            raise common.Timeout

    listener = driver.RpcAMQPListener(type("Driver", (), {"prefetch_size": 1})(), Connection())
    listener.poll()
    assert waits == [LOOK_UP_S * step for step in (1, 2, 4, 8, 1, 2, 4, 8)]


def test_a_reply_queue_that_was_missing_is_tried_again(driver: ModuleType) -> None:
    listener = driver.RpcAMQPListener(type("Driver", (), {"prefetch_size": 1})(), None)
    queues = listener._obsolete_reply_queues
    queues.add("reply_1", "message 1")
    assert queues.reply_q_valid("reply_1", "message 2")


def test_the_installed_library_has_every_part(caplog: pytest.LogCaptureFixture) -> None:
    """This fails with the release of oslo.messaging that takes one away."""
    apply_patches()
    listener = importlib.import_module("oslo_messaging._drivers.amqpdriver").RpcAMQPListener
    connection = importlib.import_module("oslo_messaging._drivers.impl_rabbit").Connection
    assert "_message_operations_handler" in vars(listener(type("Driver", (), {"prefetch_size": 1})(), None))
    for part in ("_consumers", "_new_tags", "channel"):
        assert part in connection.__init__.__code__.co_names
    assert callable(connection.stop_consuming)
    assert list_warnings(caplog) == []


@pytest.mark.parametrize("part", ["ACK_REQUEUE_EVERY_SECONDS_MIN", "ObsoleteReplyQueuesCache"])
def test_without_a_part_of_the_driver_the_rest_is_patched(
    driver: ModuleType, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(driver.ObsoleteReplyQueuesCache, "TTL", 60)
    monkeypatch.setattr(driver, "ACK_REQUEUE_EVERY_SECONDS_MIN", 0.001)
    cache = driver.ObsoleteReplyQueuesCache
    monkeypatch.delattr(driver, part)
    apply_patches()
    apply_patches()
    (line,) = list_warnings(caplog)
    assert line.startswith(WARNING)
    assert part in line
    assert (cache.TTL == 0) == (part != "ObsoleteReplyQueuesCache")
    assert hasattr(driver, "ACK_REQUEUE_EVERY_SECONDS_MIN") == (part != "ACK_REQUEUE_EVERY_SECONDS_MIN")


def test_without_the_driver_nothing_is_patched(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(oslo_messaging_patches, "_DRIVER", "oslo_messaging.no_such_driver")
    with fake_bus():
        (line,) = list_warnings(caplog)
    assert line.startswith(WARNING)
    assert "no_such_driver" in line


@pytest.mark.parametrize("part", ["_poll_style_listener", "_message_operations_handler", "conn", "_consumers"])
def test_without_its_consumers_a_server_stops_as_oslo_messaging_does(
    part: str, caplog: pytest.LogCaptureFixture
) -> None:
    fake, workers = FakeServer(), ThreadPool("test", 1)
    delattr(fake.listener, part)
    server = RpcServer(lambda: fake, workers, BrokerWatch([]))
    server.start()
    (line,) = list_warnings(caplog)
    assert line.startswith(WARNING)
    server.stop()
    workers.close()
    assert fake.events == ["stop", "wait"]


def test_the_bus_in_memory_has_no_consumers_to_miss(caplog: pytest.LogCaptureFixture) -> None:
    with fake_bus() as bus:
        server = bus.get_server("patches", "host1", [object()])
        server.start()
        server.stop()
    assert list_warnings(caplog) == []


def test_a_server_that_was_never_started_has_none(caplog: pytest.LogCaptureFixture) -> None:
    Consumers(oslo_messaging).cancel()
    assert len(list_warnings(caplog)) == 1


def test_each_new_subscription_is_another_object() -> None:
    fake = FakeServer()
    consumers = Consumers(fake)
    first = consumers.get_subscription()
    assert first is consumers.get_subscription() is not None
    # The connection is lost, a channel is opened on the next one, and the consumers are started there.
    fake.listener._new_tags = {1}
    assert consumers.get_subscription() is None
    fake.listener.channel = object()
    assert consumers.get_subscription() is None
    fake.listener._new_tags = set()
    assert consumers.get_subscription() is not first


def test_without_the_channel_there_is_one_subscription_for_good(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeServer()
    del fake.listener.channel
    consumers = Consumers(fake)
    assert consumers.get_subscription() is consumers.get_subscription() is not None
    (line,) = list_warnings(caplog)
    assert "the channel of a server" in line


def test_a_server_has_a_subscription_while_it_is_started() -> None:
    workers = ThreadPool("test", 1)
    server = RpcServer(FakeServer, workers, BrokerWatch([]))
    assert server.get_subscription() is None
    server.start()
    assert server.get_subscription() is not None
    server.stop()
    assert server.get_subscription() is None
    workers.close()
    with fake_bus() as bus:
        in_memory = bus.get_server("topic", "name", [])
        in_memory.start()
        assert in_memory.get_subscription() is in_memory.get_subscription() is not None
        in_memory.stop()

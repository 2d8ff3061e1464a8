# SPDX-License-Identifier: Apache-2.0
"""Joining the bus: subscribed first, then asked, and tried again when it does not work."""

import queue
from collections.abc import Sequence
from typing import Any

from porthole_api.directory import Directory
from porthole_api.subscription import Subscription
from porthole_common import errors, metrics
from porthole_common.notifications import INVENTORY_TOPIC, Inventory, InventoryEndpoint
from support.api import FakeClock, FakeCompute, FakeCondition, build_instance, build_uuid
from support.processes import wait_until
from support.scrapes import Scrape

WAIT_S = 30


class FakeBus:
    """Stands at :class:`porthole_common.rpc.Rpc`; ``steps`` tells what was asked of it, ``failures`` come first."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.steps: queue.Queue[tuple[str, ...]] = queue.Queue()
        self.endpoints: Sequence[Any] = ()

    def get_server(self, topic: str, server: str, endpoints: Sequence[object], threads: int) -> "FakeBus":
        # Or inventories would overtake each other.
        assert threads == 1
        self.endpoints = endpoints
        self.steps.put(("server", topic, server))
        return self

    def start(self) -> None:
        self.steps.put(("start",))
        if self.failures and not isinstance(self.failures[0], errors.PortholeError):
            raise self.failures.pop(0)

    def stop(self) -> None:
        self.steps.put(("stop",))

    def next_steps(self, count: int) -> list[tuple[str, ...]]:
        return [self.steps.get(timeout=WAIT_S) for _ in range(count)]


class Asked(FakeCompute):
    """Notes on the bus when the computes are asked."""

    def __init__(self, bus: FakeBus) -> None:
        super().__init__()
        self.bus = bus

    def publish_inventory(self, context: Any) -> None:
        self.bus.steps.put(("ask",))
        if self.bus.failures:
            raise self.bus.failures.pop(0)


def build(bus: FakeBus) -> tuple[Subscription, Directory]:
    clock = FakeClock()
    directory = Directory(clock, condition=FakeCondition(clock))
    return Subscription(bus, Asked(bus), directory, "api-1", retry_after_s=0), directory  # type: ignore[arg-type]


JOIN = [("server", INVENTORY_TOPIC, "api-1"), ("start",)]
ASK = ("ask",)


def test_it_subscribes_before_it_asks() -> None:
    bus = FakeBus()
    subscription, _ = build(bus)
    subscription.start()
    assert bus.next_steps(3) == [*JOIN, ASK]
    subscription.stop()
    assert bus.next_steps(1) == [("stop",)]


def test_what_arrives_goes_into_the_directory() -> None:
    bus = FakeBus()
    subscription, directory = build(bus)
    subscription.start()
    bus.next_steps(3)
    endpoint = next(one for one in bus.endpoints if isinstance(one, InventoryEndpoint))
    endpoint.update_inventory(None, Inventory("a", (build_instance(1),)).to_primitive())  # type: ignore[arg-type]
    assert directory.get(build_uuid(1)).host == "a"
    subscription.stop()


def test_a_broker_that_does_not_answer_is_asked_again() -> None:
    bus = FakeBus(errors.RpcUnavailable("compute", "publish_inventory"))
    subscription, _ = build(bus)
    subscription.start()
    assert bus.next_steps(4) == [*JOIN, ASK, ASK]
    wait_until(lambda: subscription.joined, WAIT_S, "the bus to be joined")
    subscription.stop()


def test_it_has_joined_once_the_computes_were_asked() -> None:
    bus = FakeBus()
    subscription, _ = build(bus)
    assert not subscription.joined
    subscription.start()
    wait_until(lambda: subscription.joined, WAIT_S, "the bus to be joined")
    subscription.stop()


def test_a_broker_that_refuses_is_joined_again() -> None:
    bus = FakeBus(ConnectionRefusedError("access refused"))
    subscription, _ = build(bus)
    subscription.start()
    assert bus.next_steps(5) == [*JOIN, *JOIN, ASK]
    subscription.stop()


def test_one_that_was_never_started_stops() -> None:
    build(FakeBus())[0].stop()


def test_the_age_of_each_inventory_is_measured() -> None:
    bus = FakeBus()
    subscription, directory = build(bus)
    subscription.start()
    bus.next_steps(3)
    directory.update(Inventory("node1", ()))
    assert Scrape(metrics.render("api").decode()).list_values("porthole_inventory_age_seconds", "host") == {"node1"}
    subscription.stop()
    assert Scrape(metrics.render("api").decode()).list_values("porthole_inventory_age_seconds", "host") == set()

# SPDX-License-Identifier: Apache-2.0

import logging
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from porthole_common import errors, metrics
from porthole_common.context import RequestContext
from porthole_common.model import Instance, InstanceState
from porthole_common.notifications import Inventory
from porthole_compute.inventory import InventoryReporter
from support.cases import naming
from support.compute_fakes import OTHER_UUID, TIMEOUT_S, UUID, FakeDriver
from support.processes import wait_until
from support.scrapes import Scrape

VM = Instance(UUID, "a", InstanceState.RUNNING)
NEVER_S = 3600.0


class Broker:
    """A Publisher; what is published waits in ``published``, each round counts in ``rounds``."""

    def __init__(self) -> None:
        self.published: queue.SimpleQueue[Inventory] = queue.SimpleQueue()
        self.down = False
        self.failed = threading.Semaphore(0)

    def publish(self, context: RequestContext, inventory: Inventory) -> None:
        assert context.is_admin
        if self.down:
            self.failed.release()
            raise errors.RpcUnavailable("porthole.inventory", "update_inventory")
        self.published.put(inventory)

    def next(self) -> Inventory:
        return self.published.get(timeout=TIMEOUT_S)


@pytest.fixture
def driver() -> FakeDriver:
    driver = FakeDriver()
    driver.instances = [VM]
    return driver


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def changed() -> list[str]:
    """Whose owner the reporter found to be another one."""
    return []


@pytest.fixture
def reporter(driver: FakeDriver, broker: Broker, changed: list[str]) -> Iterator[InventoryReporter]:
    reporter = InventoryReporter(
        "node1",
        driver,
        broker,
        NEVER_S,
        debounce_s=0,
        retry_s=0.001,
        migrating_s=0.001,
        on_owner_changed=changed.append,
    )
    yield reporter
    reporter.stop(TIMEOUT_S)


def test_an_inventory_is_whole(reporter: InventoryReporter, broker: Broker) -> None:
    assert reporter.publish()
    assert broker.next() == Inventory("node1", (VM,), hypervisor_up=True)


def test_a_hypervisor_that_is_down_is_reported_with_what_was_known(
    reporter: InventoryReporter, driver: FakeDriver, broker: Broker
) -> None:
    reporter.publish()
    driver.instances = errors.HypervisorUnavailable("node1")
    reporter.publish()
    driver.instances = []
    reporter.publish()
    assert [broker.next() for _ in range(3)] == [
        Inventory("node1", (VM,)),
        Inventory("node1", (VM,), hypervisor_up=False),
        Inventory("node1", ()),
    ]


def test_an_instance_with_another_owner_is_told_before_it_is_published(
    reporter: InventoryReporter, driver: FakeDriver, broker: Broker, changed: list[str]
) -> None:
    first, second = replace(VM, project_id="p", user_id="u"), replace(VM, uuid=OTHER_UUID, project_id="p")
    cases: list[tuple[list[Instance], list[str]]] = [
        ([first, second], []),
        ([first, second], []),
        ([replace(first, name="b", state=InstanceState.PAUSED), second], []),
        ([replace(first, project_id="q"), second], [UUID]),
        ([replace(first, project_id="q", user_id="v"), second], [UUID]),
        # One without an owner gets one, and loses it.
        ([replace(first, project_id="q", user_id="v"), replace(second, user_id="w")], [OTHER_UUID]),
        ([replace(first, project_id=None, user_id=None), second], [UUID, OTHER_UUID]),
        # One that leaves has ended, whoever owns the next one.
        ([second], []),
        ([first, second], []),
    ]
    for instances, expected in cases:
        with naming(instances):
            driver.instances = instances
            reporter.publish()
            assert changed == expected
            changed.clear()
    broker.down = True
    driver.instances = [replace(first, project_id="r")]
    reporter.publish()
    assert changed == [UUID]


def test_an_owner_that_the_hypervisor_does_not_tell_is_the_last_one(
    reporter: InventoryReporter, driver: FakeDriver, changed: list[str]
) -> None:
    owned = replace(VM, project_id="p", user_id="u")
    unknown = Instance(UUID, UUID, InstanceState.UNKNOWN)
    for instances in ([unknown], [owned], [unknown], [owned], errors.HypervisorUnavailable("node1"), [owned]):
        driver.instances = instances
        reporter.publish()
        assert changed == []
    for instances in ([unknown], [replace(owned, project_id="q")]):
        driver.instances = instances
        reporter.publish()
    assert changed == [UUID]


def test_an_instance_that_migrates_is_looked_at_again(
    reporter: InventoryReporter, driver: FakeDriver, broker: Broker
) -> None:
    """libvirt says the last word of its arrival before it is over, and no event comes behind."""
    migrating = Instance(UUID, "a", InstanceState.MIGRATING)
    driver.instances = [migrating]
    reporter.start()
    assert [broker.next() for _ in range(3)] == [Inventory("node1", (migrating,))] * 3
    driver.instances = [VM]
    while broker.next() != Inventory("node1", (VM,)):
        pass
    assert broker.published.empty()


def test_an_instance_that_is_unknown_is_looked_at_again(
    reporter: InventoryReporter, driver: FakeDriver, broker: Broker
) -> None:
    """The answer to a question that failed is no event."""
    unknown = Instance(UUID, "a", InstanceState.UNKNOWN)
    driver.instances = [unknown]
    reporter.start()
    assert [broker.next() for _ in range(3)] == [Inventory("node1", (unknown,))] * 3
    driver.instances = [VM]
    while broker.next() != Inventory("node1", (VM,)):
        pass
    assert broker.published.empty()


def test_a_hypervisor_that_never_answered_has_no_instances(
    reporter: InventoryReporter, driver: FakeDriver, broker: Broker
) -> None:
    driver.instances = errors.HypervisorUnavailable("node1")
    reporter.publish()
    assert broker.next() == Inventory("node1", (), hypervisor_up=False)


def test_one_at_start_and_one_for_each_request(reporter: InventoryReporter, broker: Broker) -> None:
    reporter.start()
    broker.next()
    reporter.request()
    broker.next()


def test_one_every_interval(driver: FakeDriver, broker: Broker) -> None:
    reporter = InventoryReporter("node1", driver, broker, 0.001, debounce_s=0)
    reporter.start()
    for _ in range(3):
        broker.next()
    reporter.stop(TIMEOUT_S)


def test_a_storm_of_events_is_one_inventory_in_each_debounce_time(driver: FakeDriver, broker: Broker) -> None:
    reporter = InventoryReporter("node1", driver, broker, NEVER_S, debounce_s=0.05)
    began = time.monotonic()
    reporter.start()
    while broker.published.qsize() < 3:
        reporter.request()
    reporter.stop(TIMEOUT_S)
    assert time.monotonic() - began >= 2 * 0.05


def test_a_broker_that_is_down_is_logged_once_and_tried_again(
    reporter: InventoryReporter, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "porthole_compute.inventory")
    broker.down = True
    reporter.start()
    for _ in range(5):
        assert broker.failed.acquire(timeout=TIMEOUT_S)
    broker.down = False
    broker.next()
    reporter.stop(TIMEOUT_S)
    assert [record.getMessage().partition(" reason=")[0] for record in caplog.records] == [
        "Inventory not published; trying again",
        "Inventory published instances=1 hypervisor_up=true",
        "Inventory publication recovered",
    ]


def test_an_unforeseen_error_ends_no_thread(
    reporter: InventoryReporter, driver: FakeDriver, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    driver.instances = errors.InstanceNotFound(UUID)
    reporter.start()
    while "Traceback" not in caplog.text:
        reporter.request()
    driver.instances = [VM]
    assert broker.next().instances == (VM,)


def test_stop_before_start(reporter: InventoryReporter) -> None:
    reporter.stop(TIMEOUT_S)


def test_the_proxies_are_told_when_the_instances_are_known_and_again_after_an_outage(
    driver: FakeDriver, broker: Broker
) -> None:
    told: list[RequestContext] = []
    broker_down = [True]

    def report(context: RequestContext) -> None:
        if broker_down[0]:
            raise errors.RpcUnavailable("porthole.revocations", "report_host_start")
        told.append(context)

    reporter = InventoryReporter("node1", driver, broker, NEVER_S, report_start=report)
    for is_up, is_down, count in [
        (False, False, 0),
        (True, True, 0),
        (True, False, 1),
        (True, False, 1),
        (False, False, 1),
        (True, False, 2),
    ]:
        driver.instances = [VM] if is_up else errors.HypervisorUnavailable("node1")
        broker_down[0] = is_down
        assert reporter.publish() != is_down
        assert len(told) == count


def test_the_host_is_measured_while_its_thread_is_there(
    reporter: InventoryReporter, driver: FakeDriver, broker: Broker
) -> None:
    driver.instances = [VM, Instance(OTHER_UUID, "b", InstanceState.SHUTOFF)]
    reporter.start()
    broker.next()
    wait_until(lambda: read().get("porthole_inventory_published_timestamp_seconds"), TIMEOUT_S, "the time")
    scrape = read()
    assert abs(time.time() - scrape.get("porthole_inventory_published_timestamp_seconds")) < TIMEOUT_S
    assert (scrape.get("porthole_instances", state="running"), scrape.get("porthole_instances")) == (1, 2)
    assert scrape.list_values("porthole_instances", "state") == set(InstanceState)
    assert scrape.get("porthole_hypervisor_up") == 1
    driver.instances = errors.HypervisorUnavailable("node1")
    reporter.request()
    assert not broker.next().hypervisor_up
    scrape = read()
    assert (scrape.get("porthole_hypervisor_up"), scrape.get("porthole_instances")) == (0, 2)
    reporter.stop(TIMEOUT_S)
    assert read().list_values("porthole_instances", "state") == set()


def read() -> Scrape:
    return Scrape(metrics.render("compute").decode())

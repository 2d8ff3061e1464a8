# SPDX-License-Identifier: Apache-2.0
import json
import queue
from typing import Any

from oslo_config import cfg

from porthole_common.context import RequestContext, build_daemon_context
from porthole_common.model import Instance, InstanceState, RevocationReason
from porthole_common.notifications import (
    INVENTORY_TOPIC,
    REVOCATIONS_TOPIC,
    HostStartEndpoint,
    HostStartPublisher,
    Inventory,
    InventoryEndpoint,
    InventoryPublisher,
    Revocation,
    RevocationEndpoint,
    RevocationPublisher,
)
from porthole_common.rpc import RpcTarget
from support.bus import fake_bus

INVENTORY = Inventory(
    "host1", (Instance("7f3a5c1e-0b1d-4c2e-9f00-aabbccddeeff", "vm1", InstanceState.RUNNING),), hypervisor_up=False
)


def test_inventory_round_trip_through_json() -> None:
    assert Inventory.from_primitive(json.loads(json.dumps(INVENTORY.to_primitive()))) == INVENTORY


def test_inventory_of_a_compute_that_does_not_tell_of_its_hypervisor() -> None:
    value = INVENTORY.to_primitive()
    del value["hypervisor_up"]
    assert Inventory.from_primitive(value).hypervisor_up


def test_inventory_reaches_every_subscriber() -> None:
    first: queue.Queue[Inventory] = queue.Queue()
    second: queue.Queue[Inventory] = queue.Queue()
    with fake_bus() as bus:
        servers = [
            bus.get_server(INVENTORY_TOPIC, name, [InventoryEndpoint(arrived.put)])
            for name, arrived in (("api1", first), ("api2", second))
        ]
        for server in servers:
            server.start()
        InventoryPublisher(bus).publish(build_daemon_context(), INVENTORY)
        assert first.get(timeout=10) == INVENTORY
        assert second.get(timeout=10) == INVENTORY
        for server in servers:
            server.stop()


def test_revocation_reaches_its_subscriber() -> None:
    arrived: queue.Queue[Revocation] = queue.Queue()
    revocation = Revocation("some-uuid", "host1", RevocationReason.MOVED)
    with fake_bus() as bus:
        server = bus.get_server(REVOCATIONS_TOPIC, "proxy1", [RevocationEndpoint(arrived.put)])
        server.start()
        RevocationPublisher(bus).publish(build_daemon_context(), revocation)
        assert arrived.get(timeout=10) == revocation
        server.stop()


def test_a_revocation_of_another_version() -> None:
    """One of before 1.1 is of every host; a reason that nobody here knows is the general one."""
    arrived: list[Revocation] = []
    endpoint = RevocationEndpoint(arrived.append)
    endpoint.revoke_instance(build_daemon_context(), "some-uuid")
    endpoint.revoke_instance(build_daemon_context(), "some-uuid", compute_host="host1", reason="abducted")
    assert arrived == [Revocation("some-uuid"), Revocation("some-uuid", "host1", RevocationReason.ENDED)]


class OldRevocationEndpoint:
    """A proxy's of before 1.1, which is refused what it does not know."""

    target = RpcTarget(version="1.0")

    def __init__(self) -> None:
        self.arrived: queue.Queue[dict[str, Any]] = queue.Queue()

    def revoke_instance(self, context: RequestContext, **arguments: Any) -> None:
        self.arrived.put(arguments)


def test_a_pinned_revocation_reaches_an_older_proxy_and_ends_all() -> None:
    old, new = OldRevocationEndpoint(), queue.Queue[Revocation]()
    with fake_bus() as bus:
        servers = [
            bus.get_server(REVOCATIONS_TOPIC, "old", [old]),
            bus.get_server(REVOCATIONS_TOPIC, "new", [RevocationEndpoint(new.put)]),
        ]
        for server in servers:
            server.start()
        RevocationPublisher(bus).publish(build_daemon_context(), Revocation("not-pinned", "host1"))
        assert new.get(timeout=10) == Revocation("not-pinned", "host1")
        cfg.CONF.set_override("revocations", "1.0", "upgrade_levels")
        try:
            RevocationPublisher(bus).publish(build_daemon_context(), Revocation("pinned", "host1"))
        finally:
            cfg.CONF.clear_override("revocations", "upgrade_levels")
        assert old.arrived.get(timeout=10) == {"instance_uuid": "pinned"}
        assert new.get(timeout=10) == Revocation("pinned")
        for server in servers:
            server.stop()


def test_the_start_of_a_host_reaches_the_proxies_that_know_of_it() -> None:
    started: queue.Queue[str] = queue.Queue()
    with fake_bus() as bus:
        endpoints = [RevocationEndpoint(lambda _: None), HostStartEndpoint(started.put)]
        server = bus.get_server(REVOCATIONS_TOPIC, "new", endpoints)
        server.start()
        HostStartPublisher(bus, "host1").publish(build_daemon_context())
        assert started.get(timeout=10) == "host1"
        cfg.CONF.set_override("revocations", "1.1", "upgrade_levels")
        try:
            pinned = HostStartPublisher(bus, "host2")
        finally:
            cfg.CONF.clear_override("revocations", "upgrade_levels")
        pinned.publish(build_daemon_context())
        HostStartPublisher(bus, "host3").publish(build_daemon_context())
        assert started.get(timeout=10) == "host3"
        server.stop()

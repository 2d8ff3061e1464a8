# SPDX-License-Identifier: Apache-2.0

import queue
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from porthole_common import errors, service
from porthole_common.context import RequestContext
from porthole_common.model import Instance, InstanceState, RevocationReason, Target
from porthole_common.notifications import INVENTORY_TOPIC, Inventory, InventoryEndpoint
from porthole_common.rpc import Rpc, RpcTarget, expected_exceptions
from porthole_compute.drivers.libvirt_host import LibvirtDriver
from porthole_compute.drivers.static import StaticDriver
from porthole_compute.main import PROGRAM, ComputeService, build, build_driver, build_standalone
from porthole_compute.rpcapi import ComputeAPI
from porthole_consoleauth.rpcapi import TOPIC as CONSOLEAUTH_TOPIC
from porthole_consoleauth.rpcapi import VERSION as CONSOLEAUTH_VERSION
from support.bus import fake_bus
from support.cases import naming
from support.compute_fakes import OTHER_UUID, TIMEOUT_S, UUID, FakeDriver, make_conf

CONTEXT = RequestContext(overwrite=False)


class RecordedConsoleauth:
    """Consoleauth's endpoint, as far as compute calls it."""

    target = RpcTarget(version=CONSOLEAUTH_VERSION)

    def __init__(self, revoked: "queue.SimpleQueue[tuple[str, str, str]]") -> None:
        self._revoked = revoked

    @expected_exceptions(errors.PortholeError)
    def delete_tokens_for_instance(
        self, context: RequestContext, instance_uuid: str, compute_host: str, reason: str
    ) -> int:
        self._revoked.put((instance_uuid, compute_host, reason))
        return 1


class Bus:
    """A bus in memory with an api that subscribed to inventories, and a consoleauth."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc
        self.inventories: queue.SimpleQueue[Inventory] = queue.SimpleQueue()
        self.revoked: queue.SimpleQueue[tuple[str, str, str]] = queue.SimpleQueue()
        self._servers = [
            self.rpc.get_server(INVENTORY_TOPIC, "api1", [InventoryEndpoint(self.inventories.put)]),
            self.rpc.get_server(CONSOLEAUTH_TOPIC, "node1", [RecordedConsoleauth(self.revoked)]),
        ]
        for server in self._servers:
            server.start()

    def close(self) -> None:
        for server in self._servers:
            server.stop()


@pytest.fixture
def bus() -> Iterator[Bus]:
    with fake_bus(TIMEOUT_S) as rpc:
        bus = Bus(rpc)
        yield bus
        bus.close()


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def compute(bus: Bus, driver: FakeDriver) -> Iterator[ComputeService]:
    compute = ComputeService(make_conf(), bus.rpc, driver, owns_rpc=False)
    compute.start()
    yield compute
    compute.stop()


def test_it_answers_under_the_hosts_name(compute: ComputeService, bus: Bus) -> None:
    api = ComputeAPI(bus.rpc)
    info = api.get_vnc_console(CONTEXT, "node1", UUID, "novnc")
    assert info.target == Target("192.0.2.1", 5900)
    assert api.validate_console(CONTEXT, "node1", info.claim) == info.target


def test_errors_keep_type_and_fields(compute: ComputeService, bus: Bus, driver: FakeDriver) -> None:
    driver.target = errors.InstanceNotReady(UUID, "building")
    with pytest.raises(errors.InstanceNotReady) as caught:
        ComputeAPI(bus.rpc).get_vnc_console(CONTEXT, "node1", UUID, "novnc")
    assert caught.value.values() == (UUID, "building")
    assert "Traceback" not in str(caught.value)


def test_an_inventory_at_start_when_asked_and_on_change(compute: ComputeService, bus: Bus, driver: FakeDriver) -> None:
    assert bus.inventories.get(timeout=TIMEOUT_S).host == "node1"
    ComputeAPI(bus.rpc).publish_inventory(CONTEXT)
    bus.inventories.get(timeout=TIMEOUT_S)
    assert driver.events
    driver.events.inventory_changed()
    bus.inventories.get(timeout=TIMEOUT_S)


def test_consoles_that_ended_are_revoked(compute: ComputeService, bus: Bus, driver: FakeDriver) -> None:
    """Tokens die with the instance (S1)."""
    assert driver.events
    driver.events.consoles_ended(OTHER_UUID, RevocationReason.MOVED)
    assert bus.revoked.get(timeout=TIMEOUT_S) == (OTHER_UUID, "node1", "moved")


def test_consoles_of_another_owner_are_revoked(compute: ComputeService, bus: Bus, driver: FakeDriver) -> None:
    assert driver.events
    for project_id in ("project-1", "project-2"):
        bus.inventories.get(timeout=TIMEOUT_S)
        driver.instances = [Instance(UUID, "a", InstanceState.RUNNING, project_id=project_id)]
        driver.events.inventory_changed()
    assert bus.revoked.get(timeout=TIMEOUT_S) == (UUID, "node1", "owner_changed")


def test_reload_and_stop_reach_the_driver(compute: ComputeService, driver: FakeDriver) -> None:
    compute.reload()
    compute.stop()
    assert driver.calls == ["start", "reload", "stop"]


def test_it_is_ready_and_alive_when_its_driver_is(compute: ComputeService, driver: FakeDriver) -> None:
    assert (compute.waits_for(), compute.is_alive()) == ("", True)
    driver.awaited, driver.alive = "libvirt at qemu:///system", False
    assert (compute.waits_for(), compute.is_alive()) == ("libvirt at qemu:///system", False)


def test_without_its_threads_it_is_not_alive(bus: Bus, driver: FakeDriver) -> None:
    compute = ComputeService(make_conf(), bus.rpc, driver, owns_rpc=False)
    compute.start()
    compute.stop()
    assert not compute.is_alive()


def test_stop_after_a_start_that_failed(bus: Bus, tmp_path: Path) -> None:
    conf = make_conf(
        compute={"driver": "static"}, static={"instances_file": str(tmp_path / "none"), "runs_directory": ""}
    )
    compute = build_standalone(conf, bus.rpc)
    with pytest.raises(errors.ConfigInvalid):
        compute.start()
    compute.stop()


def test_the_driver_is_the_one_that_the_option_names() -> None:
    assert isinstance(build_driver(make_conf()), LibvirtDriver)
    assert isinstance(build_driver(make_conf(compute={"driver": "static"})), StaticDriver)


def test_libvirt_without_its_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python itself notes a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "libvirt", None)
    monkeypatch.delitem(sys.modules, "porthole_compute.drivers.libvirt_host")
    with pytest.raises(errors.ConfigInvalid, match=r"porthole\[compute\]") as caught:
        build_driver(make_conf())
    assert caught.value.option == "[compute] driver"


def test_an_option_that_does_not_do_ends_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        ("[compute]\ndriver = vmware\n", "[compute] driver"),
        ("[compute]\ninventory_interval = 0\n", "[compute] inventory_interval"),
        ("[vnc]\nnovncproxy_base_url = ftp://x/\n", "[vnc] novncproxy_base_url"),
    ]
    for text, option in cases:
        with naming(text, option):
            path = tmp_path / "porthole.conf"
            path.write_text(text)
            conf: Any = cfg.ConfigOpts()
            status = service.main(PROGRAM, build, ["--config-file", str(path)], conf)
            assert status == service.EXIT_CONFIG
            assert option in capsys.readouterr().err

# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver's answers: the VNC server of a guest, the inventory and the displays."""

from dataclasses import replace

import libvirt
import pytest

from porthole_common import errors
from porthole_common.diagnosis import Display
from porthole_common.model import ConsoleType, Instance, InstanceState, Owner, Target
from porthole_compute.drivers.libvirt_host import LibvirtDriver
from support.cases import naming
from support.compute_fakes import OTHER_UUID, PAUSED_BY_MIGRATION, UUID, FakeDomain, RecordedEvents, build_libvirt_error
from support.hypervisor import UNKNOWN_UUID, VNC, Hypervisor, build_xml, make_driver, running_driver

BOTH = (ConsoleType.NOVNC, ConsoleType.XVPVNC)


def test_run_and_owner_are_read_anew_each_time(driver: LibvirtDriver, hypervisor: Hypervisor) -> None:
    first = driver.get_vnc_server(UUID, ConsoleType.NOVNC)
    assert first.owner == Owner()
    assert driver.get_vnc_server(UUID, ConsoleType.NOVNC) == first
    hypervisor.domains[UUID].xml = build_xml(metadata=build_owner("p", "u"))
    owned = driver.get_vnc_server(UUID, ConsoleType.NOVNC)
    assert (owned.run, owned.owner) == (first.run, Owner("p", "u"))
    hypervisor.domains[UUID].run_id += 1
    assert driver.get_vnc_server(UUID, ConsoleType.NOVNC).run != first.run


def build_owner(project_id: str, user_id: str) -> str:
    return f"<instance xmlns='urn:porthole:instance:1'><owner project='{project_id}' user='{user_id}'/></instance>"


def test_the_target_is_read_anew_each_time(driver: LibvirtDriver, hypervisor: Hypervisor) -> None:
    assert driver.get_vnc_server(UUID, ConsoleType.NOVNC).target == Target("127.0.0.1", 5901)
    hypervisor.domains[UUID].xml = build_xml("<graphics type='vnc' port='5977' listen='198.51.100.9'/>")
    assert driver.get_vnc_server(UUID, ConsoleType.NOVNC).target == Target("198.51.100.9", 5977)


def test_a_wildcard_is_dialled_at_the_proxyclient_address(hypervisor: Hypervisor, events: RecordedEvents) -> None:
    hypervisor.domains[UUID].xml = build_xml("<graphics type='vnc' port='5901' listen='0.0.0.0'/>")
    driver = make_driver(hypervisor, server_proxyclient_address="192.0.2.5")
    driver.start(events)
    try:
        assert driver.get_vnc_server(UUID, ConsoleType.NOVNC).target == Target("192.0.2.5", 5901)
    finally:
        driver.stop()


def test_why_there_is_no_target() -> None:
    """A state, or no port yet: never port -1 (C7)."""
    cases = [
        (UNKNOWN_UUID, {}, errors.InstanceNotFound(UNKNOWN_UUID)),
        (OTHER_UUID, {}, errors.ConsoleTypeUnavailable("novnc")),
        (UUID, {"xml": build_xml("<graphics type='vnc' port='-1'/>")}, errors.InstanceNotReady(UUID, "running")),
        (UUID, {"xml": "<nonsense/>"}, errors.HypervisorUnavailable("node1")),
        (UUID, {"current": (libvirt.VIR_DOMAIN_SHUTOFF, 0)}, errors.InstanceNotRunning(UUID, "shutoff")),
        (UUID, {"current": (libvirt.VIR_DOMAIN_CRASHED, 1)}, errors.InstanceNotRunning(UUID, "crashed")),
        (
            UUID,
            {"current": PAUSED_BY_MIGRATION, "control": libvirt.VIR_DOMAIN_CONTROL_OCCUPIED},
            errors.InstanceNotReady(UUID, "migrating"),
        ),
        (UUID, {"error": build_libvirt_error(libvirt.VIR_ERR_NO_DOMAIN)}, errors.InstanceNotFound(UUID)),
        (UUID, {"job_error": build_libvirt_error(libvirt.VIR_ERR_NO_DOMAIN)}, errors.InstanceNotFound(UUID)),
        (
            UUID,
            {"error": build_libvirt_error(libvirt.VIR_ERR_OPERATION_INVALID)},
            errors.InstanceNotRunning(UUID, "shutoff"),
        ),
        (UUID, {"error": build_libvirt_error(libvirt.VIR_ERR_RPC)}, errors.HypervisorUnavailable("node1")),
    ]
    for uuid, change, expected in cases:
        hypervisor, events = Hypervisor(), RecordedEvents()
        with naming(uuid, change, expected), running_driver(hypervisor, events) as driver:
            vars(hypervisor.domains.get(uuid) or FakeDomain("", "")).update(change)
            with pytest.raises(type(expected)) as caught:
                driver.get_vnc_server(uuid, ConsoleType.NOVNC)
            assert caught.value.values() == expected.values()


def test_a_type_that_the_host_does_not_offer() -> None:
    cases = [({"enabled": False}, ConsoleType.NOVNC), ({"xvpvncproxy_enabled": False}, ConsoleType.XVPVNC)]
    for options, console_type in cases:
        with (
            naming(options, console_type),
            running_driver(Hypervisor(), RecordedEvents(), **options) as driver,
            pytest.raises(errors.ConsoleTypeUnavailable),
        ):
            driver.get_vnc_server(UUID, console_type)


def test_the_inventory(driver: LibvirtDriver, hypervisor: Hypervisor) -> None:
    owner = "<i:instance xmlns:i='urn:porthole:instance:1'><i:owner project='p' user='u'/></i:instance>"
    hypervisor.domains[UUID].xml = build_xml(VNC, owner)
    hypervisor.domains[OTHER_UUID].current = (libvirt.VIR_DOMAIN_SHUTOFF, 0)
    assert driver.list_instances() == [
        Instance(UUID, "vm1", InstanceState.RUNNING, "p", "u", BOTH),
        Instance(OTHER_UUID, "vm1", InstanceState.SHUTOFF),
    ]


def test_one_odd_domain_hides_no_other(driver: LibvirtDriver, hypervisor: Hypervisor) -> None:
    hypervisor.domains[UUID].xml = "<nonsense/>"
    hypervisor.domains[OTHER_UUID].error = build_libvirt_error(libvirt.VIR_ERR_NO_DOMAIN)
    assert driver.list_instances() == [Instance(UUID, "domain-name", InstanceState.RUNNING)]


def test_an_error_about_one_guest_stays_with_that_guest(driver: LibvirtDriver, hypervisor: Hypervisor) -> None:
    owner = "<i:instance xmlns:i='urn:porthole:instance:1'><i:owner project='p' user='u'/></i:instance>"
    hypervisor.domains[OTHER_UUID].xml = build_xml("", owner)
    well = driver.list_instances()
    for code in (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_OPERATION_INVALID):
        with naming(code):
            hypervisor.domains[OTHER_UUID].error = build_libvirt_error(code)
            assert driver.list_instances() == [well[0], replace(well[1], state=InstanceState.UNKNOWN)]
            assert [display.instance_uuid for display in driver.list_displays(10)] == [UUID]
    hypervisor.domains[OTHER_UUID].error = None
    assert driver.list_instances() == well


def test_a_guest_of_which_nothing_is_known_is_listed_by_its_uuid(driver: LibvirtDriver, hypervisor: Hypervisor) -> None:
    hypervisor.domains[UUID].error = build_libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR)
    assert driver.list_instances()[0] == Instance(UUID, UUID, InstanceState.UNKNOWN)


def test_an_inventory_of_a_connection_that_breaks_is_none(driver: LibvirtDriver, hypervisor: Hypervisor) -> None:
    hypervisor.connection.alive = False
    hypervisor.domains[OTHER_UUID].error = build_libvirt_error(libvirt.VIR_ERR_RPC)
    with pytest.raises(errors.HypervisorUnavailable):
        driver.list_instances()


def test_displays_are_of_what_runs_and_as_it_listens_now(hypervisor: Hypervisor, events: RecordedEvents) -> None:
    graphics = "<graphics type='vnc' port='5902' listen='0.0.0.0' sharePolicy='force-shared'/>"
    hypervisor.domains[OTHER_UUID] = FakeDomain(OTHER_UUID, build_xml(graphics))
    hypervisor.domains[UNKNOWN_UUID] = FakeDomain(UNKNOWN_UUID, build_xml(), (libvirt.VIR_DOMAIN_SHUTOFF, 1))
    driver = make_driver(hypervisor, server_proxyclient_address="192.0.2.11")
    driver.start(events)
    events.wait_changed()
    displays = driver.list_displays(10)
    driver.stop()
    assert displays == [
        Display(UUID, "vm1", "127.0.0.1", Target("192.0.2.11", 5901)),
        Display(OTHER_UUID, "vm1", "0.0.0.0", Target("192.0.2.11", 5902), "force-shared"),
    ]


def test_displays_end_at_the_limit(driver: LibvirtDriver, hypervisor: Hypervisor) -> None:
    hypervisor.domains[OTHER_UUID] = FakeDomain(OTHER_UUID, build_xml())
    assert [display.instance_uuid for display in driver.list_displays(1)] == [UUID]


def test_domains_without_a_display_are_left_out(driver: LibvirtDriver, hypervisor: Hypervisor) -> None:
    hypervisor.domains[UUID] = FakeDomain(UUID, build_xml("<graphics type='vnc' port='-1'/>"))
    assert driver.list_displays(10) == []


def test_there_are_no_displays_to_tell_of_without_libvirt(driver: LibvirtDriver, hypervisor: Hypervisor) -> None:
    hypervisor.connection.error = build_libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR)
    with pytest.raises(errors.HypervisorUnavailable):
        driver.list_displays(10)

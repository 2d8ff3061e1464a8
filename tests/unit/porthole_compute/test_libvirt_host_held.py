# SPDX-License-Identifier: Apache-2.0
"""A guest whose lock libvirtd holds: no other guest waits, and no end of a guest is missed."""

from dataclasses import replace
from typing import Self

import libvirt
import pytest

from porthole_common import errors
from porthole_common.model import ConsoleType, InstanceState, Target
from porthole_compute.drivers.libvirt_host import LibvirtDriver
from support.compute_fakes import OTHER_UUID, UUID, FakeDomain, RecordedEvents, make_conf
from support.hypervisor import PATIENCE_S, UNKNOWN_UUID, Hypervisor, build_xml
from support.processes import wait_until


class Held:
    """A hypervisor that holds the lock of a guest, and a driver that has listed its guests before."""

    def __init__(self, hypervisor: Hypervisor, events: RecordedEvents, uuid: str = UUID) -> None:
        self.domain = hypervisor.domains[uuid]
        conf = make_conf(libvirt={"reconnect_interval": 1})
        # Of the guests that are not held, the answers come in time even on a machine under load.
        self.driver = LibvirtDriver(conf, hypervisor.open, answer_timeout_s=0.5)
        self.driver.start(events)
        self.well = self.driver.list_instances()

    def __enter__(self) -> Self:
        self.domain.unlocked.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self.domain.unlocked.set()
        self.driver.stop()


def test_a_guest_whose_lock_is_held_holds_up_no_other(hypervisor: Hypervisor, events: RecordedEvents) -> None:
    hypervisor.domains[OTHER_UUID].xml = build_xml()
    with Held(hypervisor, events) as held:
        driver = held.driver
        with pytest.raises(errors.HypervisorUnavailable):
            driver.get_vnc_server(UUID, ConsoleType.NOVNC)
        assert driver.list_overdue() == [UUID]
        assert driver.waits_for() == f"the answer of libvirt at qemu:///system about {UUID}"
        assert driver.get_vnc_server(OTHER_UUID, ConsoleType.NOVNC).target == Target("127.0.0.1", 5901)
        assert driver.list_instances() == [replace(held.well[0], state=InstanceState.UNKNOWN), held.well[1]]
        assert [display.instance_uuid for display in driver.list_displays(10)] == [OTHER_UUID]
        held.domain.unlocked.set()
        wait_until(lambda: driver.list_overdue() == [], PATIENCE_S, "the answer")
        assert driver.waits_for() == ""
        assert driver.list_instances() == held.well
        assert driver.get_vnc_server(UUID, ConsoleType.NOVNC).target == Target("127.0.0.1", 5901)


def test_a_held_guest_is_found_by_the_inventory_too(hypervisor: Hypervisor, events: RecordedEvents) -> None:
    """Then the list has no answer, and the guests are those that are known."""
    with Held(hypervisor, events) as held:
        unknown = [replace(held.well[0], state=InstanceState.UNKNOWN), held.well[1]]
        assert held.driver.list_instances() == unknown
        assert held.driver.list_overdue() == [UUID]
        calls = hypervisor.count_calls()
        assert held.driver.list_instances() == unknown
        # Neither the list nor the held guest is asked for again.
        assert hypervisor.count_calls() == calls + 1


def test_while_the_list_is_held_the_guests_are_those_of_the_events(
    hypervisor: Hypervisor, events: RecordedEvents
) -> None:
    with Held(hypervisor, events) as held:
        hypervisor.domains[UNKNOWN_UUID] = FakeDomain(UNKNOWN_UUID, build_xml())
        hypervisor.connection.send_lifecycle(UNKNOWN_UUID, libvirt.VIR_DOMAIN_EVENT_STARTED)
        del hypervisor.domains[OTHER_UUID]
        assert [instance.uuid for instance in held.driver.list_instances()] == [UUID, UNKNOWN_UUID]
        assert [instance.uuid for instance in held.driver.list_instances()] == [UUID, UNKNOWN_UUID]


def test_the_end_of_a_guest_during_an_outage_is_told_once_the_list_arrives(
    hypervisor: Hypervisor, events: RecordedEvents
) -> None:
    with Held(hypervisor, events) as held:
        first = hypervisor.connection
        hypervisor.domains[OTHER_UUID].current = (libvirt.VIR_DOMAIN_SHUTOFF, 0)
        first.lose()
        # The new connection serves the other guests while its list is held.
        wait_until(lambda: hypervisor.connection is not first and is_connected(held.driver), PATIENCE_S, "a connection")
        with pytest.raises(errors.InstanceNotRunning):
            held.driver.get_vnc_server(OTHER_UUID, ConsoleType.NOVNC)
        assert events.take_ended() == []
        held.domain.unlocked.set()
        assert events.wait_ended() == OTHER_UUID
        wait_until(lambda: held.driver.waits_for() == "", PATIENCE_S, "the answers")
        assert events.take_ended() == []


def is_connected(driver: LibvirtDriver) -> bool:
    try:
        driver.get_vnc_server(UNKNOWN_UUID, ConsoleType.NOVNC)
    except errors.InstanceNotFound:
        return True
    except errors.HypervisorUnavailable:
        return False
    return True

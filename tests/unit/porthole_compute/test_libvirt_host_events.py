# SPDX-License-Identifier: Apache-2.0
"""Libvirt's events and a lost connection: which consoles end, and when the inventory has changed."""

import threading

import libvirt
import pytest

from porthole_common import errors
from porthole_common.model import ConsoleType, RevocationReason, Target
from porthole_compute.drivers.libvirt_host import LibvirtDriver
from support.cases import naming
from support.compute_fakes import (
    OTHER_UUID,
    UUID,
    FakeConnection,
    FakeDomain,
    RecordedEvents,
    build_libvirt_error,
    make_conf,
)
from support.hypervisor import PATIENCE_S, Hypervisor, build_xml, make_driver, running_driver
from support.processes import wait_until


def test_what_ends_consoles() -> None:
    cases = [libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED]
    for event in cases:
        hypervisor, events = Hypervisor(), RecordedEvents()
        with naming(event), running_driver(hypervisor, events):
            hypervisor.domains[UUID].current = (libvirt.VIR_DOMAIN_SHUTOFF, 0)
            hypervisor.connection.send_lifecycle(UUID, event)
            assert events.wait_ended() == UUID
            assert events.reasons == {UUID: RevocationReason.ENDED}
            events.wait_changed()


def test_a_guest_that_migrated_away_has_moved(
    driver: LibvirtDriver, hypervisor: Hypervisor, events: RecordedEvents
) -> None:
    detail = libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED
    for domain in hypervisor.domains.values():
        domain.current = (libvirt.VIR_DOMAIN_SHUTOFF, 0)
    hypervisor.connection.send_lifecycle(UUID, libvirt.VIR_DOMAIN_EVENT_STOPPED, detail)
    assert events.wait_ended() == UUID
    assert events.reasons == {UUID: RevocationReason.MOVED}
    # The same number means something else of another event.
    hypervisor.connection.send_lifecycle(OTHER_UUID, libvirt.VIR_DOMAIN_EVENT_CRASHED, detail)
    assert events.wait_ended() == OTHER_UUID
    assert events.reasons[OTHER_UUID] is RevocationReason.ENDED


def test_a_guest_whose_process_runs_on_keeps_its_consoles() -> None:
    """Undefined as live snapshots and blockcopy do it, or crashed with <on_crash>preserve</on_crash>."""
    for event in (libvirt.VIR_DOMAIN_EVENT_UNDEFINED, libvirt.VIR_DOMAIN_EVENT_CRASHED):
        hypervisor, events = Hypervisor(), RecordedEvents()
        with naming(event), running_driver(hypervisor, events) as driver:
            if event == libvirt.VIR_DOMAIN_EVENT_CRASHED:
                hypervisor.domains[UUID].current = (libvirt.VIR_DOMAIN_CRASHED, 1)
                hypervisor.domains[UUID].preserved = True
            hypervisor.connection.send_lifecycle(UUID, event)
            events.wait_changed()
            assert events.take_ended() == []
            assert driver.get_vnc_server(UUID, ConsoleType.NOVNC).target == Target("127.0.0.1", 5901)


def test_what_only_changes_the_inventory() -> None:
    cases = [
        libvirt.VIR_DOMAIN_EVENT_DEFINED,
        libvirt.VIR_DOMAIN_EVENT_STARTED,
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED,
        libvirt.VIR_DOMAIN_EVENT_RESUMED,
        libvirt.VIR_DOMAIN_EVENT_SHUTDOWN,
        libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED,
    ]
    for event in cases:
        hypervisor, events = Hypervisor(), RecordedEvents()
        with naming(event), running_driver(hypervisor, events):
            hypervisor.connection.send_lifecycle(UUID, event)
            events.wait_changed()
            assert events.take_ended() == []


def test_a_new_owner_changes_the_inventory(
    driver: LibvirtDriver, hypervisor: Hypervisor, events: RecordedEvents
) -> None:
    callback = hypervisor.connection.callbacks[libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE]
    callback(hypervisor.connection, hypervisor.domains[UUID], 2, "urn:porthole:instance:1", None)
    events.wait_changed()


def test_the_connection_is_kept_alive_for_less_than_a_calls_deadline(
    driver: LibvirtDriver, hypervisor: Hypervisor
) -> None:
    assert hypervisor.connection.keepalive
    interval_s, count = hypervisor.connection.keepalive
    assert interval_s * (count + 1) < 10


@pytest.mark.parametrize("alive", [True, False])
def test_a_connection_that_is_found_dead_is_made_anew(
    driver: LibvirtDriver, hypervisor: Hypervisor, events: RecordedEvents, alive: bool
) -> None:
    """libvirt may break it without calling back."""
    first = hypervisor.connection
    first.error, first.alive = build_libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR), alive
    with pytest.raises(errors.HypervisorUnavailable):
        driver.list_instances()
    if alive:
        first.error = None
        driver.list_instances()
        assert hypervisor.connections == [first]
    else:
        events.wait_changed()
        events.wait_changed()
        assert first.closed
        assert len(hypervisor.connections) == 2
        driver.list_instances()


def test_without_a_connection_the_answer_comes_at_once(
    driver: LibvirtDriver, hypervisor: Hypervisor, events: RecordedEvents
) -> None:
    hypervisor.down = True
    hypervisor.connection.lose()
    events.wait_changed()
    for ask in (driver.list_instances, lambda: driver.get_vnc_server(UUID, ConsoleType.NOVNC)):
        with pytest.raises(errors.HypervisorUnavailable) as caught:
            ask()
        assert caught.value.host == "node1"
    assert hypervisor.connections[0].closed


def test_a_hypervisor_that_is_down_at_start_is_waited_for(hypervisor: Hypervisor, events: RecordedEvents) -> None:
    hypervisor.down = True
    driver = make_driver(hypervisor)
    driver.start(events)
    try:
        with pytest.raises(errors.HypervisorUnavailable):
            driver.list_instances()
        assert driver.waits_for() == "libvirt at qemu:///system"
        hypervisor.down = False
        events.wait_changed()
        assert len(driver.list_instances()) == 2
        assert driver.waits_for() == ""
    finally:
        driver.stop()


def test_what_stopped_while_nobody_watched_is_ended(
    driver: LibvirtDriver, hypervisor: Hypervisor, events: RecordedEvents
) -> None:
    third = "c0ffee00-0000-4000-8000-000000000003"
    hypervisor.domains[third] = FakeDomain(third, build_xml())
    hypervisor.connection.send_lifecycle(third, libvirt.VIR_DOMAIN_EVENT_STARTED)
    events.wait_changed()
    hypervisor.domains[UUID].current = (libvirt.VIR_DOMAIN_SHUTOFF, 0)
    del hypervisor.domains[third]
    hypervisor.connection.lose()
    assert {events.wait_ended(), events.wait_ended()} == {UUID, third}
    events.wait_changed()
    assert events.take_ended() == []


def test_what_stopped_and_started_while_nobody_watched_is_ended(
    driver: LibvirtDriver, hypervisor: Hypervisor, events: RecordedEvents
) -> None:
    hypervisor.domains[UUID].run_id = 2
    hypervisor.connection.lose()
    assert events.wait_ended() == UUID
    events.wait_changed()
    assert events.take_ended() == []


def test_a_connection_that_breaks_while_it_is_made_forgets_nothing(
    hypervisor: Hypervisor, events: RecordedEvents
) -> None:
    attempts: list[int] = []

    def open_connection(uri: str) -> FakeConnection:
        connection = hypervisor.open(uri)
        attempts.append(1)
        # The first two are for events and for the list.
        if len(attempts) == 3:
            connection.error = build_libvirt_error(libvirt.VIR_ERR_RPC)
        return connection

    driver = LibvirtDriver(make_conf(libvirt={"reconnect_interval": 1}), open_connection)
    driver.start(events)
    try:
        hypervisor.domains[UUID].current = (libvirt.VIR_DOMAIN_SHUTOFF, 0)
        hypervisor.connection.lose()
        assert events.wait_ended() == UUID
        assert len(hypervisor.connections) == 3
        assert hypervisor.connections[1].closed
    finally:
        driver.stop()


def test_stop_closes_the_connection(hypervisor: Hypervisor, events: RecordedEvents) -> None:
    driver = make_driver(hypervisor)
    driver.start(events)
    driver.reload()
    driver.stop()
    assert hypervisor.connection.closed
    assert hypervisor.connection.callbacks == {}
    assert hypervisor.connection.on_close is None
    assert all(connection.closed for connection in hypervisor.opened)
    with pytest.raises(errors.HypervisorUnavailable):
        driver.list_instances()


def test_it_is_alive_while_libvirts_event_loop_turns(driver: LibvirtDriver) -> None:
    """The loop is libvirt's own, and real here: a callback that does not return holds it up."""
    held, let_go = threading.Event(), threading.Event()

    def hold_up(timer: int, _opaque: object) -> None:
        libvirt.virEventRemoveTimeout(timer)
        held.set()
        assert let_go.wait(PATIENCE_S)

    wait_until(driver.is_alive, PATIENCE_S, "a turn of the event loop")
    libvirt.virEventAddTimeout(0, hold_up, None)
    assert held.wait(PATIENCE_S)
    driver.is_alive()
    assert not driver.is_alive()
    let_go.set()
    wait_until(driver.is_alive, PATIENCE_S, "the event loop to turn again")

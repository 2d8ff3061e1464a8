# SPDX-License-Identifier: Apache-2.0

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import libvirt
import pytest

from porthole_common import errors
from porthole_common.diagnosis import Display
from porthole_common.model import ConsoleType, Instance, InstanceState, Owner, RevocationReason, Target
from porthole_compute.drivers.libvirt_host import LibvirtDriver
from support.cases import naming
from support.compute_fakes import (
    OTHER_UUID,
    PAUSED_BY_MIGRATION,
    UUID,
    FakeConnection,
    FakeDomain,
    RecordedEvents,
    build_libvirt_error,
    make_conf,
)
from support.processes import wait_until

BOTH = (ConsoleType.NOVNC, ConsoleType.XVPVNC)
VNC = "<graphics type='vnc' port='5901' listen='127.0.0.1'/>"
PATIENCE_S = 30
UNKNOWN_UUID = "c0ffee00-0000-4000-8000-00000000000f"


def build_xml(devices: str = VNC, metadata: str = "") -> str:
    return f"<domain><name>vm1</name><metadata>{metadata}</metadata><devices>{devices}</devices></domain>"


class Hypervisor:
    """A libvirt daemon that can go away: opens connections to ``domains``, or refuses."""

    def __init__(self) -> None:
        self.domains = {UUID: FakeDomain(UUID, build_xml()), OTHER_UUID: FakeDomain(OTHER_UUID, build_xml(""))}
        self.down = False
        self.opened: list[FakeConnection] = []

    def open(self, uri: str) -> FakeConnection:
        if self.down:
            raise build_libvirt_error(libvirt.VIR_ERR_SYSTEM_ERROR)
        self.opened.append(FakeConnection(self.domains, lambda: self.connection))
        return self.opened[-1]

    @property
    def connections(self) -> list[FakeConnection]:
        """Those for events."""
        return [connection for connection in self.opened if connection.is_watched]

    @property
    def connection(self) -> FakeConnection:
        return self.connections[-1]

    def count_calls(self) -> int:
        return sum(connection.calls for connection in self.opened)


@pytest.fixture
def hypervisor() -> Hypervisor:
    return Hypervisor()


@pytest.fixture
def events() -> RecordedEvents:
    return RecordedEvents()


def make_driver(hypervisor: Hypervisor, **vnc: Any) -> LibvirtDriver:
    conf = make_conf(vnc=vnc, libvirt={"reconnect_interval": 1})
    return LibvirtDriver(conf, hypervisor.open)


@contextmanager
def running_driver(hypervisor: Hypervisor, events: RecordedEvents, **vnc: Any) -> Iterator[LibvirtDriver]:
    driver = make_driver(hypervisor, **vnc)
    driver.start(events)
    try:
        events.wait_changed()
        yield driver
    finally:
        driver.stop()


@pytest.fixture
def driver(hypervisor: Hypervisor, events: RecordedEvents) -> Iterator[LibvirtDriver]:
    with running_driver(hypervisor, events) as driver:
        yield driver


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

# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver, and what compute decides with it, on a real libvirtd with QEMU guests."""

import itertools
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from porthole_common import errors, rpc
from porthole_common.context import RequestContext
from porthole_common.model import ConsoleType, Instance, InstanceState, Target
from porthole_compute.drivers import DriverEvents
from porthole_compute.drivers.libvirt_connections import KEEPALIVE_COUNT, KEEPALIVE_INTERVAL_S
from porthole_compute.drivers.libvirt_host import ATTEMPT_TIMEOUT_S, MAX_QUESTIONS, LibvirtDriver
from porthole_compute.endpoint import ComputeEndpoint
from support.compute_fakes import RecordedEvents, make_conf
from support.deadlines import call_within, join_within, kept_within, time_call
from support.domain_lock import HeldDomain
from support.libvirtd import Libvirtd, guest_xml, is_running
from support.migration import HeldMigration
from support.ports import free_port
from support.processes import wait_until

BOTH = (ConsoleType.NOVNC, ConsoleType.XVPVNC)
CONTEXT = RequestContext(overwrite=False)
UUID = "5c1d3e00-0000-4000-8000-000000000001"
OTHER_UUID = "5c1d3e00-0000-4000-8000-000000000002"
NOVA = (
    "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:name>web-1</nova:name><nova:owner>"
    "<nova:user uuid='u-nova'>alice</nova:user><nova:project uuid='p-nova'>shop</nova:project></nova:owner>"
    "</nova:instance>"
)
PORTHOLE = (
    "<p:instance xmlns:p='urn:porthole:instance:1'><p:name>db-1</p:name><p:owner project='p-own' user='u-own'/>"
    "</p:instance>"
)
# A libvirtd that is back is found within reconnect_interval, and a guest's events within milliseconds.
TIMEOUT_S = 30
# Libvirt's calls have no deadline. The driver's longest promise is that of an attempt to connect.
CALL_TIMEOUT_S = ATTEMPT_TIMEOUT_S + TIMEOUT_S
# More than the questions that the driver asks at once.
CROWD = 2 * MAX_QUESTIONS
ROUNDS = 5
DISK_BYTES = 64 * 1024 * 1024
# One of some ten backups begins while the driver asks.
BACKUPS = 200
# After this libvirt takes a connection for broken that keeps silent (virConnectSetKeepAlive).
KEEPALIVE_S = KEEPALIVE_INTERVAL_S * (KEEPALIVE_COUNT + 1)


def vnc(port: int, listen: str = "127.0.0.1") -> str:
    return f"<graphics type='vnc' port='{port}' autoport='no' listen='{listen}'/>"


def read_greeting(target: Target) -> bytes:
    with socket.create_connection((target.host, target.port), timeout=TIMEOUT_S) as sock:
        return sock.recv(12)


@pytest.fixture
def events() -> RecordedEvents:
    return RecordedEvents()


class DriverWithDeadlines(LibvirtDriver):
    """The driver; a call that hangs within libvirt ends the test instead of holding it."""

    def start(self, events: DriverEvents) -> None:
        call_within(CALL_TIMEOUT_S, lambda: super(DriverWithDeadlines, self).start(events), "start")

    def stop(self) -> None:
        call_within(CALL_TIMEOUT_S, super().stop, "stop")

    def list_instances(self) -> list[Instance]:
        return call_within(CALL_TIMEOUT_S, super().list_instances, "list_instances")

    def get_vnc_target(self, instance_uuid: str, console_type: ConsoleType) -> Target:
        ask = super().get_vnc_target
        return call_within(CALL_TIMEOUT_S, lambda: ask(instance_uuid, console_type), "get_vnc_target")


def make_driver(libvirtd: Libvirtd, **options: dict[str, object]) -> LibvirtDriver:
    conf = make_conf(libvirt={"connection_uri": libvirtd.uri, "reconnect_interval": 1}, **options)
    return DriverWithDeadlines(conf)


@pytest.fixture
def driver(libvirtd: Libvirtd, events: RecordedEvents) -> Iterator[LibvirtDriver]:
    driver = make_driver(libvirtd)
    driver.start(events)
    yield driver
    driver.stop()


def is_up(driver: LibvirtDriver) -> bool:
    try:
        driver.list_instances()
    except errors.HypervisorUnavailable:
        return False
    return not driver.waits_for()


def ask(driver: LibvirtDriver, uuid: str = UUID) -> Target:
    return driver.get_vnc_target(uuid, ConsoleType.NOVNC)


def state_of(driver: LibvirtDriver, uuid: str = UUID) -> InstanceState:
    return next(instance.state for instance in driver.list_instances() if instance.uuid == uuid)


def test_the_target_is_the_guests_vnc_server(libvirtd: Libvirtd, driver: LibvirtDriver) -> None:
    libvirtd.create(guest_xml("guest", UUID))
    target = ask(driver)
    assert target == Target("127.0.0.1", libvirtd.vnc_port(UUID))
    assert read_greeting(target) == b"RFB 003.008\n"


def test_a_guest_that_listens_everywhere_is_dialled_at_the_proxyclient_address(
    libvirtd: Libvirtd, events: RecordedEvents
) -> None:
    port = free_port()
    libvirtd.create(guest_xml("guest", UUID, vnc=vnc(port, "0.0.0.0")))
    driver = make_driver(libvirtd, vnc={"server_proxyclient_address": "192.0.2.7"})
    driver.start(events)
    try:
        assert ask(driver) == Target("192.0.2.7", port)
    finally:
        driver.stop()


@pytest.mark.parametrize(
    ("metadata", "name", "project_id", "user_id"),
    [
        (NOVA + PORTHOLE, "web-1", "p-nova", "u-nova"),
        (NOVA.replace("nova/1.1", "nova/1.0"), "web-1", "p-nova", "u-nova"),
        (PORTHOLE, "db-1", "p-own", "u-own"),
        ("", "guest", None, None),
    ],
)
def test_owner_and_name_come_from_the_metadata(
    libvirtd: Libvirtd, driver: LibvirtDriver, metadata: str, name: str, project_id: str | None, user_id: str | None
) -> None:
    libvirtd.define(guest_xml("guest", UUID, metadata=metadata))
    assert driver.list_instances() == [Instance(UUID, name, InstanceState.SHUTOFF, project_id, user_id, BOTH)]


def test_an_owner_can_be_given_to_a_running_guest(libvirtd: Libvirtd, driver: LibvirtDriver) -> None:
    libvirtd.create(guest_xml("guest", UUID))
    wait_until(driver.list_instances, TIMEOUT_S, "the guest")
    element = "<instance><name>db-1</name><owner project='p-own' user='u-own'/></instance>"
    libvirtd.virsh("metadata", UUID, "--uri", "urn:porthole:instance:1", "--key", "porthole", "--set", element)
    assert driver.list_instances() == [Instance(UUID, "db-1", InstanceState.RUNNING, "p-own", "u-own", BOTH)]


def test_a_guest_through_its_states(libvirtd: Libvirtd, driver: LibvirtDriver) -> None:
    with pytest.raises(errors.InstanceNotFound):
        ask(driver)
    libvirtd.define(guest_xml("guest", UUID))
    with pytest.raises(errors.InstanceNotRunning):
        ask(driver)
    assert state_of(driver) == InstanceState.SHUTOFF
    libvirtd.virsh("start", UUID, "--paused")
    target = ask(driver)
    assert state_of(driver) == InstanceState.PAUSED
    libvirtd.virsh("resume", UUID)
    assert ask(driver) == target
    assert state_of(driver) == InstanceState.RUNNING
    libvirtd.virsh("suspend", UUID)
    assert state_of(driver) == InstanceState.PAUSED
    assert ask(driver) == target
    libvirtd.destroy(UUID)
    with pytest.raises(errors.InstanceNotRunning):
        ask(driver)
    libvirtd.virsh("undefine", UUID)
    with pytest.raises(errors.InstanceNotFound):
        ask(driver)


def test_a_guest_that_is_restored_paused_has_a_console(libvirtd: Libvirtd, driver: LibvirtDriver) -> None:
    libvirtd.define(guest_xml("guest", UUID))
    libvirtd.virsh("start", UUID)
    libvirtd.virsh("managedsave", UUID, "--paused")
    with pytest.raises(errors.InstanceNotRunning):
        ask(driver)
    libvirtd.virsh("start", UUID)
    assert_paused(libvirtd, driver)
    saved = str(libvirtd.directory / "data" / "saved")
    libvirtd.virsh("save", UUID, saved)
    libvirtd.virsh("restore", saved, "--paused")
    assert_paused(libvirtd, driver)


def test_a_paused_guest_that_has_migrated_has_a_console(libvirtd: Libvirtd, driver: LibvirtDriver) -> None:
    libvirtd.create(guest_xml("guest", UUID))
    libvirtd.virsh("suspend", UUID)
    with Libvirtd() as destination:
        other = make_driver(destination)
        other.start(RecordedEvents())
        try:
            with HeldMigration(libvirtd, destination, UUID) as migration:
                for side in (driver, other):
                    wait_until(lambda side=side: state_of(side) == InstanceState.MIGRATING, TIMEOUT_S, "the migration")
                    with pytest.raises(errors.InstanceNotReady):
                        ask(side)
                migration.finish()
            assert_paused(destination, other)
        finally:
            other.stop()


def test_a_paused_guest_whose_processors_have_no_threads_of_their_own(
    libvirtd: Libvirtd, driver: LibvirtDriver
) -> None:
    """Libvirt then knows no processor times: with TCG in one thread, as -icount has it."""
    xml = guest_xml("guest", UUID).replace("<vcpu>1<", "<vcpu>2<")
    xml = xml.replace("<domain ", "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' ")
    arguments = "".join(f"<qemu:arg value='{value}'/>" for value in ("-icount", "shift=auto"))
    libvirtd.create(xml.replace("</domain>", f"<qemu:commandline>{arguments}</qemu:commandline></domain>"))
    libvirtd.virsh("suspend", UUID)
    assert_paused(libvirtd, driver)


def assert_paused(libvirtd: Libvirtd, driver: LibvirtDriver) -> None:
    assert libvirtd.state(UUID) == "paused"
    assert state_of(driver) == InstanceState.PAUSED
    target = ask(driver)
    assert target == Target("127.0.0.1", libvirtd.vnc_port(UUID))
    assert read_greeting(target) == b"RFB 003.008\n"


def test_a_backup_costs_no_console(libvirtd: Libvirtd, driver: LibvirtDriver, caplog: pytest.LogCaptureFixture) -> None:
    """While a backup begins, libvirt answers a question for the domain's job with an internal error."""
    data = libvirtd.directory / "data"
    disk = data / "disk.raw"
    disk.touch()
    disk.chmod(0o666)
    os.truncate(disk, DISK_BYTES)
    devices = f"<devices><disk type='file'><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>"
    libvirtd.create(guest_xml("guest", UUID).replace("<devices>", devices))
    target = ask(driver)
    over = threading.Event()
    failures: list[str] = []

    def ask_on() -> None:
        while not over.is_set():
            try:
                assert ask(driver) == target
                assert state_of(driver) == InstanceState.RUNNING
            except (AssertionError, errors.PortholeError) as exc:
                failures.append(repr(exc))

    asking = threading.Thread(target=ask_on, name="asking", daemon=True)
    caplog.set_level(logging.DEBUG)
    asking.start()
    try:
        for number in itertools.count():
            assert number < BACKUPS, "no question met the begin of a backup"
            back_up(libvirtd, data / f"{number}.qcow2")
            if "backup job data missing" in caplog.text or failures:
                break
    finally:
        over.set()
        join_within(CALL_TIMEOUT_S, asking)
    assert failures == []


def back_up(libvirtd: Libvirtd, path: Path) -> None:
    disk = f"<disk name='vda' type='file'><target file='{path}'/><driver type='qcow2'/></disk>"
    libvirtd.virsh(
        "backup-begin", UUID, "/dev/stdin", stdin=f"<domainbackup mode='push'><disks>{disk}</disks></domainbackup>"
    )
    wait_until(lambda: "None" in libvirtd.virsh("domjobinfo", UUID), TIMEOUT_S, "the end of the backup")


@pytest.mark.parametrize(
    "graphics",
    [
        None,
        "<graphics type='vnc'><listen type='socket'/></graphics>",
        "<graphics type='vnc'><listen type='none'/></graphics>",
    ],
    ids=["no graphics", "a socket", "no listener"],
)
def test_a_guest_without_vnc_on_tcp(libvirtd: Libvirtd, driver: LibvirtDriver, graphics: str | None) -> None:
    libvirtd.create(guest_xml("guest", UUID, vnc=graphics))
    with pytest.raises(errors.ConsoleTypeUnavailable):
        ask(driver)
    assert driver.list_instances() == [Instance(UUID, "guest", InstanceState.RUNNING)]


def test_lifecycle_events_arrive(libvirtd: Libvirtd, driver: LibvirtDriver, events: RecordedEvents) -> None:
    events.wait_changed()
    libvirtd.create(guest_xml("guest", UUID))
    events.wait_changed()
    assert events.take_ended() == []
    libvirtd.virsh("suspend", UUID)
    libvirtd.virsh("resume", UUID)
    libvirtd.virsh("reset", UUID)
    libvirtd.define(guest_xml("other", OTHER_UUID))
    libvirtd.virsh("undefine", OTHER_UUID)
    assert events.wait_ended() == OTHER_UUID
    assert events.take_ended() == []
    libvirtd.destroy(UUID)
    assert events.wait_ended() == UUID


def test_a_guest_that_crashes_ends_its_consoles(
    libvirtd: Libvirtd, driver: LibvirtDriver, events: RecordedEvents
) -> None:
    libvirtd.create(guest_xml("guest", UUID))
    os.kill(libvirtd.guest_pid("guest"), signal.SIGKILL)
    assert events.wait_ended() == UUID


def test_a_running_guest_that_is_undefined_keeps_its_console(
    libvirtd: Libvirtd, driver: LibvirtDriver, events: RecordedEvents
) -> None:
    libvirtd.define(guest_xml("guest", UUID))
    libvirtd.virsh("start", UUID)
    target = ask(driver)
    libvirtd.virsh("undefine", UUID)
    assert ask(driver) == target
    libvirtd.define(guest_xml("other", OTHER_UUID))
    libvirtd.virsh("undefine", OTHER_UUID)
    # libvirt keeps the order of its events: those of the running guest are here by now.
    assert events.wait_ended() == OTHER_UUID
    assert events.take_ended() == []
    libvirtd.destroy(UUID)
    assert events.wait_ended() == UUID


def test_a_panic_is_seen_where_the_guest_is_preserved(
    libvirtd: Libvirtd, driver: LibvirtDriver, events: RecordedEvents
) -> None:
    libvirtd.create(with_panic(guest_xml("guest", UUID)))
    target = ask(driver)
    panic(libvirtd)
    wait_until(lambda: libvirtd.state(UUID) == "crashed", TIMEOUT_S, "the panic")
    assert ask(driver) == target
    assert state_of(driver) == InstanceState.CRASHED
    libvirtd.destroy(UUID)
    assert events.wait_ended() == UUID
    assert events.take_ended() == []


def test_a_panic_without_preserve_ends_the_consoles(
    libvirtd: Libvirtd, driver: LibvirtDriver, events: RecordedEvents
) -> None:
    libvirtd.create(with_panic(guest_xml("guest", UUID), on_crash="destroy"))
    ask(driver)
    panic(libvirtd)
    assert events.wait_ended() == UUID


def with_panic(xml: str, on_crash: str = "preserve") -> str:
    return xml.replace("<devices>", f"<on_crash>{on_crash}</on_crash><devices><panic model='isa'/>")


def panic(libvirtd: Libvirtd) -> None:
    """Report a panic as a guest's kernel does: a byte to the port of QEMU's pvpanic device."""
    libvirtd.virsh("qemu-monitor-command", UUID, "--hmp", "o /b 0x505 1")


def test_a_restart_of_libvirtd_ends_nothing(libvirtd: Libvirtd, driver: LibvirtDriver, events: RecordedEvents) -> None:
    libvirtd.create(guest_xml("guest", UUID))
    target = ask(driver)
    with socket.create_connection((target.host, target.port), timeout=TIMEOUT_S) as viewer:
        assert viewer.recv(12) == b"RFB 003.008\n"
        libvirtd.restart()
        wait_until(lambda: is_up(driver), TIMEOUT_S, "the new connection")
        viewer.sendall(b"RFB 003.008\n")
        assert viewer.recv(2) == b"\x01\x01"
    assert ask(driver) == target
    assert events.take_ended() == []
    libvirtd.destroy(UUID)
    assert events.wait_ended() == UUID


def test_while_libvirtd_is_stopped_the_answer_comes_at_once(
    libvirtd: Libvirtd, driver: LibvirtDriver, events: RecordedEvents
) -> None:
    libvirtd.stop()
    wait_until(lambda: not is_up(driver), TIMEOUT_S, "the loss of the connection")
    # Not even the deadline of an attempt to connect is spent: compute's answer would come too late for the api.
    with kept_within(0, "two refusals"):
        with pytest.raises(errors.HypervisorUnavailable):
            ask(driver)
        with pytest.raises(errors.HypervisorUnavailable):
            driver.list_instances()


def test_a_guest_that_ended_while_libvirtd_was_stopped_ends_its_consoles(
    libvirtd: Libvirtd, driver: LibvirtDriver, events: RecordedEvents
) -> None:
    libvirtd.create(guest_xml("guest", UUID))
    libvirtd.create(guest_xml("survivor", OTHER_UUID))
    wait_until(lambda: len(driver.list_instances()) == 2, TIMEOUT_S, "both guests")
    pid = libvirtd.guest_pid("guest")
    libvirtd.stop()
    os.kill(pid, signal.SIGKILL)
    assert events.take_ended() == []
    libvirtd.start()
    assert events.wait_ended() == UUID
    wait_until(lambda: is_up(driver), TIMEOUT_S, "the new connection")
    assert [instance.uuid for instance in driver.list_instances()] == [OTHER_UUID]
    assert events.take_ended() == []


def test_a_frozen_libvirtd_holds_nobody_for_long(
    libvirtd: Libvirtd, driver: LibvirtDriver, events: RecordedEvents
) -> None:
    libvirtd.create(guest_xml("guest", UUID))
    target = ask(driver)
    libvirtd.pause()

    def ask_in_vain() -> None:
        with pytest.raises(errors.HypervisorUnavailable):
            ask(driver)

    with kept_within(KEEPALIVE_S, "the end of a silent connection"):
        first_s = time_call(ask_in_vain)
    # Once the connection is known to be broken nobody waits for another keepalive.
    assert min(time_call(ask_in_vain) for _ in range(3)) < first_s / 2
    libvirtd.resume()
    wait_until(lambda: is_up(driver), TIMEOUT_S, "the new connection")
    assert ask(driver) == target
    assert events.take_ended() == []


def test_a_guest_whose_lock_libvirtd_holds_costs_no_other(
    libvirtd: Libvirtd, driver: LibvirtDriver, events: RecordedEvents
) -> None:
    libvirtd.create(guest_xml("guest", UUID, metadata=NOVA))
    libvirtd.create(guest_xml("other", OTHER_UUID))
    target, other_target = ask(driver), ask(driver, OTHER_UUID)
    well = {instance.uuid: instance for instance in driver.list_instances()}
    threads = threading.active_count()
    with HeldDomain(libvirtd, UUID) as lock:
        assert refuse_together(driver) == CROWD
        assert driver.list_overdue() == [UUID]
        assert driver.waits_for() == f"the answer of libvirt at {libvirtd.uri} about {UUID}"
        for _ in range(ROUNDS):
            with kept_within(0, "an answer at once"), pytest.raises(errors.HypervisorUnavailable):
                ask(driver)
            assert ask(driver, OTHER_UUID) == other_target
            unknown = replace(well[UUID], state=InstanceState.UNKNOWN)
            assert {each.uuid: each for each in driver.list_instances()} == {**well, UUID: unknown}
            assert [display.instance_uuid for display in driver.list_displays(10)] == [OTHER_UUID]
        assert threading.active_count() <= threads + MAX_QUESTIONS
        lock.release()
        wait_until(lambda: not driver.waits_for(), TIMEOUT_S, "the answer")
        assert {each.uuid: each for each in driver.list_instances()} == well
        assert ask(driver) == target
    assert events.take_ended() == []


def refuse_together(driver: LibvirtDriver) -> int:
    """Ask for one guest's console in many threads at once; return how many are told that libvirt does not answer."""
    refused: list[str] = []

    def ask_in_vain() -> None:
        try:
            ask(driver)
        except errors.HypervisorUnavailable as exc:
            refused.append(exc.host)

    crowd = [threading.Thread(target=ask_in_vain, name="asking", daemon=True) for _ in range(CROWD)]
    for thread in crowd:
        thread.start()
    join_within(CALL_TIMEOUT_S, *crowd)
    return len(refused)


def test_a_held_guest_costs_no_list(libvirtd: Libvirtd, driver: LibvirtDriver) -> None:
    """The inventory finds it: the list has no answer, and the guests are those that are known."""
    libvirtd.create(guest_xml("guest", UUID))
    libvirtd.create(guest_xml("other", OTHER_UUID))
    assert len(driver.list_instances()) == 2
    with HeldDomain(libvirtd, UUID):
        assert state_of(driver) == InstanceState.UNKNOWN
        assert state_of(driver, OTHER_UUID) == InstanceState.RUNNING
        assert read_greeting(ask(driver, OTHER_UUID)) == b"RFB 003.008\n"
        libvirtd.virsh("suspend", OTHER_UUID)
        assert state_of(driver, OTHER_UUID) == InstanceState.PAUSED
    wait_until(lambda: not driver.waits_for(), TIMEOUT_S, "the answer")
    assert state_of(driver) == InstanceState.RUNNING


def test_libvirtd_may_come_after_compute(
    libvirtd: Libvirtd, events: RecordedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    libvirtd.stop()
    driver = make_driver(libvirtd)
    driver.start(events)
    try:
        assert not is_up(driver)
        assert caplog.text.count("trying again") == 1
        libvirtd.start()
        libvirtd.create(guest_xml("guest", UUID))
        wait_until(lambda: is_up(driver), TIMEOUT_S, "the connection")
        assert ask(driver).port == libvirtd.vnc_port(UUID)
    finally:
        driver.stop()


def test_reconnecting_leaves_nothing_behind(libvirtd: Libvirtd, driver: LibvirtDriver) -> None:
    def restart() -> None:
        libvirtd.restart()
        wait_until(lambda: is_up(driver), TIMEOUT_S, "the new connection")

    restart()
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(5):
        restart()
    # A thread that has ended and a connection that is closed may take a moment to be gone.
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, TIMEOUT_S, f"at most {descriptors} descriptors")
    wait_until(lambda: threading.active_count() <= threads, TIMEOUT_S, f"at most {threads} threads")


def test_stop_ends_the_connection(libvirtd: Libvirtd, events: RecordedEvents) -> None:
    driver = make_driver(libvirtd)
    driver.start(events)
    assert is_up(driver)
    driver.stop()
    assert not is_up(driver)
    assert "libvirt-events" in {thread.name for thread in threading.enumerate()}
    assert not any("connector" in thread.name for thread in threading.enumerate())


def test_a_guest_that_migrates_away_ends_its_consoles_here(
    libvirtd: Libvirtd, driver: LibvirtDriver, events: RecordedEvents
) -> None:
    libvirtd.create(guest_xml("guest", UUID))
    assert ask(driver).port == libvirtd.vnc_port(UUID)
    with Libvirtd() as destination:
        arrivals = RecordedEvents()
        other = make_driver(destination)
        other.start(arrivals)
        try:
            with HeldMigration(libvirtd, destination, UUID) as migration:
                for side in (driver, other):
                    wait_until(lambda side=side: state_of(side) == InstanceState.MIGRATING, TIMEOUT_S, "the migration")
                    with pytest.raises(errors.InstanceNotReady):
                        ask(side)
                assert events.take_ended() == []
                migration.finish()
            assert events.wait_ended() == UUID
            with pytest.raises(errors.InstanceNotFound):
                ask(driver)
            assert ask(other).port == destination.vnc_port(UUID)
            assert arrivals.take_ended() == []
        finally:
            other.stop()


def test_a_libvirtd_that_hangs_does_not_hold_the_next_test(capfd: pytest.CaptureFixture[str]) -> None:
    """Of the tests' own libvirtd: it is killed with its guests, and the next test finds one without guests."""
    with Libvirtd() as libvirtd:
        libvirtd.create(guest_xml("guest", UUID))
        libvirtd.define(guest_xml("defined", OTHER_UUID))
        guest, daemon = libvirtd.guest_pid("guest"), libvirtd.process.pid
        libvirtd.pause()
        libvirtd.remove_guests(timeout_s=2)
        assert "no answer after 2 s" in capfd.readouterr().err
        assert libvirtd.process.pid != daemon
        assert not is_running(guest)
        assert libvirtd.virsh("list", "--all", "--uuid").split() == []
        libvirtd.create(guest_xml("guest", UUID))


class Consoles:
    """Compute's endpoint over the driver, as the proxy sees it."""

    def __init__(self, driver: LibvirtDriver) -> None:
        self._endpoint = ComputeEndpoint(make_conf(), driver, lambda: None)

    def get(self, uuid: str) -> Target:
        return Target.from_primitive(self._endpoint.get_vnc_console(CONTEXT, uuid, "novnc"))

    def validate(self, uuid: str, target: Target) -> Target:
        value = self._endpoint.validate_console(CONTEXT, uuid, target.host, target.port, "novnc")
        return Target.from_primitive(value)

    def assert_over(self, uuid: str, target: Target) -> None:
        with pytest.raises(rpc.oslo_messaging.ExpectedException) as caught:
            self.validate(uuid, target)
        assert isinstance(caught.value.exc_info[1], errors.TokenInvalid)


@pytest.fixture
def consoles(driver: LibvirtDriver) -> Consoles:
    return Consoles(driver)


def test_a_console_is_not_valid_for_the_guest_that_took_over_the_port(libvirtd: Libvirtd, consoles: Consoles) -> None:
    """Asked of libvirt each time (S1)."""
    first, second = free_port(), free_port()
    libvirtd.create(guest_xml("a", UUID, vnc=vnc(first)))
    libvirtd.create(guest_xml("b", OTHER_UUID, vnc=vnc(second)))
    issued = consoles.get(UUID)
    assert consoles.validate(UUID, issued) == issued
    libvirtd.destroy(UUID)
    libvirtd.destroy(OTHER_UUID)
    libvirtd.create(guest_xml("a", UUID, vnc=vnc(second)))
    libvirtd.create(guest_xml("b", OTHER_UUID, vnc=vnc(first)))
    consoles.assert_over(UUID, issued)
    moved = consoles.get(UUID)
    assert moved == Target("127.0.0.1", second)
    assert consoles.validate(UUID, moved) == moved


def test_a_console_is_not_valid_on_another_host(libvirtd: Libvirtd, consoles: Consoles) -> None:
    """The port alone does not make the place (S2)."""
    libvirtd.create(guest_xml("a", UUID))
    issued = consoles.get(UUID)
    consoles.assert_over(UUID, Target("192.0.2.1", issued.port))


@pytest.mark.parametrize("stop", ["destroy", "undefine"])
def test_a_console_is_not_valid_once_the_guest_stopped(libvirtd: Libvirtd, consoles: Consoles, stop: str) -> None:
    port = free_port()
    libvirtd.define(guest_xml("a", UUID, vnc=vnc(port)))
    libvirtd.virsh("start", UUID)
    issued = consoles.get(UUID)
    libvirtd.destroy(UUID)
    if stop == "undefine":
        libvirtd.virsh("undefine", UUID)
    consoles.assert_over(UUID, issued)

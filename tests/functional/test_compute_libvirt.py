# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver, and what compute decides with it, on a real libvirtd with QEMU guests."""

import itertools
import logging
import os
import signal
import threading
from pathlib import Path

import pytest

from porthole_common import errors, rpc
from porthole_common.context import RequestContext
from porthole_common.model import ConsoleType, Instance, InstanceState, Target
from porthole_compute.drivers.libvirt_host import LibvirtDriver
from porthole_compute.endpoint import ComputeEndpoint
from support.compute_fakes import RecordedEvents, make_conf
from support.deadlines import join_within
from support.libvirt_driver import (
    CALL_TIMEOUT_S,
    NOVA,
    OTHER_UUID,
    TIMEOUT_S,
    UUID,
    ask,
    make_driver,
    read_greeting,
    state_of,
)
from support.libvirtd import Libvirtd, guest_xml
from support.migration import HeldMigration
from support.ports import free_port
from support.processes import wait_until

BOTH = (ConsoleType.NOVNC, ConsoleType.XVPVNC)
CONTEXT = RequestContext(overwrite=False)
PORTHOLE = (
    "<p:instance xmlns:p='urn:porthole:instance:1'><p:name>db-1</p:name><p:owner project='p-own' user='u-own'/>"
    "</p:instance>"
)
DISK_BYTES = 64 * 1024 * 1024
# One of some ten backups begins while the driver asks.
BACKUPS = 200


def vnc(port: int, listen: str = "127.0.0.1") -> str:
    return f"<graphics type='vnc' port='{port}' autoport='no' listen='{listen}'/>"


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

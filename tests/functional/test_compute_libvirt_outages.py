# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver while libvirtd restarts, is stopped, hangs, or holds the lock of a guest."""

import os
import signal
import socket
import threading
from dataclasses import replace

import pytest

from porthole_common import errors
from porthole_common.model import InstanceState
from porthole_compute.drivers.libvirt_connections import KEEPALIVE_COUNT, KEEPALIVE_INTERVAL_S
from porthole_compute.drivers.libvirt_host import MAX_QUESTIONS, LibvirtDriver
from support.compute_fakes import RecordedEvents
from support.deadlines import join_within, kept_within, time_call
from support.domain_lock import HeldDomain
from support.libvirt_driver import (
    CALL_TIMEOUT_S,
    NOVA,
    OTHER_UUID,
    TIMEOUT_S,
    UUID,
    ask,
    is_up,
    make_driver,
    read_greeting,
    state_of,
)
from support.libvirtd import Libvirtd, guest_xml, is_running
from support.processes import wait_until

# More than the questions that the driver asks at once.
CROWD = 2 * MAX_QUESTIONS
ROUNDS = 5
# After this libvirt takes a connection for broken that keeps silent (virConnectSetKeepAlive).
KEEPALIVE_S = KEEPALIVE_INTERVAL_S * (KEEPALIVE_COUNT + 1)


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

# SPDX-License-Identifier: Apache-2.0
import os
import signal

import pytest

from porthole_common.systemd import SystemdNotifier
from porthole_novncproxy.process import heartbeat as heartbeat_module
from porthole_novncproxy.process.heartbeat import Heartbeat, Watch

WATCHDOG_S = 30.0
READY = "READY=1\nSTATUS=serving"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(heartbeat_module, "time", made)
    return made


class Bed:
    """Two workers in this process, and their watch."""

    def __init__(self, clock: Clock, watchdog_s: float | None = WATCHDOG_S) -> None:
        self.clock = clock
        self.told: list[str] = []
        self.killed: list[tuple[int, int]] = []
        self.heartbeat = Heartbeat(2)
        environ = {"NOTIFY_SOCKET": "/run/systemd/notify"}
        if watchdog_s:
            environ["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        notifier = SystemdNotifier(environ, self.told.append, clock.monotonic)
        self.watch = Watch("p", self.heartbeat, notifier, lambda pid, number: self.killed.append((pid, number)))

    def start(self) -> None:
        for worker in (0, 1):
            self.heartbeat.enter(worker)
            self.heartbeat.set_current(worker)
        self.watch.look()

    def pass_time(self, seconds: float, *alive: int) -> None:
        """Let time pass, a second at a time, in which the workers ``alive`` are and the master looks."""
        for _ in range(int(seconds)):
            self.clock.now_s += 1
            for worker in alive:
                self.heartbeat.beat(worker)
            self.watch.look()


@pytest.fixture
def bed(clock: Clock) -> Bed:
    return Bed(clock)


def test_ready_once_every_worker_is(bed: Bed) -> None:
    bed.watch.look()
    bed.heartbeat.enter(0)
    bed.heartbeat.set_current(0)
    bed.heartbeat.enter(1)
    bed.watch.look()
    assert READY not in bed.told
    bed.heartbeat.set_current(1)
    bed.watch.look()
    bed.watch.look()
    assert bed.told.count(READY) == 1


def test_a_worker_that_is_replaced_is_not_ready_before_it_says_so(bed: Bed) -> None:
    bed.heartbeat.enter(0)
    bed.heartbeat.set_current(0)
    bed.heartbeat.enter(0)
    bed.heartbeat.enter(1)
    bed.heartbeat.set_current(1)
    bed.watch.look()
    assert READY not in bed.told


def test_pings_three_times_within_the_watchdogs_time(bed: Bed) -> None:
    bed.start()
    bed.told.clear()
    bed.pass_time(90, 0, 1)
    assert bed.told == ["WATCHDOG=1"] * 9
    assert bed.killed == []


def test_a_stuck_worker_is_ended_alone(bed: Bed) -> None:
    bed.start()
    bed.pass_time(30, 0)
    assert bed.killed == []
    bed.pass_time(1, 0)
    assert bed.killed == [(os.getpid(), signal.SIGABRT)]
    # It is stopped, say, and does not even take that.
    bed.pass_time(2, 0)
    assert bed.killed[1:] == [(os.getpid(), signal.SIGKILL)] * 2


def test_one_that_is_replaced_is_left_alone(bed: Bed) -> None:
    bed.start()
    bed.pass_time(31, 0)
    bed.heartbeat.enter(1)
    bed.told.clear()
    bed.pass_time(30, 0, 1)
    assert len(bed.killed) == 1
    assert bed.told == ["WATCHDOG=1"] * 3


def test_systemd_acts_when_no_replacement_comes(bed: Bed) -> None:
    bed.start()
    bed.pass_time(61, 0)
    bed.told.clear()
    bed.pass_time(60, 0)
    assert bed.told == []


def test_a_killed_worker_that_is_gone_is_no_error(clock: Clock) -> None:
    bed = Bed(clock)

    def kill(_pid: int, _number: int) -> None:
        raise ProcessLookupError

    bed.watch = Watch("p", bed.heartbeat, SystemdNotifier({"WATCHDOG_USEC": "30000000"}), kill)
    bed.start()
    bed.pass_time(40, 0)


def test_without_a_watchdog_nobody_is_ended(clock: Clock) -> None:
    bed = Bed(clock, None)
    bed.start()
    bed.pass_time(300)
    assert (bed.told, bed.killed) == ([READY], [])


def test_a_reload_is_over_once_every_worker_has_made_it(bed: Bed) -> None:
    bed.start()
    bed.told.clear()
    bed.watch.reload()
    bed.heartbeat.set_current(0)
    bed.watch.look()
    assert bed.told[0].startswith("RELOADING=1\n")
    assert READY not in bed.told
    bed.heartbeat.set_current(1)
    bed.watch.look()
    assert bed.told.count(READY) == 1


def test_a_reload_before_the_start_is_over_delays_it(bed: Bed) -> None:
    bed.heartbeat.enter(0)
    bed.heartbeat.enter(1)
    bed.heartbeat.set_current(0)
    bed.watch.reload()
    bed.heartbeat.set_current(1)
    bed.watch.look()
    assert bed.told == ["WATCHDOG=1"]

# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from porthole_common.systemd import SystemdNotifier

SOCKET = {"NOTIFY_SOCKET": "/run/systemd/notify"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_without_systemd_nobody_is_told() -> None:
    told: list[str] = []
    notifier = SystemdNotifier({}, told.append)
    notifier.ready()
    notifier.ping()
    assert told == []


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        # Inherited from a parent that is watched itself.
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
    ],
)
def test_the_watchdog_is_the_units(environ: dict[str, str], watchdog_s: float | None) -> None:
    notifier = SystemdNotifier(SOCKET | environ, lambda _state: None)
    assert notifier.watchdog_s == watchdog_s
    assert notifier.ping_interval_s == (watchdog_s / 3 if watchdog_s else None)


def test_what_is_waited_for_is_said_again_before_the_extension_is_over() -> None:
    told: list[str] = []
    clock = Clock()
    notifier = SystemdNotifier(SOCKET, told.append, clock)
    for _ in range(300):
        notifier.wait_for("the broker")
        clock.now_s += 0.1
    assert told == ["STATUS=waits for the broker\nEXTEND_TIMEOUT_USEC=30000000"] * 6


def test_a_reload_has_its_time() -> None:
    told: list[str] = []
    SystemdNotifier(SOCKET, told.append, Clock()).reloading()
    assert told == ["RELOADING=1\nMONOTONIC_USEC=100000000"]


def test_the_end_has_the_time_it_needs() -> None:
    told: list[str] = []
    SystemdNotifier(SOCKET, told.append).stopping(90.5)
    assert told == ["STOPPING=1\nSTATUS=ending\nEXTEND_TIMEOUT_USEC=90500000"]

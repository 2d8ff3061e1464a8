# SPDX-License-Identifier: Apache-2.0
import itertools
import random

from porthole_novncproxy.sessions.schedule import SPREAD_S, Schedule

INTERVAL_S = 60.0
STEP_S = 0.25


def run(schedule, hosts, seconds, start=0.0, busy=()):
    """Look every STEP_S; return [(second, host)] of those that were asked."""
    asked = []
    for step in range(int(seconds / STEP_S)):
        now = start + step * STEP_S
        if schedule.is_due(now):
            asked += [(now, host) for host in schedule.take_due(hosts, now, busy)]
    return asked


def test_each_host_is_asked_within_each_interval_and_not_much_oftener():
    schedule = Schedule(INTERVAL_S, random.Random(1).random)
    hosts = [f"h{number}" for number in range(40)]
    asked = run(schedule, hosts, 10 * INTERVAL_S)
    for host in hosts:
        moments = [0.0, *(now for now, each in asked if each == host)]
        gaps = [after - before for before, after in itertools.pairwise(moments)]
        assert max(gaps) <= INTERVAL_S + STEP_S
        assert 10 <= len(gaps) <= 12


def test_the_hosts_are_spread_over_the_interval():
    schedule = Schedule(INTERVAL_S, random.Random(1).random)
    asked = run(schedule, [f"h{number}" for number in range(1000)], 3 * INTERVAL_S)
    for first in range(0, int(3 * INTERVAL_S), 5):
        burst = sum(first <= now < first + 5 for now, _ in asked)
        assert burst <= 3 * 1000 * 5 / INTERVAL_S


def test_a_host_of_a_first_console_is_asked_within_the_interval_after_it_opened():
    for drawn in (0.0, 0.5, 1.0):
        schedule = Schedule(INTERVAL_S, lambda drawn=drawn: drawn)
        run(schedule, ["old"], INTERVAL_S)
        [(first, _), *_] = [
            entry for entry in run(schedule, ["old", "new"], 2 * INTERVAL_S, INTERVAL_S) if entry[1] == "new"
        ]
        assert first <= 2 * INTERVAL_S + STEP_S


def test_after_an_event_each_host_is_asked_soon_also_one_that_was_not_known():
    schedule = Schedule(INTERVAL_S, lambda: 1.0)
    run(schedule, ["a", "b"], 1)
    schedule.hasten(1.0)
    soon = run(schedule, ["a", "b", "c"], SPREAD_S + 2 * STEP_S, 1.0)
    assert sorted(host for _, host in soon) == ["a", "b", "c"]
    assert max(now for now, _ in soon) <= 1.0 + SPREAD_S
    assert run(schedule, ["a", "b", "c"], INTERVAL_S / 2, 4.0) == []


def test_after_the_event_of_one_host_that_host_is_asked_soon():
    schedule = Schedule(INTERVAL_S, lambda: 1.0)
    run(schedule, ["a", "b"], 1)
    schedule.hasten(1.0, "a")
    assert run(schedule, ["a", "b"], 5, 1.0) == [(1.0 + SPREAD_S, "a")]
    # Nobody has a console there.
    schedule.hasten(6.0, "nowhere")
    assert run(schedule, ["a", "b"], 5, 6.0) == []


def test_a_host_that_is_being_asked_at_an_event_is_asked_again_afterwards():
    schedule = Schedule(INTERVAL_S, lambda: 0.0)
    run(schedule, ["a"], 1)
    schedule.hasten(1.0)
    assert run(schedule, ["a"], 5, 1.0, busy=["a"]) == []
    assert run(schedule, ["a"], 5, 6.0) == [(6.0, "a")]


def test_a_host_that_left_a_question_open_is_asked_sooner():
    schedule = Schedule(INTERVAL_S, lambda: 0.0)
    assert run(schedule, ["a"], 1) == [(0.0, "a")]
    schedule.retry("a", 1.0)
    [(again, _)] = run(schedule, ["a"], INTERVAL_S / 2, 1.0)
    assert again <= 1.0 + INTERVAL_S / 4
    schedule.retry("gone", 1.0)
    assert run(schedule, [], INTERVAL_S, INTERVAL_S) == []

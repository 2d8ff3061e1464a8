# SPDX-License-Identifier: Apache-2.0
"""The module with fakes for the registry and for compute; a test looks by hand, and has the clock."""

import logging
import threading
import time
from dataclasses import dataclass, field

import pytest

from porthole_common import errors
from porthole_common.model import ConnectInfo, ConsoleType, Owner, RevocationReason, Target, TokenReason
from porthole_compute.rpcapi import MAX_CONSOLES
from porthole_novncproxy.sessions.recheck import EAGER_HOSTS, MAX_HOSTS_AT_ONCE, Recheck
from porthole_novncproxy.sessions.schedule import SPREAD_S, Schedule
from support.processes import wait_until

PATIENCE_S = 30
INTERVAL_S = 60.0
GONE = errors.TokenInvalid(str(TokenReason.INSTANCE_GONE))


@dataclass(eq=False)
class Console:
    """A session, and its admission."""

    connect_info: ConnectInfo


def make_console(instance="i-1", host="h1", port=5900, **fields):
    return Console(ConnectInfo(instance, ConsoleType.NOVNC, "192.0.2.1", port, "https://x/", host, **fields))


class Consoles:
    """The registry."""

    def __init__(self):
        self.open = []
        self.ended = []
        self.lists = 0
        self.is_blocked = False

    def list_open(self, timeout_s):
        self.lists += 1
        if self.is_blocked:
            raise TimeoutError
        return [(console, console) for console in self.open]

    def end(self, sessions, reason):
        self.ended += [(console, reason) for console in sessions]
        self.open = [console for console in self.open if console not in sessions]


@dataclass
class Compute:
    """The computes: ``answers`` by instance, ``failures`` and ``held`` by host."""

    answers: dict = field(default_factory=dict)
    failures: dict = field(default_factory=dict)
    held: dict = field(default_factory=dict)
    calls: list = field(default_factory=list)

    def validate_consoles(self, context, compute_host, consoles, *, log_failures):
        assert context.is_admin
        assert not log_failures
        self.calls.append((compute_host, list(consoles)))
        if compute_host in self.held:
            assert self.held[compute_host].wait(PATIENCE_S)
        if compute_host in self.failures:
            raise self.failures[compute_host]
        return [self.answers.get(info.instance_uuid, info.target) for info in consoles]

    @property
    def hosts(self):
        return [host for host, _ in self.calls]


class House:
    """A Recheck whose thread is the test."""

    def __init__(self):
        self.now = 0.0
        self.subscription = object()
        self.consoles, self.compute = Consoles(), Compute()
        self.recheck = Recheck(
            self.consoles,
            self.compute,
            Schedule(INTERVAL_S, lambda: 1.0),
            lambda: self.subscription,
            clock=lambda: self.now,
            batch_pause_s=0,
        )

    def look(self, seconds=0.0):
        """Let time pass, and look until no question is under way."""
        self.now += seconds
        wait_until(lambda: not self.recheck.look(), PATIENCE_S, "the answers")

    def close(self):
        for event in self.compute.held.values():
            event.set()
        self.recheck.stop()


@pytest.fixture
def house():
    house = House()
    # The first subscription.
    house.look()
    house.look(SPREAD_S)
    yield house
    house.close()


def test_after_a_new_subscription_what_is_not_valid_ends(house):
    stopped, alive = make_console("i-1"), make_console("i-2")
    house.consoles.open = [stopped, alive]
    house.compute.answers["i-1"] = GONE
    house.subscription = object()
    house.look()
    house.look(SPREAD_S)
    assert house.consoles.ended == [(stopped, RevocationReason.ENDED)]
    assert house.compute.hosts == ["h1"]


def test_without_an_event_each_console_is_asked_about_once_in_the_interval(house):
    house.consoles.open = [make_console()]
    house.compute.answers["i-1"] = GONE
    seconds = 0
    while not house.consoles.ended:
        house.look(1)
        seconds += 1
        assert seconds <= INTERVAL_S
    assert house.compute.hosts == ["h1"]


def test_without_a_subscription_nothing_is_asked(house):
    house.consoles.open = [make_console()]
    house.subscription = None
    for _ in range(100):
        house.look(1)
    assert house.compute.calls == []
    house.subscription = object()
    house.look()
    house.look(SPREAD_S)
    assert house.compute.hosts == ["h1"]


def test_a_host_that_has_started_is_asked_soon_and_alone(house):
    house.consoles.open = [make_console(host="h1"), make_console(host="h2")]
    house.recheck.on_host_started("h2")
    house.look()
    house.look(SPREAD_S)
    assert house.compute.hosts == ["h2"]


def test_each_end_has_its_reason(house):
    ended, sold = make_console("i-1"), make_console("i-2", owner=Owner("blue", "ben"))
    house.compute.answers = {"i-1": GONE, "i-2": errors.TokenInvalid(str(TokenReason.OWNER_CHANGED))}
    house.recheck.ask("h1", [(console, console) for console in (ended, sold)])
    assert dict(house.consoles.ended) == {ended: RevocationReason.ENDED, sold: RevocationReason.OWNER_CHANGED}


def test_whatever_else_a_host_says_ends_nothing(house):
    for answer in [
        errors.HypervisorUnavailable("h1"),
        errors.RemoteFailure("compute", "validate_consoles"),
        errors.InstanceNotReady("i-1", "migrating"),
        Target("192.0.2.1", 5900),
    ]:
        house.compute.answers["i-1"] = answer
        console = make_console()
        house.recheck.ask("h1", [(console, console)])
    for failure in [
        errors.RpcUnavailable("compute", "validate_consoles"),
        errors.RemoteFailure("compute", "validate_consoles"),
    ]:
        house.compute.failures["h1"] = failure
        house.recheck.ask("h1", [(console, console)])
    assert house.consoles.ended == []


def test_consoles_with_the_same_answer_are_one_question_and_calls_are_bounded(house):
    one = [make_console(user_id=f"u{number}", token=f"t{number}") for number in range(10)]
    # The same address, and other runs and owners of the guest.
    other = [make_console(run="2"), make_console(owner=Owner("red", "rita")), make_console(port=5901)]
    many = [make_console(f"m-{number}") for number in range(2 * MAX_CONSOLES)]
    house.compute.answers["i-1"] = GONE
    house.recheck.ask("h1", [(console, console) for console in (*one, *other, *many)])
    assert [len(infos) for _, infos in house.compute.calls] == [MAX_CONSOLES, MAX_CONSOLES, 4]
    assert {console for console, _ in house.consoles.ended} == {*one, *other}


def test_an_answer_to_an_older_question_ends_no_younger_console(house):
    old = make_console()
    house.consoles.open = [old]
    house.compute.answers["i-1"] = GONE
    house.compute.held["h1"] = threading.Event()
    house.recheck.on_host_started("h1")
    house.recheck.look()
    house.now += SPREAD_S
    house.recheck.look()
    wait_until(lambda: house.compute.hosts == ["h1"], PATIENCE_S, "the question")
    # Validated, and open, while the answer is on its way: the guest was started again.
    young = make_console()
    house.consoles.open.append(young)
    house.compute.held["h1"].set()
    house.look()
    assert house.consoles.ended == [(old, RevocationReason.ENDED)]
    assert house.consoles.open == [young]


def test_silent_hosts_cost_no_other_and_their_number_is_bounded(house):
    silent = [f"s{number}" for number in range(MAX_HOSTS_AT_ONCE - 1)]
    house.compute.held = {host: threading.Event() for host in silent}
    stopped = [make_console(f"i-{number}", f"h{number}") for number in range(40)]
    house.consoles.open = [make_console(host=host) for host in silent] + stopped
    house.compute.answers = {console.connect_info.instance_uuid: GONE for console in stopped}
    before = threading.active_count()
    house.subscription = object()
    house.recheck.look()
    house.now += SPREAD_S

    def all_ended():
        house.recheck.look()
        return len(house.consoles.ended) == len(stopped)

    wait_until(all_ended, PATIENCE_S, "the consoles of the hosts that answer")
    assert threading.active_count() <= before + MAX_HOSTS_AT_ONCE
    # A host that has left a question open is not asked another one.
    house.now += 10 * INTERVAL_S
    house.recheck.look()
    assert all(house.compute.hosts.count(host) == 1 for host in silent)


def test_few_hosts_are_asked_at_once_while_they_answer(house):
    """The processor is the relay's."""
    under_way, most, lock = set(), [0], threading.Lock()

    def validate(context, compute_host, consoles, *, log_failures):
        with lock:
            under_way.add(compute_host)
            most[0] = max(most[0], len(under_way))
        time.sleep(0)
        with lock:
            under_way.discard(compute_host)
        return [info.target for info in consoles]

    house.compute.validate_consoles = validate
    house.consoles.open = [make_console(host=f"h{number}") for number in range(100)]
    house.subscription = object()
    house.look()
    house.look(SPREAD_S)
    assert 1 <= most[0] <= EAGER_HOSTS


def test_a_loss_is_logged_once_and_the_host_is_asked_again(house, caplog):
    caplog.set_level(logging.INFO)
    house.consoles.open = [make_console(), make_console("i-2")]
    for trouble in [
        {"failures": {"h1": errors.RpcUnavailable("compute", "validate_consoles")}},
        {"answers": {"i-2": errors.HypervisorUnavailable("h1")}},
    ]:
        caplog.clear()
        house.compute = Compute(**trouble)
        house.recheck._compute = house.compute
        for _ in range(120):
            house.look(1)
        # More often than once a minute, and not all the time.
        assert 4 <= len(house.compute.calls) <= 9
        house.compute.failures.clear()
        house.compute.answers.clear()
        for _ in range(60):
            house.look(1)
        lines = [record.getMessage().partition(" compute=")[0] for record in caplog.records]
        assert lines == ["Open consoles not validated; asking again", "Open consoles validated again"]


def test_a_fault_about_one_host_keeps_no_other_from_being_asked(house, caplog):
    house.compute.failures["h1"] = ZeroDivisionError()
    house.consoles.open = [make_console(host="h1"), make_console("i-2", "h2")]
    house.compute.answers["i-2"] = GONE
    house.subscription = object()
    house.look()
    house.look(SPREAD_S)
    assert [console.connect_info.instance_uuid for console, _ in house.consoles.ended] == ["i-2"]
    assert "Open consoles not rechecked" in caplog.text


def test_a_loop_that_is_blocked_is_asked_again(house):
    house.consoles.open = [make_console()]
    house.consoles.is_blocked = True
    house.subscription = object()
    house.look()
    house.look(SPREAD_S)
    house.consoles.is_blocked = False
    house.look()
    house.look(SPREAD_S)
    assert house.compute.hosts == ["h1"]


def test_sessions_are_listed_only_when_a_host_may_be_due(house):
    house.consoles.open = [make_console()]
    house.consoles.lists = 0
    for _ in range(int(INTERVAL_S)):
        house.look(1)
    assert house.consoles.lists <= 8


def test_its_thread_looks_by_itself_and_ends():
    house = House()
    house.recheck = Recheck(
        house.consoles, house.compute, Schedule(INTERVAL_S, lambda: 0.0), lambda: house.subscription
    )
    console = make_console()
    house.consoles.open = [console]
    house.compute.answers["i-1"] = GONE
    house.recheck.start()
    wait_until(lambda: house.consoles.ended == [(console, RevocationReason.ENDED)], PATIENCE_S, "the end")
    house.recheck.stop()
    assert not any(thread.name == "recheck" for thread in threading.enumerate())
    house.close()

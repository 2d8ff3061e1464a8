# SPDX-License-Identifier: Apache-2.0
"""Which questions go to a host together, and what each of them is answered."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline
from porthole_common.model import ConnectInfo, ConsoleType, Target, TokenReason
from porthole_common.thread_pool import STALL_S
from porthole_compute.rpcapi import MAX_CONSOLES
from porthole_novncproxy.admission.host_questions import BATCH_TIMEOUT_S, GATHER_S, HostQuestions, _Question
from support.cases import naming
from support.processes import wait_until

LONG_S = 30
CONTEXT = RequestContext(overwrite=False)
MOVED = errors.TokenInvalid(TokenReason.INSTANCE_GONE)


def console(name, host="h"):
    return ConnectInfo(f"i-{name}", ConsoleType.NOVNC, "192.0.2.1", 5900 + len(name), "http://x/", host)


class Compute:
    """Notes each call as the instances it is about, in order, and answers when it may."""

    def __init__(self):
        self.calls = []
        self.answers = {}
        self.fault = None
        self.may_answer = threading.Event()
        self.may_answer.set()

    def _answer(self, name, target):
        return self.answers.get(name, target)

    def validate_console(self, context, compute_host, claim, deadline):
        self.calls.append([claim.instance_uuid])
        assert self.may_answer.wait(LONG_S)
        answer = self._answer(claim.instance_uuid, claim.target)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def validate_consoles(self, context, compute_host, consoles, deadline, timeout_s):
        assert timeout_s == BATCH_TIMEOUT_S
        self.calls.append([info.instance_uuid for info in consoles])
        assert self.may_answer.wait(LONG_S)
        if self.fault is not None:
            raise self.fault
        return [self._answer(info.instance_uuid, info.target) for info in consoles]


class House:
    """Asks in threads; a call that is not answered is not taken for stalled before a test says so."""

    def __init__(self, stall_s=LONG_S):
        self.compute = Compute()
        self.now = 100.0
        self.on_pause = time.sleep
        self.questions = HostQuestions(self.compute, LONG_S, lambda: self.now, stall_s, self._wait_for_others)
        self.pool = ThreadPoolExecutor(64)

    def _wait_for_others(self, seconds):
        self.on_pause(seconds)

    def ask(self, name, host="h"):
        return self.pool.submit(self.questions.ask, CONTEXT, console(name, host), Deadline())

    def ask_in_order(self, *names, host="h"):
        """Ask, each one when the last one waits."""
        asked = []
        for count, name in enumerate(names, 1):
            asked.append(self.ask(name, host))
            wait_until(lambda count=count: self.waiting(host) == count, LONG_S, f"{name} to wait")
        return asked

    def waiting(self, host="h"):
        found = self.questions._hosts.get(host)
        return len(found.waiting) if found else 0

    def wait_for_calls(self, count):
        wait_until(lambda: len(self.compute.calls) == count, LONG_S, f"{count} calls")

    def hold(self, name="first", host="h"):
        """Have a call under way, which is not answered."""
        before = len(self.compute.calls)
        self.compute.may_answer.clear()
        held = self.ask(name, host)
        self.wait_for_calls(before + 1)
        return held


@pytest.fixture
def house():
    made = House()
    yield made
    made.compute.may_answer.set()
    made.pool.shutdown()
    assert not made.questions._hosts


def test_a_question_that_comes_alone_is_a_call_as_before(house):
    assert house.ask("a").result(LONG_S) == console("a").target
    assert house.ask("a").result(LONG_S) == console("a").target
    assert house.compute.calls == [["i-a"], ["i-a"]]


def test_what_is_asked_meanwhile_goes_together_in_the_next_call(house):
    held = house.hold()
    asked = house.ask_in_order("a", "bb", "ccc")
    house.compute.may_answer.set()
    assert [question.result(LONG_S) for question in (held, *asked)] == [
        console(name).target for name in ("first", "a", "bb", "ccc")
    ]
    assert house.compute.calls == [["i-first"], ["i-a", "i-bb", "i-ccc"]]


def test_a_question_that_has_waited_takes_along_what_comes_a_little_later(house):
    late = []

    def ask_another(seconds):
        assert seconds == GATHER_S
        late.append(house.ask("bb"))
        wait_until(lambda: house.waiting() == 2, LONG_S, "another question")

    house.on_pause = ask_another
    held = house.hold()
    (waiting,) = house.ask_in_order("a")
    house.compute.may_answer.set()
    assert held.result(LONG_S)
    assert waiting.result(LONG_S)
    assert [question.result(LONG_S) for question in late] == [console("bb").target]
    assert house.compute.calls == [["i-first"], ["i-a", "i-bb"]]


def test_a_question_that_comes_alone_waits_for_no_other_one(house):
    def fail(seconds):
        pytest.fail(f"it waited for {seconds} s")

    house.on_pause = fail
    assert house.ask("a").result(LONG_S)


def test_a_question_is_never_answered_by_a_call_that_was_sent_before_it(house):
    """The same console too: a confirmation must be younger than the connection."""
    held = house.hold("a")
    (again,) = house.ask_in_order("a")
    house.compute.answers["i-a"] = MOVED
    house.compute.may_answer.set()
    with pytest.raises(errors.TokenInvalid):
        again.result(LONG_S)
    assert house.compute.calls == [["i-a"], ["i-a"]]
    with pytest.raises(errors.TokenInvalid):
        held.result(LONG_S)


def test_each_host_is_asked_by_itself(house):
    held = house.hold()
    other = house.hold("other", "h2")
    house.compute.may_answer.set()
    assert held.result(LONG_S)
    assert other.result(LONG_S)


def test_each_question_of_a_call_has_its_own_answer(house):
    house.hold()
    asked = house.ask_in_order("a", "bb", "ccc")
    house.compute.answers |= {"i-a": MOVED, "i-bb": Target("192.0.2.9", 1)}
    house.compute.may_answer.set()
    with pytest.raises(errors.TokenInvalid):
        asked[0].result(LONG_S)
    assert asked[1].result(LONG_S) == Target("192.0.2.9", 1)
    assert asked[2].result(LONG_S) == console("ccc").target


def test_a_call_that_has_stalled_is_not_waited_for():
    """A question that was sent before its host came up is lost, and must not hold up the next ones."""
    house = House(stall_s=0.01)
    held = house.hold()
    asked = [house.ask(name) for name in ("a", "bb")]
    wait_until(lambda: sum(map(len, house.compute.calls)) == 3, LONG_S, "calls beside it")
    assert not held.done()
    house.compute.may_answer.set()
    assert all(question.result(LONG_S) for question in (held, *asked))
    house.pool.shutdown()
    assert not house.questions._hosts


def test_a_thread_that_begins_a_call_asks_its_own_question_in_it():
    """Behind more questions than a call has room for, its own one stayed out, and the host counted as silent."""
    compute = Compute()
    questions = HostQuestions(compute, LONG_S, stall_s=0.01)
    # The first begins a call that nobody makes, as if it had stalled.
    entered = [questions._enter(_Question(console(f"{number:b}"))) for number in range(MAX_CONSOLES + 2)]
    assert [call is None for call in entered] == [False] + [True] * (MAX_CONSOLES + 1)
    assert questions.ask(CONTEXT, console("mine"), Deadline()) == console("mine").target
    (call,) = compute.calls
    assert len(call) == MAX_CONSOLES
    # The others are not lost.
    assert len(questions._hosts["h"].waiting) == 2


def test_a_guest_without_an_answer_is_asked_about_alone_for_a_while(house):
    for error in (errors.HypervisorUnavailable("h"),):
        house.hold()
        asked = house.ask_in_order("a", "bb")
        house.compute.answers["i-a"] = error
        house.compute.may_answer.set()
        with pytest.raises(errors.HypervisorUnavailable):
            asked[0].result(LONG_S)
        assert asked[1].result(LONG_S)
    assert house.compute.calls == [["i-first"], ["i-a", "i-bb"], ["i-a"]]
    # It waits for nobody and nobody for it.
    house.hold()
    slow = house.hold("a")
    (other,) = house.ask_in_order("bb")
    house.compute.may_answer.set()
    assert other.result(LONG_S)
    with pytest.raises(errors.HypervisorUnavailable):
        slow.result(LONG_S)
    house.now += 3600
    del house.compute.answers["i-a"]
    house.hold()
    both = house.ask_in_order("a", "bb")
    house.compute.may_answer.set()
    assert all(question.result(LONG_S) for question in both)
    assert house.compute.calls[-1] == ["i-a", "i-bb"]


def test_a_compute_of_an_earlier_version_is_asked_about_each_console_alone(house):
    house.hold()
    asked = house.ask_in_order("a", "bb")
    house.compute.fault = errors.RemoteFailure("compute", "validate_consoles")
    house.compute.may_answer.set()
    assert all(question.result(LONG_S) for question in asked)
    assert house.compute.calls[:2] == [["i-first"], ["i-a", "i-bb"]]
    assert sorted(house.compute.calls[2:]) == [["i-a"], ["i-bb"]]
    house.hold()
    beside = house.hold("a")
    house.compute.may_answer.set()
    assert beside.result(LONG_S)


def test_a_call_without_an_answer_is_one_for_all_its_questions(house):
    for fault in (errors.RpcUnavailable("compute", "validate_consoles"), RuntimeError("a fault of Porthole's")):
        with naming(fault):
            house.hold()
            asked = house.ask_in_order("a", "bb")
            house.compute.fault = fault
            house.compute.may_answer.set()
            found = [question.exception(LONG_S) for question in asked]
            assert any(isinstance(error, type(fault)) for error in found)
            assert all(isinstance(error, errors.RpcUnavailable | type(fault)) for error in found)


def test_a_crowd_is_answered_each_by_its_own(house):
    names = [f"{number:b}" for number in range(1, 40)]
    asked = {name: house.ask(name) for name in names for _ in range(3)}
    assert {name: question.result(LONG_S) for name, question in asked.items()} == {
        name: console(name).target for name in names
    }


def test_a_question_that_waits_has_a_step_of_its_deadline(house):
    house.hold()
    deadline = Deadline()
    waiting = house.pool.submit(house.questions.ask, CONTEXT, console("a"), deadline)
    wait_until(lambda: house.waiting() == 1, LONG_S, "the question to wait")
    assert isinstance(deadline.waits_for, errors.RpcUnavailable)
    assert deadline.due_at < float("inf")
    house.compute.may_answer.set()
    assert waiting.result(LONG_S)


def test_the_stall_is_that_of_the_threads():
    assert HostQuestions(Compute(), 1.0)._stall_s == STALL_S

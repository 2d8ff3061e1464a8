# SPDX-License-Identifier: Apache-2.0
import threading
import time
from http import HTTPStatus

import pytest

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.thread_pool import STALL_S
from porthole_novncproxy.admission.gate import Admission
from porthole_novncproxy.front.in_flight import RequestsInFlight
from porthole_novncproxy.front.responses import Response, Upgrade
from support.fake_loop import FakeLoop

LONG_S = 30
LATE = errors.RpcUnavailable("topic", "method")
ANSWER = Response(HTTPStatus.OK)


class Proxy:
    """Requests in flight on a fake loop. ``answered`` are those whose thread answered, ``late`` those the loop did."""

    def __init__(self, threads=4, backlog=10, request_timeout_s=LONG_S):
        self.loop = FakeLoop()
        self.late = []
        self.answered = []
        self.in_flight = RequestsInFlight(
            self.loop,
            threads,
            backlog,
            request_timeout_s,
            lambda *answered: self.answered.append(answered),
            self.late.append,
        )

    def begin(self, work=lambda _deadline: ANSWER):
        """Begin ``work(deadline)``; return what stands for the pending request, and when the work is over."""
        pending, over = object(), threading.Event()

        def do(deadline):
            try:
                return work(deadline)
            finally:
                over.set()

        return (pending if self.in_flight.begin(pending, RequestContext(), do) else None), over

    def look(self):
        self.loop.advance(STALL_S)


@pytest.fixture
def release():
    """What stuck work waits for."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def make():
    made = []

    def make_proxy(**options):
        made.append(Proxy(**options))
        return made[-1]

    yield make_proxy
    for proxy in made:
        proxy.in_flight.stop(LONG_S)


def stuck_call(release, timeout_s):
    """Work that is stuck in a step which may take ``timeout_s``, and then answers."""

    def work(deadline):
        with deadline.step(timeout_s, LATE):
            release.wait(LONG_S)
        return ANSWER

    return work


def test_a_request_that_is_stuck_in_a_call_is_answered_by_the_loop_and_by_nobody_else(make, release):
    proxy = make()
    pending, over = proxy.begin(stuck_call(release, 0.0))
    wait_for(lambda: proxy.look() or proxy.late)
    (late,) = proxy.late
    assert (late.pending, late.deadline.waits_for) == (pending, LATE)
    proxy.look()
    assert len(proxy.late) == 1
    release.set()
    assert over.wait(LONG_S)
    proxy.in_flight.stop(LONG_S)
    proxy.loop.run_soon()
    assert proxy.answered == []


def test_a_console_that_is_admitted_too_late_is_given_back(make, release):
    proxy = make()
    given_back = threading.Event()

    class Admitted(Admission):
        def __init__(self):
            pass

        def close(self):
            given_back.set()

    def work(deadline):
        stuck_call(release, 0.0)(deadline)
        return Upgrade(ANSWER, Admitted())

    proxy.begin(work)
    wait_for(lambda: proxy.look() or proxy.late)
    release.set()
    assert given_back.wait(LONG_S)


def test_a_request_that_is_in_time_is_answered_once_in_the_loop(make, release):
    proxy = make()
    pending, over = proxy.begin(stuck_call(release, LONG_S))
    proxy.look()
    release.set()
    assert over.wait(LONG_S)
    wait_for(lambda: proxy.loop.soon)
    assert proxy.answered == []
    proxy.loop.run_soon()
    proxy.look()
    assert (proxy.answered, proxy.late) == ([(pending, ANSWER)], [])


def test_work_that_fails_ends_without_an_answer(make):
    proxy = make()

    def fail(_deadline):
        raise KeyError

    pending, _over = proxy.begin(fail)
    wait_for(lambda: proxy.loop.run_soon() or proxy.answered)
    assert proxy.answered == [(pending, None)]


def test_a_request_that_waits_too_long_for_a_thread_is_answered_by_the_loop_and_never_begins(make, release):
    proxy = make(threads=1, request_timeout_s=0.0)
    proxy.begin(lambda _deadline: release.wait(LONG_S))
    begun = []
    pending, _over = proxy.begin(begun.append)
    wait_for(lambda: proxy.look() or proxy.late)
    (late,) = proxy.late
    assert (late.pending, late.deadline.waits_for) == (pending, None)
    release.set()
    proxy.in_flight.stop(LONG_S)
    assert not begun


def test_more_than_threads_and_backlog_are_turned_away(make, release):
    proxy = make(threads=1, backlog=2)
    begun = [proxy.begin(lambda _deadline: release.wait(LONG_S))[0] for _ in range(4)]
    assert [pending is not None for pending in begun] == [True, True, True, False]


def test_a_request_that_was_given_up_is_in_nobodys_way(make, release):
    """Its thread is stuck; its place is free."""
    proxy = make(threads=2, backlog=0)
    for _ in range(2):
        proxy.begin(stuck_call(release, 0.0))
    wait_for(lambda: proxy.look() or len(proxy.late) == 2)
    assert proxy.begin()[0] is not None


def test_the_loop_lets_others_begin_beside_those_that_have_stalled(make, release):
    proxy = make(threads=20)
    for _ in range(10):
        proxy.begin(lambda _deadline: release.wait(LONG_S))
    _pending, over = proxy.begin()
    wait_for(lambda: proxy.look() or over.is_set())


def test_the_loop_looks_only_as_long_as_something_is_in_flight(make):
    proxy = make()
    _pending, over = proxy.begin()
    assert over.wait(LONG_S)
    wait_for(lambda: proxy.look() or not proxy.loop.pending_timers)
    proxy.begin()
    assert proxy.loop.pending_timers == 1


def test_a_stop_waits_for_requests_in_flight(make):
    proxy = make()
    over = proxy.begin(lambda _deadline: time.sleep(0.2))[1]
    proxy.in_flight.stop(LONG_S)
    assert over.is_set()
    # The answer was given to the loop before the stop returned.
    assert proxy.loop.soon


def test_a_stop_does_not_wait_for_ever(make, release):
    """Requests that are left are answered."""
    proxy = make()
    pending, over = proxy.begin(lambda _deadline: release.wait(LONG_S))
    proxy.in_flight.stop(0.01)
    assert not over.is_set()
    proxy.loop.run_soon()
    assert [late.pending for late in proxy.late] == [pending]


def wait_for(predicate):
    deadline = time.monotonic() + LONG_S
    while not predicate():
        assert time.monotonic() < deadline
        time.sleep(0.01)

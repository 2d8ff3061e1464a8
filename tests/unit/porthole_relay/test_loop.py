# SPDX-License-Identifier: Apache-2.0
import gc
import logging
import os
import socket
import threading
from contextlib import contextmanager

import pytest

from porthole_relay.loop import READ, WRITE, Loop, Timer

PATIENCE_S = 10


@contextmanager
def running(name="test"):
    loop = Loop(name)
    loop.start()
    try:
        yield loop
    finally:
        loop.stop()


def in_loop(loop, action):
    """Have the loop's thread run ``action``; return what it returns."""
    return loop.ask(action, PATIENCE_S)


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def pipe():
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        yield near, far


def test_readiness_is_told_with_the_events_it_was_asked_for(pipe):
    near, far = pipe
    told = threading.Event()
    seen = []

    def on_ready(events):
        seen.append((events, near.recv(100)))
        told.set()

    with running() as loop:
        in_loop(loop, lambda: loop.register(near.fileno(), READ, on_ready))
        far.send(b"hello")
        assert told.wait(PATIENCE_S)
        assert seen[0][0] & READ
        assert seen[0][1] == b"hello"
        in_loop(loop, lambda: loop.unregister(near.fileno()))


def test_the_end_of_the_peer_is_readiness_to_read(pipe):
    near, far = pipe
    told = threading.Event()
    with running() as loop:

        def on_ready(events):
            loop.unregister(near.fileno())
            told.set()

        in_loop(loop, lambda: loop.register(near.fileno(), READ, on_ready))
        far.shutdown(socket.SHUT_WR)
        assert told.wait(PATIENCE_S)


def test_modify_changes_what_is_waited_for(pipe):
    near, _far = pipe
    told = threading.Event()
    with running() as loop:

        def on_ready(events):
            assert events & WRITE
            loop.modify(near.fileno(), 0)
            told.set()

        in_loop(loop, lambda: loop.register(near.fileno(), 0, on_ready))
        assert not told.is_set()
        in_loop(loop, lambda: loop.modify(near.fileno(), WRITE))
        assert told.wait(PATIENCE_S)


def test_after_unregister_nothing_is_told(pipe):
    near, far = pipe
    seen = []
    with running() as loop:
        in_loop(loop, lambda: loop.register(near.fileno(), READ, seen.append))
        in_loop(loop, lambda: loop.unregister(near.fileno()))
        in_loop(loop, lambda: loop.unregister(near.fileno()))
        far.send(b"x")
        in_loop(loop, lambda: None)
    assert seen == []


def test_a_callback_may_close_what_is_ready_in_the_same_round(caplog):
    pairs = [socket.socketpair() for _ in range(2)]
    seen = []
    with running() as loop:

        def on_ready(number):
            seen.append(number)
            for near, _far in pairs:
                loop.unregister(near.fileno())

        def prepare():
            for number, (near, far) in enumerate(pairs):
                loop.register(near.fileno(), READ, lambda _events, number=number: on_ready(number))
                far.send(b"x")

        in_loop(loop, prepare)
        in_loop(loop, lambda: None)
        in_loop(loop, lambda: None)
    for near, far in pairs:
        near.close()
        far.close()
    assert len(seen) == 1
    assert not caplog.records


def test_calls_are_made_in_order_by_one_thread():
    seen = []
    with running("relay") as loop:
        for number in range(1000):
            loop.call_soon(lambda number=number: seen.append((number, threading.current_thread().name)))
        in_loop(loop, lambda: None)
    assert seen == [(number, "relay") for number in range(1000)]


def test_a_question_has_its_answer_from_the_loops_thread():
    with running("relay") as loop:
        assert loop.ask(lambda: threading.current_thread().name, PATIENCE_S) == "relay"


def test_nobody_waits_for_a_loop_that_is_blocked_or_has_ended():
    unblock = threading.Event()
    with running() as loop:
        loop.call_soon(lambda: unblock.wait(PATIENCE_S))
        with pytest.raises(TimeoutError):
            loop.ask(int, 0.01)
        unblock.set()
    with pytest.raises(TimeoutError):
        loop.ask(int, 0.01)


def test_timers_are_due_in_order_of_time():
    seen = []
    done = threading.Event()
    with running() as loop:

        def prepare():
            loop.call_later(0.02, lambda: (seen.append("last"), done.set()))
            loop.call_later(0.0, lambda: seen.append("first"))
            loop.call_later(0.01, lambda: seen.append("second"))

        in_loop(loop, prepare)
        assert done.wait(PATIENCE_S)
    assert seen == ["first", "second", "last"]


def test_a_cancelled_timer_is_never_due_and_holds_nothing():
    seen = []
    done = threading.Event()
    with running() as loop:

        def prepare():
            timer = loop.call_later(0.0, lambda: seen.append("cancelled"))
            timer.cancel()
            assert timer.action is None
            loop.call_later(0.01, done.set)

        in_loop(loop, prepare)
        assert done.wait(PATIENCE_S)
    assert seen == []


def test_cancelled_timers_do_not_pile_up_until_they_are_due():
    seen = []
    done = threading.Event()
    with running() as loop:

        def prepare():
            loop.call_later(0.0, lambda: seen.append("first"))
            for _ in range(10_000):
                loop.call_later(3600, lambda: None).cancel()
            loop.call_later(0.01, lambda: (seen.append("last"), done.set()))
            return sum(isinstance(thing, Timer) for thing in gc.get_objects())

        assert in_loop(loop, prepare) < 1000
        assert done.wait(PATIENCE_S)
    assert seen == ["first", "last"]


def test_a_far_timer_does_not_delay_anything_else():
    with running() as loop:
        in_loop(loop, lambda: loop.call_later(3600, lambda: None))
        in_loop(loop, lambda: None)


def test_a_fault_in_one_callback_is_logged_and_the_loop_lives_on(caplog):
    def fail():
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR), running() as loop:
        loop.call_soon(fail)
        in_loop(loop, lambda: loop.call_later(0, fail))
        in_loop(loop, lambda: None)
    faults = [record for record in caplog.records if record.exc_info]
    assert len(faults) == 2
    assert all(record.exc_info[0] is ZeroDivisionError for record in faults)


def test_stop_makes_the_calls_that_are_due_first():
    seen = []
    loop = Loop("test")
    loop.start()
    for number in range(10):
        loop.call_soon(lambda number=number: seen.append(number))
    loop.stop()
    assert seen == list(range(10))


def test_a_stopped_loop_has_no_thread_and_no_descriptors_and_takes_calls_in_vain():
    threads, before = set(threading.enumerate()), descriptors()
    loop = Loop("test")
    loop.start()
    loop.stop()
    assert set(threading.enumerate()) <= threads
    # What an earlier test left may be closed meanwhile.
    assert descriptors() <= before
    loop.call_soon(lambda: pytest.fail("a call was made after the end"))


def test_a_loop_that_was_never_started_stops_too():
    before = descriptors()
    Loop("test").stop()
    assert descriptors() <= before


def test_a_blocked_loop_is_shown_and_not_waited_for(caplog, capfd):
    release = threading.Event()
    loop = Loop("test")
    loop.start()
    loop.call_soon(release.wait)
    loop.stop(timeout_s=0.1)
    assert "Event loop blocked" in caplog.text
    assert "in wait" in capfd.readouterr().err
    release.set()
    loop.stop()


def test_a_loop_that_turns_is_alive_and_a_blocked_one_is_not():
    blocked, let_go = threading.Event(), threading.Event()
    with running() as loop:
        assert loop.is_alive()
        in_loop(loop, lambda: None)
        assert loop.is_alive()
        in_loop(loop, lambda: None)
        loop.call_soon(lambda: (blocked.set(), let_go.wait(PATIENCE_S)))
        assert blocked.wait(PATIENCE_S)
        loop.is_alive()
        assert not loop.is_alive()
        assert not loop.is_alive()
        let_go.set()
        in_loop(loop, lambda: None)
        assert loop.is_alive()


def test_a_loop_at_rest_is_alive():
    loop = Loop("test")
    assert loop.is_alive()
    assert loop.is_alive()
    loop.start()
    loop.stop()
    assert loop.is_alive()
    assert loop.is_alive()


def test_a_call_that_asks_for_itself_again_leaves_the_others_their_turn(pipe):
    """As a client does that has sent hundreds of requests in one packet."""
    near, far = pipe
    told, fired, over = threading.Event(), threading.Event(), threading.Event()

    with running() as loop:

        def again():
            if not over.is_set():
                loop.call_soon(again)

        in_loop(loop, lambda: loop.register(near.fileno(), READ, lambda _events: (near.recv(100), told.set())))
        loop.call_soon(again)
        far.send(b"hello")
        loop.call_soon(lambda: loop.call_later(0.0, fired.set))
        try:
            assert told.wait(PATIENCE_S)
            assert fired.wait(PATIENCE_S)
        finally:
            over.set()

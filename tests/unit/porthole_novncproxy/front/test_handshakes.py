# SPDX-License-Identifier: Apache-2.0
import socket
import threading
import time
from contextlib import suppress

import pytest

from porthole_common.context import RequestContext
from porthole_common.deadline import DeadlinePassed
from porthole_common.thread_pool import STALL_S, get_current_job
from porthole_novncproxy.front.handshakes import Handshakes
from porthole_novncproxy.front.listener import Connection, Overtaken
from support.fake_loop import FakeLoop

LONG_S = 30


class Door:
    """Handshakes on a fake loop. ``late`` are those that the loop answered."""

    def __init__(self, threads=4, backlog=10, patience_s=LONG_S):
        self.loop = FakeLoop()
        self.late = []
        self.handshakes = Handshakes(self.loop, threads, backlog, patience_s, self.late.append)
        self.sockets = []

    def begin(self, work=id):
        """Begin ``work(connection)``; return the connection, None when it was turned away, and when it is over."""
        sock, other = socket.socketpair()
        self.sockets += [sock, other]
        connection, over = Connection(sock, ("192.0.2.7", 1), "novnc", sock.fileno()), threading.Event()

        def do():
            try:
                work(connection)
            finally:
                over.set()

        return (connection if self.handshakes.begin(connection, RequestContext(), do) else None), over

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
    doors = []

    def make_door(**options):
        doors.append(Door(**options))
        return doors[-1]

    yield make_door
    for door in doors:
        door.handshakes.stop(LONG_S)
        for sock in door.sockets:
            sock.close()


def call(release, timeout_s):
    """Work that is stuck in a call which should take ``timeout_s``, and then answers."""
    outcomes = []

    def work(connection):
        with suppress(DeadlinePassed):
            get_current_job().call(lambda: release.wait(LONG_S), timeout_s, ("topic", "method"))
        for _ in range(2):
            try:
                connection.claim()
            except Overtaken:
                outcomes.append("overtaken")
            else:
                outcomes.append("answered")

    return work, outcomes


def test_who_is_stuck_in_a_call_is_answered_by_the_loop_and_finds_that_out(make, release):
    door = make()
    work, outcomes = call(release, 0.0)
    connection, over = door.begin(work)
    wait_for(lambda: door.look() or door.late)
    (late,) = door.late
    assert (late.connection, late.job.subject) == (connection, ("topic", "method"))
    door.look()
    assert len(door.late) == 1
    release.set()
    assert over.wait(LONG_S)
    assert outcomes == ["overtaken"] * 2


def test_who_is_in_time_answers_alone(make, release):
    door = make()
    work, outcomes = call(release, LONG_S)
    _connection, over = door.begin(work)
    door.look()
    release.set()
    assert over.wait(LONG_S)
    door.look()
    assert (outcomes, door.late) == (["answered"] * 2, [])


def test_who_has_begun_to_answer_is_not_interrupted(make, release):
    door = make()

    def work(connection):
        connection.claim()
        get_current_job().call(lambda: release.wait(LONG_S), 0.0, None)

    door.begin(work)
    for _ in range(3):
        time.sleep(0.01)
        door.look()
    assert door.late == []


def test_a_claim_is_of_one_request(make):
    door = make()
    outcomes = []

    def work(connection):
        connection.claim()
        # Its answer may fail, and then it is hung up on.
        connection.claim()
        door.look()
        outcomes.append("answered")

    _connection, over = door.begin(work)
    assert over.wait(LONG_S)
    assert outcomes == ["answered"]


def test_who_waits_too_long_for_a_thread_is_answered_by_the_loop_and_never_begins(make, release):
    door = make(threads=1, patience_s=0.0)
    door.begin(lambda _connection: release.wait(LONG_S))
    begun = []
    connection, _over = door.begin(begun.append)
    time.sleep(0.01)
    door.look()
    (late,) = door.late
    assert (late.connection, late.job.subject) == (connection, None)
    release.set()
    door.handshakes.stop(LONG_S)
    assert not begun


def test_more_than_threads_and_backlog_are_turned_away(make, release):
    door = make(threads=1, backlog=2)
    work = [door.begin(lambda _connection: release.wait(LONG_S))[0] for _ in range(4)]
    assert [connection is not None for connection in work] == [True, True, True, False]


def test_who_was_given_up_is_in_nobodys_way(make, release):
    """Its thread is stuck; its place is free."""
    door = make(threads=2, backlog=0)
    for _ in range(2):
        work, _outcomes = call(release, 0.0)
        door.begin(work)
    wait_for(lambda: door.look() or len(door.late) == 2)
    assert door.begin()[0] is not None


def test_the_loop_lets_others_begin_beside_those_that_are_stalled(make, release):
    door = make(threads=20)
    for _ in range(10):
        door.begin(lambda _connection: release.wait(LONG_S))
    _connection, over = door.begin()
    wait_for(lambda: door.look() or over.is_set())


def test_the_loop_looks_only_as_long_as_something_is_under_way(make):
    door = make()
    _connection, over = door.begin()
    assert over.wait(LONG_S)
    wait_for(lambda: door.look() or not door.loop.pending_timers)
    door.begin()
    assert door.loop.pending_timers == 1


def test_a_stop_waits_for_what_is_under_way(make):
    door = make()
    over = door.begin(lambda _connection: time.sleep(0.2))[1]
    door.handshakes.stop(LONG_S)
    assert over.is_set()


def test_a_stop_does_not_wait_for_ever(make, release):
    """Who is left is answered."""
    door = make()
    connection, over = door.begin(lambda _connection: release.wait(LONG_S))
    door.handshakes.stop(0.01)
    assert not over.is_set()
    door.loop.run_soon()
    assert [handshake.connection for handshake in door.late] == [connection]


def wait_for(predicate):
    deadline = time.monotonic() + LONG_S
    while not predicate():
        assert time.monotonic() < deadline
        time.sleep(0.01)

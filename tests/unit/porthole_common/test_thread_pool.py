# SPDX-License-Identifier: Apache-2.0
import threading
import time
from collections.abc import Iterator

import pytest

from porthole_common import errors
from porthole_common.deadline import Deadline, DeadlinePassed
from porthole_common.thread_pool import STALL_S, Job, ThreadPool
from support.processes import wait_until

LONG_S = 30


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What stuck work waits for; set at the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    made = ThreadPool("test", 2)
    yield made
    made.close()


def test_result_of_the_work(pool: ThreadPool) -> None:
    assert pool.run(lambda: 42, Deadline(LONG_S)) == 42


@pytest.mark.parametrize("error", [KeyError("x"), TimeoutError("of the work itself")])
def test_error_of_the_work(pool: ThreadPool, error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        pool.run(fail, Deadline(LONG_S))
    assert caught.value is error


def test_caller_leaves_at_the_deadline(pool: ThreadPool, release: threading.Event) -> None:
    with pytest.raises(DeadlinePassed):
        pool.run(release.wait, Deadline(0.01))


def test_work_goes_on_in_another_thread_when_one_is_stuck(pool: ThreadPool, release: threading.Event) -> None:
    with pytest.raises(DeadlinePassed):
        pool.run(release.wait, Deadline(0.01))
    assert pool.run(lambda: 42, Deadline(LONG_S)) == 42


def test_threads_are_reused(pool: ThreadPool) -> None:
    names = {pool.run(lambda: threading.current_thread().name, Deadline(LONG_S)) for _ in range(50)}
    assert len(names) <= 2


def test_no_more_threads_than_the_limit_however_many_are_stuck(pool: ThreadPool, release: threading.Event) -> None:
    before = set(threading.enumerate())
    for _ in range(10):
        with pytest.raises(DeadlinePassed):
            pool.run(release.wait, Deadline(0.01))
    assert len(set(threading.enumerate()) - before) == 2


def test_work_that_did_not_begin_in_time_never_does(pool: ThreadPool, release: threading.Event) -> None:
    done: list[str] = []
    for _ in range(2):
        with pytest.raises(DeadlinePassed):
            pool.run(release.wait, Deadline(0.01))
    with pytest.raises(DeadlinePassed):
        pool.run(lambda: done.append("late"), Deadline(0.01))
    release.set()
    pool.run(lambda: done.append("in time"), Deadline(LONG_S))
    assert done == ["in time"]


def test_a_stuck_thread_does_not_keep_the_process(pool: ThreadPool) -> None:
    assert pool.run(lambda: threading.current_thread().daemon, Deadline(LONG_S))


def test_close_ends_the_threads() -> None:
    pool = ThreadPool("test", 2)
    thread = pool.run(threading.current_thread, Deadline(LONG_S))
    pool.close()
    thread.join(LONG_S)
    assert not thread.is_alive()


def test_close_ends_a_thread_after_what_waits_for_it(release: threading.Event) -> None:
    pool = ThreadPool("test", 1)
    first, second = Job(release.wait), Job(threading.current_thread)
    pool.start(first)
    pool.start(second)
    pool.close()
    release.set()
    assert second.wait(LONG_S)
    second.get_result().join(LONG_S)
    assert not second.get_result().is_alive()


class Clock:
    """A monotonic clock that a test moves by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Crowd:
    """Work that notes how much of it goes on at once, and lasts until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self._lock = threading.Lock()
        self._now = self.most = 0

    def work(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.begun.release()
        self.go.wait(LONG_S)
        with self._lock:
            self._now -= 1


def test_no_more_than_the_eager_ones_at_once_while_nothing_is_stalled() -> None:
    pool, crowd = ThreadPool("test", 50, eager=3), Crowd()
    jobs = [Job(crowd.work) for _ in range(50)]
    for job in jobs:
        pool.start(job)
    for _ in range(3):
        assert crowd.begun.acquire(timeout=LONG_S)
    crowd.go.set()
    assert all(job.wait(LONG_S) for job in jobs)
    assert crowd.most == 3
    pool.close()


def test_work_is_not_held_up_by_such_as_waits_for_somebody() -> None:
    pool, crowd = ThreadPool("test", 50, eager=2), Crowd()
    for _ in range(2):
        pool.start(Job(crowd.work))
    begun = time.monotonic()
    assert pool.run(lambda: 42, Deadline(LONG_S)) == 42
    assert time.monotonic() - begun < LONG_S / 3
    # And whoever comes when they have long been stalled does not wait at all.
    job = Job(lambda: 43)
    pool.start(job)
    assert job.has_begun
    crowd.go.set()
    pool.close()


def test_a_caller_that_does_not_wait_has_to_relieve(clock: Clock) -> None:
    pool, crowd = ThreadPool("test", 50, eager=1, clock=clock), Crowd()
    pool.start(Job(crowd.work))
    job = Job(lambda: 42)
    pool.start(job)
    pool.relieve()
    assert not job.has_begun
    clock.now_s += STALL_S
    pool.relieve()
    assert job.wait(LONG_S)
    crowd.go.set()
    pool.close()


def test_work_in_order_of_its_arrival(release: threading.Event) -> None:
    pool = ThreadPool("test", 1)
    done: list[int] = []
    pool.start(Job(release.wait))
    jobs = [Job(lambda number=number: done.append(number)) for number in range(10)]  # type: ignore[misc]
    for job in jobs:
        pool.start(job)
    release.set()
    assert jobs[-1].wait(LONG_S)
    assert done == list(range(10))
    pool.close()


def test_what_is_withdrawn_before_it_begins_is_not_done(release: threading.Event) -> None:
    pool = ThreadPool("test", 1)
    done: list[str] = []
    first, second, third = Job(release.wait), Job(lambda: done.append("second")), Job(lambda: done.append("third"))
    for job in (first, second, third):
        pool.start(job)
    assert [pool.withdraw(first), pool.withdraw(second)] == [False, True]
    release.set()
    assert third.wait(LONG_S)
    assert done == ["third"]
    pool.close()


def test_many_that_have_stalled_have_soon_all_begun(clock: Clock) -> None:
    pool, crowd = ThreadPool("test", 50, eager=2, clock=clock), Crowd()
    jobs = [Job(crowd.work) for _ in range(20)]
    for job in jobs:
        pool.start(job)
    begun = []
    for _ in range(4):
        pool.relieve()
        begun.append(sum(job.has_begun for job in jobs))
        clock.now_s += STALL_S
    assert begun == [2, 4, 8, 16]
    pool.relieve()
    crowd.go.set()
    assert all(job.wait(LONG_S) for job in jobs)
    pool.close()


def test_work_that_is_late_is_given_up(pool: ThreadPool, release: threading.Event) -> None:
    deadline = Deadline(0.05)
    with pytest.raises(DeadlinePassed):
        pool.run(release.wait, deadline)
    assert deadline.given_up


def test_the_caller_leaves_at_the_deadline_of_the_step_under_way(pool: ThreadPool, release: threading.Event) -> None:
    deadline, late = Deadline(LONG_S), errors.RpcUnavailable("consoleauth", "check_token")

    def work() -> None:
        with deadline.step(0.05, late):
            release.wait(LONG_S)

    begun = time.monotonic()
    with pytest.raises(DeadlinePassed):
        pool.run(work, deadline)
    assert time.monotonic() - begun < LONG_S / 3
    assert deadline.waits_for is late
    assert deadline.given_up


def test_without_another_thread_work_waits_for_those_there_are(
    monkeypatch: pytest.MonkeyPatch, release: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    pool = ThreadPool("test", 10)
    pool.start(Job(release.wait))

    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(DeadlinePassed):
        pool.run(lambda: 42, Deadline(0.05))
    job = Job(lambda: 42)
    pool.start(job)
    release.set()
    assert job.wait(LONG_S)
    assert "Thread not started part=test threads=1" in caplog.text
    pool.close()


def test_threads_that_a_crowd_needed_end_when_it_has_gone() -> None:
    before = set(threading.enumerate())
    pool = ThreadPool("crowd", 20, idle_s=0.05)
    release = threading.Event()
    jobs = [Job(release.wait) for _ in range(20)]
    for job in jobs:
        pool.start(job)
    assert len(set(threading.enumerate()) - before) == 20
    release.set()
    assert all(job.wait(LONG_S) for job in jobs)
    wait_until(lambda: not set(threading.enumerate()) - before, LONG_S, "the end of the pool's threads")
    name = pool.run(lambda: threading.current_thread().name, Deadline(LONG_S))
    assert name == "crowd-1"
    pool.close()


def test_no_work_is_lost_to_a_thread_that_ends_at_that_moment() -> None:
    pool = ThreadPool("short", 3, idle_s=0.0001)
    for number in range(2000):
        if not number % 7:
            time.sleep(0.0001)
        assert pool.run(lambda number=number: number, Deadline(LONG_S)) == number  # type: ignore[misc]
    pool.close()

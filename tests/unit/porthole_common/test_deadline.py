# SPDX-License-Identifier: Apache-2.0
import threading
import time
from collections.abc import Iterator

import pytest

from porthole_common.deadline import DeadlinePassed, Workers, get_remaining_s

LONG_S = 30


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What stuck work waits for; set at the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers("test", 2)
    yield pool
    pool.close()


def test_result_of_the_work(workers: Workers) -> None:
    assert workers.run(lambda: 42, LONG_S) == 42


@pytest.mark.parametrize("error", [KeyError("x"), TimeoutError("of the work itself")])
def test_error_of_the_work(workers: Workers, error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        workers.run(fail, LONG_S)
    assert caught.value is error


def test_caller_leaves_at_the_deadline(workers: Workers, release: threading.Event) -> None:
    with pytest.raises(DeadlinePassed):
        workers.run(release.wait, 0.01)


def test_work_goes_on_in_another_thread_when_one_is_stuck(workers: Workers, release: threading.Event) -> None:
    with pytest.raises(DeadlinePassed):
        workers.run(release.wait, 0.01)
    assert workers.run(lambda: 42, LONG_S) == 42


def test_threads_are_reused(workers: Workers) -> None:
    names = {workers.run(lambda: threading.current_thread().name, LONG_S) for _ in range(50)}
    assert len(names) <= 2


def test_no_more_threads_than_the_limit_however_many_are_stuck(workers: Workers, release: threading.Event) -> None:
    before = set(threading.enumerate())
    for _ in range(10):
        with pytest.raises(DeadlinePassed):
            workers.run(release.wait, 0.01)
    assert len(set(threading.enumerate()) - before) == 2


def test_work_that_did_not_begin_in_time_never_does(workers: Workers, release: threading.Event) -> None:
    done: list[str] = []
    for _ in range(2):
        with pytest.raises(DeadlinePassed):
            workers.run(release.wait, 0.01)
    with pytest.raises(DeadlinePassed):
        workers.run(lambda: done.append("late"), 0.01)
    release.set()
    workers.run(lambda: done.append("in time"), LONG_S)
    assert done == ["in time"]


def test_a_stuck_thread_does_not_keep_the_process(workers: Workers) -> None:
    assert workers.run(lambda: threading.current_thread().daemon, LONG_S)


def test_close_ends_the_threads() -> None:
    pool = Workers("test", 2)
    thread = pool.run(threading.current_thread, LONG_S)
    pool.close()
    thread.join(LONG_S)
    assert not thread.is_alive()


def test_what_is_left_until_a_deadline() -> None:
    assert LONG_S - 10 < get_remaining_s(time.monotonic() + LONG_S) <= LONG_S


@pytest.mark.parametrize("ago_s", [0, 1])
def test_nothing_is_left_of_a_deadline_that_has_passed(ago_s: int) -> None:
    with pytest.raises(TimeoutError, match="the deadline has passed"):
        get_remaining_s(time.monotonic() - ago_s)

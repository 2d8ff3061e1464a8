# SPDX-License-Identifier: Apache-2.0
"""Deadlines of tests: what a busy machine may add to a promise, and a deadline for calls that have none of their own.

Why: a bound on time in a test is a deadline that the product promises plus :data:`MACHINE_SLACK_S`, or a multiple of a
quiet measurement in the same test. A bare number of seconds measures the machine instead.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

# What a machine with more runnable processes than processors may add to an answer. A test that tells two outcomes apart
# by their time keeps them further apart than this.
MACHINE_SLACK_S = 8.0
# Consoles end, and the directory knows, within a second of the event (doc/source/operating.rst, "Live migration").
REVOCATION_S = 1.0
# Under load a console may take so many times as long as alone. The limit is never below the floor.
_CROWD_FACTOR = 20
_CROWD_FLOOR_S = 2.0


def call_within(timeout_s: float, call: Callable[[], T], what: str) -> T:
    """Return what ``call()`` returns, or raise what it raises. It runs in a thread of its own.

    For calls into a library that wait without a deadline, as those of libvirt. A call that hangs is left behind in a
    daemon thread.

    :raises AssertionError: when the call has not returned after ``timeout_s``; it says ``what`` was called.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as exc:  # noqa: BLE001 (the caller's thread raises it)
            failures.append(exc)

    thread = threading.Thread(target=run, name=f"call-within-{timeout_s:g}-s", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if failures:
        raise failures[0]
    if not results:
        raise AssertionError(f"no return after {timeout_s} s: {what}")
    return results[0]


def join_within(timeout_s: float, *threads: threading.Thread) -> None:
    """Wait until every thread has ended.

    :raises AssertionError: when one still runs after ``timeout_s``; it names the threads that do.
    """
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    alive = [thread.name for thread in threads if thread.is_alive()]
    assert not alive, f"threads still run after {timeout_s} s: {', '.join(alive)}"


@contextmanager
def kept_within(promise_s: float, what: str, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Hold the block against a deadline that the product promises, with the machine's allowance on top.

    :raises AssertionError: when the block took longer; it says ``what`` was promised.
    """
    began = clock()
    yield
    took_s = clock() - began
    limit_s = promise_s + MACHINE_SLACK_S
    assert took_s < limit_s, f"{what}: took {took_s:.2f} s, promised {promise_s:g} s, limit {limit_s:g} s"


def crowd_limit_s(quiet_s: float) -> float:
    """Return the limit under load for a call that took ``quiet_s`` alone in the same test."""
    return max(_CROWD_FACTOR * quiet_s, _CROWD_FLOOR_S)


def time_call(call: Callable[[], object]) -> float:
    """Return how many seconds ``call()`` takes."""
    began = time.monotonic()
    call()
    return time.monotonic() - began

# SPDX-License-Identifier: Apache-2.0
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from porthole_common.signals import Signals
from support.processes import wait_until


@pytest.fixture
def signals() -> Iterator[Signals]:
    made = Signals()
    before = [(number, signal.getsignal(number)) for number in (signal.SIGUSR1, signal.SIGUSR2)]
    for number, _handler in before:
        signal.signal(number, lambda number, _frame: made.put(number))
    yield made
    for number, handler in before:
        signal.signal(number, handler)
    made.close()


def test_signals_come_in_their_order(signals: Signals) -> None:
    signal.raise_signal(signal.SIGUSR2)
    signal.raise_signal(signal.SIGUSR1)
    assert [signals.get(5), signals.get(None)] == [signal.SIGUSR2, signal.SIGUSR1]


def test_none_in_time(signals: Signals) -> None:
    assert signals.get(0.05) is None
    assert signals.get(0) is None


def test_the_main_thread_sleeps_on_for_no_signal_that_another_thread_was_given(signals: Signals) -> None:
    """The kernel chooses the thread, and Python's handlers run in the main one."""
    stat = Path(f"/proc/self/task/{threading.main_thread().native_id}/stat")

    def signal_itself() -> None:
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", 5, "the main thread to sleep")
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    thread = threading.Thread(target=signal_itself)
    began = time.monotonic()
    thread.start()
    assert signals.get(4) == signal.SIGUSR1
    assert time.monotonic() - began < 3
    thread.join(10)

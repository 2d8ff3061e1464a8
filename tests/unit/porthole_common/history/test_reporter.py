# SPDX-License-Identifier: Apache-2.0
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from porthole_common import errors
from porthole_common.history import reporter as module
from porthole_common.history.event import EventKind, HistoryEvent
from porthole_common.history.reporter import Reporter
from porthole_common.history.spool import Spool
from support.history import closed, new_id, opened
from support.processes import wait_until

TIMEOUT_S = 10


class Far:
    """Where events are delivered; down while :attr:`error` is set."""

    def __init__(self) -> None:
        self.events: list[HistoryEvent] = []
        self.error: Exception | None = None
        self.tries = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def deliver(self, events: Sequence[HistoryEvent]) -> None:
        self.tries += 1
        self.may_answer.wait(TIMEOUT_S)
        if self.error:
            raise self.error
        self.events += events


@pytest.fixture
def far() -> Far:
    return Far()


@pytest.fixture
def make(tmp_path: Path, far: Far, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Reporter]]:
    made: list[Reporter] = []
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "_LONGEST_PAUSE_S", 0.02)

    def make(size: int = 1_000_000) -> Reporter:
        made.append(Reporter(Spool(tmp_path / "spool", "proxy", size), far.deliver, gather_s=0.01))
        made[-1].start()
        return made[-1]

    yield make
    far.may_answer.set()
    for reporter in made:
        reporter.stop(0.1)


def arrived(far: Far, events: Sequence[HistoryEvent]) -> None:
    wait_until(lambda: len(far.events) >= len(events), TIMEOUT_S, "the events")
    assert far.events == list(events)


def test_events_arrive_in_their_order(make: Callable[..., Reporter], far: Far) -> None:
    events = [opened(new_id(), number) for number in range(350)]
    reporter = make()
    for event in events:
        reporter.report(event)
    arrived(far, events)
    wait_until(lambda: reporter.pending == 0, TIMEOUT_S, "an empty spool")


def test_an_outage_is_said_once_and_its_events_arrive_in_their_order(
    make: Callable[..., Reporter], far: Far, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    far.error = errors.RpcUnavailable("consoleauth", "record_events")
    events = [opened(new_id(), number) for number in range(150)]
    reporter = make()
    for event in events[:100]:
        reporter.report(event)
    wait_until(lambda: far.tries > 3, TIMEOUT_S, "tries")
    for event in events[100:]:
        reporter.report(event)
    far.error = None
    arrived(far, events)
    wait_until(lambda: "History delivered again" in caplog.text, TIMEOUT_S, "its line")
    assert caplog.text.count("History not delivered") == 1


def test_an_internal_error_ends_no_thread(make: Callable[..., Reporter], far: Far) -> None:
    far.error = RuntimeError("a fault")
    event = opened(new_id())
    make().report(event)
    wait_until(lambda: far.tries > 1, TIMEOUT_S, "tries")
    far.error = None
    arrived(far, [event])


def test_reporting_does_not_wait_for_a_far_side_that_hangs(make: Callable[..., Reporter], far: Far) -> None:
    far.may_answer.clear()
    reporter = make()
    begun = time.monotonic()
    for number in range(1000):
        reporter.report(opened(new_id(), number))
    assert time.monotonic() - begun < 5
    begun = time.monotonic()
    reporter.stop(0.2)
    assert time.monotonic() - begun < 3


def test_what_one_process_could_not_deliver_the_next_one_delivers(make: Callable[..., Reporter], far: Far) -> None:
    far.error = errors.HistoryUnavailable("away")
    events = [opened(new_id(), number) for number in range(3)]
    first = make()
    for event in events:
        first.report(event)
    wait_until(lambda: far.tries, TIMEOUT_S, "a try")
    first.stop(0.05)
    wait_until(lambda: not first._thread.is_alive(), TIMEOUT_S, "its end")
    far.error = None
    make()
    make().report(opened(new_id()))
    wait_until(lambda: len(far.events) == 4, TIMEOUT_S, "the events")
    assert [event for event in far.events if event in events] == events


def test_a_spool_that_fills_is_said_and_the_gap_is_in_the_history(
    make: Callable[..., Reporter], far: Far, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    far.error = errors.HistoryUnavailable("away")
    reporter = make(size=4000)
    sessions = [new_id() for _ in range(60)]
    for session in sessions:
        reporter.report(opened(session))
    wait_until(lambda: "History spool full" in caplog.text, TIMEOUT_S, "the line")
    reporter.report(closed(sessions[0]))
    wait_until(lambda: reporter.fill > 0.76, TIMEOUT_S, "the end of a session")
    far.error = None
    wait_until(lambda: reporter.pending == 0, TIMEOUT_S, "room")
    reporter.report(opened(new_id()))
    wait_until(lambda: any(e.kind is EventKind.EVENTS_LOST for e in far.events), TIMEOUT_S, "the gap")
    (gap,) = [event for event in far.events if event.kind is EventKind.EVENTS_LOST]
    kept = [event for event in far.events if event.session_id in sessions and event.kind is EventKind.SESSION_OPENED]
    assert gap.reason == f"{60 - len(kept)} events were not kept: the spool was full"
    assert [event.session_id for event in kept] == sessions[: len(kept)]
    assert far.events[-1].kind is EventKind.SESSION_OPENED
    assert [event.session_id for event in far.events if event.kind is EventKind.SESSION_CLOSED] == [sessions[0]]
    for line in ("History spool filling", "History spool full", "History spool has room again"):
        assert caplog.text.count(line) == 1, line

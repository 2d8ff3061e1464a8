# SPDX-License-Identifier: Apache-2.0
"""The thread that spools events and delivers them, in batches, in their order, as often as it takes.

Why a thread of its own: an event is reported in the event loop or in the thread of an RPC, and neither may wait for a
disk, a broker or a database. :meth:`Reporter.report` appends to a list. A process that is killed loses the events of
its last milliseconds, which are not in the spool yet.
"""

import threading
import time
from collections.abc import Callable, Sequence

from porthole_common import errors
from porthole_common.history.event import EventKind, HistoryEvent, build_event, dump_event, load_event
from porthole_common.history.spool import Spool
from porthole_common.log import get_logger

LOG = get_logger(__name__)
BATCH = 100
# Events that wait for the thread: a guard for the time in which a disk holds it. 1 KiB each.
MAX_INBOX = 20_000
# Events are gathered for so long before they are delivered: one RPC for many.
GATHER_S = 0.5
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_FILLING = 0.5

Deliver = Callable[[Sequence[HistoryEvent]], None]


class Reporter:
    """Takes events from any thread. ``deliver`` raises PortholeError when the events were not stored."""

    def __init__(self, spool: Spool, deliver: Deliver, name: str = "history", gather_s: float = GATHER_S) -> None:
        self._spool = spool
        self._deliver = deliver
        self._gather_s = gather_s
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._inbox: list[HistoryEvent] = []
        self._lost = 0
        self._stop_at: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._pause_s = 0.0
        self._undelivered_since: float | None = None
        self._said_filling = False
        # Lost events that the history does not tell of yet.
        self._unsaid = 0

    @property
    def pending(self) -> int:
        """How many events are not delivered yet."""
        return len(self._spool) + len(self._inbox)

    @property
    def fill(self) -> float:
        """How full the spool is: 0 to 1."""
        return self._spool.fill

    def report(self, event: HistoryEvent) -> None:
        """Have ``event`` delivered; returns at once, whatever is down."""
        with self._lock:
            if len(self._inbox) >= MAX_INBOX:
                self._lost += 1
                return
            self._inbox.append(event)
        if not self._wake.is_set():
            self._wake.set()

    def start(self) -> None:
        """Begin; not before the process has forked."""
        self._thread.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        """Deliver what can be delivered at once; the rest is for the next process. Takes ``timeout_s`` at most."""
        if not self._thread.is_alive():
            return
        self._stop_at = time.monotonic() + timeout_s
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        self._spool.open()
        due_at = time.monotonic()
        while True:
            waits = bool(len(self._spool))
            self._wake.wait(max(0.0, due_at - time.monotonic()) if waits else None)
            self._wake.clear()
            if not len(self._spool):
                due_at = max(due_at, time.monotonic() + self._gather_s)
            self._take_inbox()
            if self._stop_at is not None:
                self._write_gap()
                break
            if len(self._spool) and time.monotonic() >= due_at:
                due_at = time.monotonic() + self._deliver_batch()
        while len(self._spool) and time.monotonic() < self._stop_at and not self._deliver_batch():
            pass
        self._spool.close()

    def _take_inbox(self) -> None:
        with self._lock:
            events, self._inbox = self._inbox, []
            lost, self._lost = self._lost, 0
        if self._spool.fill < _FILLING and self._said_filling:
            self._said_filling = False
            LOG.warning("History spool has room again", pending=len(self._spool), lost=self._unsaid)
            # In front of the events that come behind the gap.
            self._write_gap()
        lost += self._spool.append((dump_event(event), event.kind is EventKind.SESSION_CLOSED) for event in events)
        if not self._said_filling and self._spool.fill >= _FILLING:
            self._said_filling = True
            LOG.warning("History spool filling", pending=len(self._spool), size_bytes=self._spool.size_bytes)
        if lost and not self._unsaid:
            LOG.error("History spool full; newest events lost", lost=lost)
        self._unsaid += lost

    def _write_gap(self) -> None:
        """Put into the history how many events are missing here."""
        if self._unsaid:
            reason = f"{self._unsaid} events were not kept: the spool was full"
            self._spool.append([(dump_event(build_event(EventKind.EVENTS_LOST, reason=reason)), True)])
            self._unsaid = 0

    def _deliver_batch(self) -> float:
        """Deliver the first events; return how many seconds to pause, 0 after a success."""
        lines = self._spool.first(BATCH)
        events = [event for event in map(_load, lines) if event is not None]
        try:
            if events:
                self._deliver(events)
        except errors.PortholeError as exc:
            return self._count_failure(exc)
        except Exception:
            # The thread must live on.
            LOG.exception("History not delivered, by an internal error")
            return _LONGEST_PAUSE_S
        self._spool.drop(len(lines))
        if self._undelivered_since is not None and not len(self._spool):
            LOG.info("History delivered again", seconds=time.monotonic() - self._undelivered_since)
            self._undelivered_since = None
        self._pause_s = 0.0
        return 0.0

    def _count_failure(self, exc: errors.PortholeError) -> float:
        if self._undelivered_since is None:
            self._undelivered_since = time.monotonic()
            LOG.warning("History not delivered; it is spooled", pending=len(self._spool), reason=exc)
        self._pause_s = min(max(self._pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        return self._pause_s


def _load(line: bytes) -> HistoryEvent | None:
    try:
        return load_event(line)
    except (ValueError, RecursionError):
        LOG.error("Foreign line found in the history spool")
        return None

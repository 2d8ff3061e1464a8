# SPDX-License-Identifier: Apache-2.0
"""The pulse of the proxy's workers, in memory that they share with their master, and who looks at it.

Why: systemd knows one process, the master, which relays nothing. It may call the proxy ready once every worker is, and
alive while every worker's event loop turns. A worker that is stuck is ended, and replaced by cotyledon, so that it
takes its own consoles along and no others; when that does not help, systemd restarts the whole.
Called by :mod:`porthole_novncproxy.process.supervisor`.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable

from porthole_common.log import get_logger
from porthole_common.systemd import Notifier

LOG = get_logger(__name__)
# How often the master looks, and a worker shows itself: the watchdog's time is longer by far.
LOOK_INTERVAL_S = 0.25
# A stuck worker first gets the signal that has it say where it is stuck, then the one that nothing withstands.
_LAST_WORD_S = 1.0
# How many times the watchdog's time a worker may be silent, its replacement included, before the master is too.
_PATIENCE = 2


class Pulse:
    """What each worker last showed of itself; written by the workers, read by the master."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pids = multiprocessing.RawArray("i", workers)
        self._beats = multiprocessing.RawArray("d", workers)
        # The number of the last reload that the worker has made, the first start being 1; 0 until it is ready.
        self._generations = multiprocessing.RawArray("i", workers)
        self._wanted = multiprocessing.RawValue("i", 1)

    def enter(self, worker: int) -> None:
        """Show that the calling process is ``worker`` from now on, and not ready yet."""
        self._generations[worker] = 0
        self._pids[worker] = os.getpid()
        self.beat(worker)

    def beat(self, worker: int) -> None:
        """Show that ``worker`` is alive."""
        self._beats[worker] = time.monotonic()

    def current(self, worker: int) -> None:
        """Show that ``worker`` serves, by the configuration as it is now."""
        self._generations[worker] = self._wanted.value

    def want_reload(self) -> None:
        """Expect of every worker that it rereads the configuration."""
        self._wanted.value += 1

    def all_current(self) -> bool:
        """Whether every worker serves, by the configuration as it is now."""
        return all(generation == self._wanted.value for generation in self._generations)

    def pid(self, worker: int) -> int:
        """Return the process id of ``worker``; 0 when there has not been one."""
        return int(self._pids[worker])

    def silence_s(self, worker: int) -> float:
        """Return how long ago ``worker`` was last alive, in seconds; 0 when there has not been one."""
        return time.monotonic() - self._beats[worker] if self._beats[worker] else 0.0


def beat_while_alive(pulse: Pulse, worker: int, is_alive: Callable[[], bool]) -> None:
    """In a worker, from now on: show what ``is_alive`` says."""

    def beat() -> None:
        while True:
            if is_alive():
                pulse.beat(worker)
            time.sleep(LOOK_INTERVAL_S)

    threading.Thread(target=beat, name="pulse", daemon=True).start()


class Watch:
    """In the master: tells systemd what the pulse says, from a thread of its own, and ends workers that are stuck."""

    def __init__(
        self,
        program: str,
        pulse: Pulse,
        notifier: Notifier,
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        self._program = program
        self._pulse = pulse
        self._notifier = notifier
        self._kill = kill
        self._told_ready = False
        self._pinged_at_s = float("-inf")
        # When a stuck worker was told to say its last word, by process id.
        self._ended_at_s: dict[int, float] = {}
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def reload(self) -> None:
        """Say that the configuration is being reread, until every worker has done so."""
        self._pulse.want_reload()
        if self._told_ready:
            self._notifier.reloading()
            self._told_ready = False

    def stop(self, timeout_s: float) -> None:
        """Say that the proxy ends, and look no more: from here on a worker may take its time."""
        self._stopping.set()
        self._notifier.stopping(timeout_s)

    def look(self) -> None:
        """Look once."""
        if not self._told_ready and self._pulse.all_current():
            LOG.info("Daemon is ready", program=self._program)
            self._notifier.ready()
            self._told_ready = True
        watchdog_s, interval_s = self._notifier.watchdog_s, self._notifier.ping_interval_s
        if watchdog_s is None or interval_s is None:
            return
        silences = [self._pulse.silence_s(worker) for worker in range(self._pulse.workers)]
        for worker, silence_s in enumerate(silences):
            if silence_s > watchdog_s:
                self._end(worker, silence_s)
        now_s = time.monotonic()
        if max(silences) <= _PATIENCE * watchdog_s and now_s - self._pinged_at_s >= interval_s:
            self._notifier.ping()
            self._pinged_at_s = now_s

    def _end(self, worker: int, silence_s: float) -> None:
        pid, now_s = self._pulse.pid(worker), time.monotonic()
        told_at_s = self._ended_at_s.setdefault(pid, now_s)
        if told_at_s == now_s:
            LOG.error("Blocked worker ended", worker=worker, seconds=silence_s)
        elif now_s - told_at_s < _LAST_WORD_S:
            return
        try:
            self._kill(pid, signal.SIGABRT if told_at_s == now_s else signal.SIGKILL)
        except ProcessLookupError:
            LOG.debug("Worker gone", worker=worker)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_INTERVAL_S):
            self.look()

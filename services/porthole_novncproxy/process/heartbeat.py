# SPDX-License-Identifier: Apache-2.0
"""The heartbeats of the proxy's workers, in memory that they share with their supervisor, and the watch over them.

Why: systemd knows one process, the supervisor, which relays nothing. The supervisor may call the proxy ready once every
worker is, and alive while every worker's event loop turns. A worker that is blocked is ended, and cotyledon starts
another, so that only its own consoles end. When that does not help, systemd restarts the whole.
Called by :mod:`porthole_novncproxy.process.supervisor`.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable

from porthole_common.log import get_logger
from porthole_common.systemd import SystemdNotifier

LOG = get_logger(__name__)
# How often the supervisor looks, and a worker's heart beats: the watchdog's time is longer by far.
LOOK_INTERVAL_S = 0.25
# A blocked worker first gets SIGABRT, on which it writes its stack to stderr, and so much later SIGKILL.
_DUMP_S = 1.0
# When a worker and its successors have been silent for this many watchdog times, the supervisor counts as hung too.
_PATIENCE = 2


class Heartbeat:
    """When the heart of each worker last beat; written by the workers, read by the supervisor."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pids = multiprocessing.RawArray("i", workers)
        self._beats = multiprocessing.RawArray("d", workers)
        # The number of the last reload that the worker has made, the first start being 1; 0 until the worker is ready.
        self._generations = multiprocessing.RawArray("i", workers)
        self._wanted = multiprocessing.RawValue("i", 1)

    def enter(self, worker: int) -> None:
        """Make the calling process ``worker`` from now on, and not ready yet."""
        self._generations[worker] = 0
        self._pids[worker] = os.getpid()
        self.beat(worker)

    def beat(self, worker: int) -> None:
        """Show that ``worker`` is alive."""
        self._beats[worker] = time.monotonic()

    def set_current(self, worker: int) -> None:
        """Show that ``worker`` serves, by the configuration as it is now."""
        self._generations[worker] = self._wanted.value

    def want_reload(self) -> None:
        """Expect every worker to reread the configuration."""
        self._wanted.value += 1

    def all_current(self) -> bool:
        """Whether every worker serves, by the configuration as it is now."""
        return all(generation == self._wanted.value for generation in self._generations)

    def get_pid(self, worker: int) -> int:
        """Return the process id of ``worker``; 0 before its first start."""
        return int(self._pids[worker])

    def get_silence_s(self, worker: int) -> float:
        """Return how many seconds ago the heart of ``worker`` last beat; 0 before its first start."""
        return time.monotonic() - self._beats[worker] if self._beats[worker] else 0.0


def beat_while_alive(heartbeat: Heartbeat, worker: int, is_alive: Callable[[], bool]) -> None:
    """In a worker: beat from now on, in a thread, whenever ``is_alive()``."""

    def beat() -> None:
        while True:
            if is_alive():
                heartbeat.beat(worker)
            time.sleep(LOOK_INTERVAL_S)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


class Watch:
    """In the supervisor: tells systemd what the heartbeats say, from a thread, and ends workers that are blocked."""

    def __init__(
        self,
        program: str,
        heartbeat: Heartbeat,
        notifier: SystemdNotifier,
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        self._program = program
        self._heartbeat = heartbeat
        self._notifier = notifier
        self._kill = kill
        self._told_ready = False
        self._pinged_at_s = float("-inf")
        # When a blocked worker got SIGABRT, by process id.
        self._aborted_at_s: dict[int, float] = {}
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def reload(self) -> None:
        """Tell systemd that the configuration is being reread, until every worker has reread it."""
        self._heartbeat.want_reload()
        if self._told_ready:
            self._notifier.reloading()
            self._told_ready = False

    def stop(self, timeout_s: float) -> None:
        """Tell systemd that the proxy ends within ``timeout_s``, and stop watching: a worker may take its time now."""
        self._stopping.set()
        self._notifier.stopping(timeout_s)

    def look(self) -> None:
        """Look once."""
        if not self._told_ready and self._heartbeat.all_current():
            LOG.info("Daemon ready", program=self._program)
            self._notifier.ready()
            self._told_ready = True
        watchdog_s, interval_s = self._notifier.watchdog_s, self._notifier.ping_interval_s
        if watchdog_s is None or interval_s is None:
            return
        silences = [self._heartbeat.get_silence_s(worker) for worker in range(self._heartbeat.workers)]
        for worker, silence_s in enumerate(silences):
            if silence_s > watchdog_s:
                self._end(worker, silence_s)
        now_s = time.monotonic()
        if max(silences) <= _PATIENCE * watchdog_s and now_s - self._pinged_at_s >= interval_s:
            self._notifier.ping()
            self._pinged_at_s = now_s

    def _end(self, worker: int, silence_s: float) -> None:
        pid, now_s = self._heartbeat.get_pid(worker), time.monotonic()
        aborted_at_s = self._aborted_at_s.setdefault(pid, now_s)
        if aborted_at_s == now_s:
            LOG.error("Blocked worker ended", worker=worker, seconds=silence_s)
        elif now_s - aborted_at_s < _DUMP_S:
            return
        try:
            self._kill(pid, signal.SIGABRT if aborted_at_s == now_s else signal.SIGKILL)
        except ProcessLookupError:
            LOG.debug("Worker gone", worker=worker)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_INTERVAL_S):
            self.look()

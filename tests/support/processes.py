# SPDX-License-Identifier: Apache-2.0
"""A process that a test starts, waits for, signals and stops, with its output in a file.

Why: real servers and daemons are started everywhere in the functional tests; here is the one way to wait
for them (a condition and a deadline, never a sleep) and to be rid of them (by pid, always reaped).
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

POLL_S = 0.02
_TAIL_CHARS = 4000
# The kernel ends a process by SIGKILL at once, unless it waits for a disk.
_KILL_TIMEOUT_S = 20
_started: "list[Process]" = []


def started() -> "list[Process]":
    """Return the processes that this one has started, without those that :func:`forget_ended` has dropped."""
    return list(_started)


def forget_ended() -> None:
    """Drop the processes that have ended: the next test has nothing to do with them."""
    _started[:] = [process for process in _started if process.running]


def wait_until(
    predicate: Callable[[], object], timeout_s: float, what: str, log: Callable[[], str] = lambda: ""
) -> None:
    """Return once ``predicate()`` is true; it is asked every 20 ms.

    :raises AssertionError: when ``timeout_s`` have passed; it says ``what`` was awaited, and ends with the tail of
        ``log()``.
    """
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain for: {what}\n{log()[-_TAIL_CHARS:]}")
        time.sleep(POLL_S)


def _limiter(descriptors: int | None) -> list[str]:
    """Return the words before a command that has so many descriptors; the shell becomes the command."""
    return ["sh", "-c", 'ulimit -S -n "$0" && exec "$@"', str(descriptors)] if descriptors else []


class Process:
    """One child process; stdout and stderr are appended to ``log_path``. It may be started again after it ended."""

    def __init__(
        self,
        argv: Sequence[str],
        log_path: Path,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        new_session: bool = False,
        descriptors: int | None = None,
    ) -> None:
        """Prepare, without starting.

        ``env`` is added to this process's environment; what :attr:`env` holds at a start counts. ``name`` is for error
        texts. With ``new_session`` the signals go to the whole process group: for servers that are started through a
        shell script. ``descriptors``: its soft limit, instead of this process's.
        """
        self.argv = [*_limiter(descriptors), *argv]
        self.log_path = log_path
        self.name = name or Path(argv[0]).name
        self.env = {**os.environ, **(env or {})}
        self._new_session = new_session
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The pid of the process started last."""
        assert self._popen is not None, f"{self.name} was never started"
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs, or when it was never started."""
        return None if self._popen is None else self._popen.poll()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start it; use :meth:`wait_for` to know when it serves."""
        assert not self.running, f"{self.name} is already running"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                start_new_session=self._new_session,
            )
        if self not in _started:
            _started.append(self)

    def describe_state(self) -> str:
        """Return in words whether it runs, has ended, or is held by a signal."""
        if self._popen is None:
            return "never started"
        if not self.running:
            return f"ended with {self.returncode}"
        stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        return "stopped by a signal" if stat.rpartition(")")[2].split()[0] == "T" else "running"

    def children(self) -> set[int]:
        """Return the pids of the processes that it has started."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return {int(pid) for task in tasks for pid in (task / "children").read_text(encoding="ascii").split()}

    def signal(self, number: int) -> None:
        """Send a signal; a process that has ended is left alone."""
        if not self.running:
            return
        if self._new_session:
            os.killpg(self.pid, number)
        else:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit status.

        :raises AssertionError: when it still runs after ``timeout_s``.
        """
        assert self._popen is not None, f"{self.name} was never started"
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            state = self.describe_state()
            log = self.log()[-_TAIL_CHARS:]
            raise AssertionError(f"{self.name} has not ended after {timeout_s} s ({state})\n{log}") from None

    def stop(self, timeout_s: float = 20) -> None:
        """End it: SIGTERM, and SIGKILL when that does not do within ``timeout_s``."""
        if self._popen is None:
            return
        self.signal(signal.SIGTERM)
        # A stopped process takes no SIGTERM.
        self.signal(signal.SIGCONT)
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._new_session:
            self._kill_group()

    def kill(self) -> None:
        """End it by SIGKILL, and wait for that."""
        self.signal(signal.SIGKILL)
        if self._popen is not None:
            self.wait(_KILL_TIMEOUT_S)

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def log(self) -> str:
        """Everything it wrote, in all its runs."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_of_run(self) -> str:
        """What it wrote since the last start; nothing where its folder is gone."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def wait_for(self, predicate: Callable[[], object], timeout_s: float, what: str) -> None:
        """Return once ``predicate()`` is true.

        :raises AssertionError: when ``timeout_s`` have passed or the process has ended first.
        """
        wait_until(lambda: predicate() or not self.running, timeout_s, f"{self.name}: {what}", self.log)
        if not self.running and not predicate():
            raise AssertionError(
                f"{self.name} ended with {self.returncode} before: {what}\n{self.log()[-_TAIL_CHARS:]}"
            )

    def wait_for_line(self, text: str, timeout_s: float = 60) -> None:
        """Return once the output since the last start contains ``text``."""
        self.wait_for(lambda: text in self.log_of_run(), timeout_s, f"line with {text!r}")

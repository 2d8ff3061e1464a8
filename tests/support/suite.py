# SPDX-License-Identifier: Apache-2.0
"""Runs pytest for a stage of ``tests/run.sh``, runs each failed test once more by itself, and says what came of it.

    python -m support.suite PYTEST-ARGUMENT...

A test that fails and then passes is FLAKY: its first failure is shown, so that it can be mended. At most
``MAX_FLAKY`` of them leave the run green. With the file of ``PORTHOLE_FLAKY_FILE`` the stages of one run count
together. After ``MAX_FAILURES`` the run ends early, and nothing is run again.

Whatever the tests leave behind, killed ones included, is ended here: processes, network namespaces, files. So is what a
killed run of before has left.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from support import leftovers
from support.evidence import FOLDER, OUTCOMES

FLAKY_FILE = "PORTHOLE_FLAKY_FILE"
MAX_FLAKY = 2
MAX_FAILURES = 10
# A whole stage takes a quarter of that; no test may take more than ten minutes by itself.
STAGE_TIMEOUT_S = 40 * 60
TEST_TIMEOUT_S = 12 * 60
_INTERRUPTED = 130
# pytest's exit statuses for a run that came to its end: all passed, some failed.
_COMPLETE = {0, 1}
# No status of pytest's.
_ENDED = 99
_PREFIX = "ph"


@dataclass(frozen=True)
class Failure:
    """A test that failed: its pytest id and what pytest says of it."""

    nodeid: str
    output: str


@dataclass(frozen=True)
class Verdict:
    """What a stage came to. ``flaky_before`` counts the FLAKY ones of the stages before this one."""

    ran: int
    failed: Sequence[str]
    flaky: Sequence[Failure]
    flaky_before: int
    pytest_status: int

    @property
    def status(self) -> int:
        """The exit status: pytest's own where no test explains it, 1 for failures and for too many FLAKY ones."""
        if self.failed or self.flaky_before + len(self.flaky) > MAX_FLAKY:
            return 1
        return 0 if self.flaky and self.pytest_status == 1 else self.pytest_status

    def describe(self) -> str:
        """Return the closing lines, the FLAKY tests with their first failure."""
        lines = []
        for failure in self.flaky:
            lines += [f"FLAKY {failure.nodeid}: it failed, and passed when it was run again. The first failure:", ""]
            lines += [f"    {line}" for line in failure.output.splitlines()] + [""]
        lines += [f"FAILED {nodeid}" for nodeid in self.failed]
        lines += [f"FLAKY {failure.nodeid}" for failure in self.flaky]
        count = self.flaky_before + len(self.flaky)
        if count > MAX_FLAKY:
            lines.append(f"{count} tests of this run are FLAKY, and {MAX_FLAKY} may be: the run has failed.")
        passed = self.ran - len(self.failed)
        lines.append(f"{self.ran} ran, {len(self.failed)} failed, {len(self.flaky)} flaky")
        lines.append(f"{passed} passed, {len(self.failed)} failed")
        return "\n".join(lines)


class Suite:
    """One call of this program: the folder of its run, and the runs of pytest in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, arguments: Sequence[str], flaky_before: int) -> Verdict:
        """Run pytest, and its failures once more."""
        status, ran, failures = self._run_pytest([*arguments, f"--maxfail={MAX_FAILURES}"], STAGE_TIMEOUT_S)
        if len(failures) >= MAX_FAILURES or status not in _COMPLETE:
            return Verdict(ran, [failure.nodeid for failure in failures], [], flaky_before, status)
        failed, flaky = [], []
        for failure in failures:
            print(f"\nOnce more, by itself: {failure.nodeid}", flush=True)
            again, passed, _ = self._run_pytest(["-p", "no:cacheprovider", failure.nodeid], TEST_TIMEOUT_S)
            # A test that is skipped or not found has not passed.
            if (again, passed) == (0, 1):
                flaky.append(failure)
            else:
                failed.append(failure.nodeid)
        return Verdict(ran, failed, flaky, flaky_before, status)

    def _run_pytest(self, arguments: Sequence[str], timeout_s: float) -> tuple[int, int, list[Failure]]:
        """Return pytest's exit status, how many tests ran, and the failures; end what the run left."""
        make_folder(self._folder)
        outcomes = self._folder / "outcomes"
        outcomes.touch()
        environment = {**os.environ, FOLDER: str(self._folder), OUTCOMES: str(outcomes)}
        status = run_to_end([sys.executable, "-m", "pytest", *arguments], environment, timeout_s)
        ran, failures = read_outcomes(outcomes.read_text(encoding="utf-8"))
        if left := leftovers.end_run(self._folder):
            print("Left behind by the tests, and ended:", *left, sep="\n    ", flush=True)
        return status, ran, failures


def make_folder(path: Path) -> None:
    """Make the folder of a run, which other users may traverse: root starts a libvirtd as one of them."""
    path.mkdir(mode=0o711)
    # mkdir(2) leaves out what the umask does.
    path.chmod(0o711)


def run_to_end(argv: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> int:
    """Run a program; return its exit status, or :data:`_ENDED` when it was ended at ``timeout_s``."""
    process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL)
    # Ctrl-C reaches pytest from the terminal. These signals reach this process alone, and pytest ends by SIGINT.
    _handle_ends(lambda *_: process.send_signal(signal.SIGINT))
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        print(f"pytest has not ended after {timeout_s} s, and is ended.", flush=True)
        process.kill()
        process.wait(TEST_TIMEOUT_S)
        return _ENDED
    except KeyboardInterrupt:
        # pytest now stops what it has started.
        process.wait(TEST_TIMEOUT_S)
        raise
    finally:
        _handle_ends(signal.default_int_handler)


def _handle_ends(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def read_outcomes(text: str) -> tuple[int, list[Failure]]:
    """Return how many tests ran, and the failed ones in order, from what ``evidence.py`` has written."""
    ran: set[str] = set()
    outputs: dict[str, list[str]] = {}
    for line in text.splitlines():
        report = json.loads(line)
        ran.add(report["nodeid"])
        if report["failed"]:
            # A test may fail and its teardown too.
            outputs.setdefault(report["nodeid"], []).append(report["output"])
    return len(ran), [Failure(nodeid, "\n".join(output)) for nodeid, output in outputs.items()]


def end_dead_runs() -> None:
    """End what runs have left that were killed themselves: their folders have the ids of their processes."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = re.fullmatch(rf"{_PREFIX}(\d+)", path.name)
        if owner and path.lstat().st_uid == os.geteuid() and not Path("/proc", owner[1]).exists():
            for left in leftovers.end_run(path):
                print(f"Left behind by an earlier run, and ended: {left}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the stage; return the exit status."""
    # A shell in the background starts its children with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _handle_ends(signal.default_int_handler)
    end_dead_runs()
    flaky_file = os.environ.get(FLAKY_FILE)
    before = Path(flaky_file).read_text(encoding="utf-8").splitlines() if flaky_file else []
    # Short: a UNIX socket's path has 107 bytes, and libvirt adds 62 to that of a guest.
    folder = Path(tempfile.gettempdir(), f"{_PREFIX}{os.getpid()}")
    try:
        verdict = Suite(folder).run(arguments, len(before))
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        leftovers.end_run(folder)
    if flaky_file:
        with Path(flaky_file).open("a", encoding="utf-8") as file:
            file.writelines(f"{failure.nodeid}\n" for failure in verdict.flaky)
    print(f"\n{verdict.describe()}", flush=True)
    return verdict.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

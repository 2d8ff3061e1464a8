# SPDX-License-Identifier: Apache-2.0
"""Runs pytest for a stage of ``tests/run.sh``, runs each failed test once more by itself, and says what came of it.

    python -m support.suite PYTEST-ARGUMENT...

A test that fails and then passes is FLAKY: its first failure is shown, so that it can be mended. At most
``MAX_FLAKY`` of them leave the run green. With the file of ``PORTHOLE_FLAKY_FILE`` the stages of one run count
together. After ``MAX_FAILURES`` the run ends early, and nothing is run again. A run that did not come to its end, or
left tests out, is red whatever its tests say.

All leftovers of the tests are ended here: processes, network namespaces, files. So are the leftovers of an earlier run
that was killed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from support import leftovers
from support.evidence import FOLDER, OUTCOMES, STACKS

FLAKY_FILE = "PORTHOLE_FLAKY_FILE"
MAX_FLAKY = 2
MAX_FAILURES = 10
STAGE_TIMEOUT_S = 40 * 60
# The longest test has ten minutes, and a minute for its teardown.
TEST_TIMEOUT_S = 12 * 60
# A run that has finished no test for so long hangs where no other deadline holds.
SILENCE_S = 15 * 60
# What pytest may take to stop all servers after Ctrl-C.
INTERRUPT_TIMEOUT_S = 90
_POLL_S = 0.2
_INTERRUPTED = 130
_ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True)
class Failure:
    """A test that failed: its pytest id and what pytest says of it."""

    nodeid: str
    output: str


@dataclass
class Outcomes:
    """What ``evidence.py`` has written of a run: tests by outcome, and how the run ended.

    ``collected`` is how many tests there are. ``broken`` names processes of pytest-xdist that died outside a test.
    """

    collected: int = 0
    passed: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)
    failures: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    has_ended: bool = False

    @property
    def ran(self) -> set[str]:
        """The tests that came to an end, whatever it was."""
        return self.passed | self.skipped | set(self.failures)


@dataclass(frozen=True)
class Verdict:
    """What a stage came to. ``faults`` are sentences on the run itself; ``flaky_before`` counts the earlier stages."""

    ran: int
    failed: Sequence[str]
    flaky: Sequence[Failure]
    faults: Sequence[str]
    flaky_before: int = 0

    @property
    def status(self) -> int:
        """The exit status: 0 for a run that is green."""
        return int(bool(self.failed or self.faults or self.flaky_before + len(self.flaky) > MAX_FLAKY))

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
        lines += self.faults
        lines.append(f"{self.ran} ran, {len(self.failed)} failed, {len(self.flaky)} flaky")
        lines.append(f"{self.ran - len(self.failed)} passed, {len(self.failed)} failed")
        return "\n".join(lines)


class Suite:
    """One call of this program: the folder of its run, and the runs of pytest in it."""

    def __init__(self, flaky_before: int) -> None:
        self._flaky_before = flaky_before

    def run(self, arguments: Sequence[str]) -> Verdict:
        """Run pytest, and its failures once more."""
        status, outcomes = self._run_pytest([*arguments, f"--maxfail={MAX_FAILURES}"], STAGE_TIMEOUT_S)
        faults = find_faults(status, outcomes)
        failures = [Failure(nodeid, output) for nodeid, output in outcomes.failures.items()]
        if faults or len(failures) >= MAX_FAILURES:
            failed = [failure.nodeid for failure in failures]
            return Verdict(len(outcomes.ran), failed, [], faults, self._flaky_before)
        failed, flaky = [], []
        for failure in failures:
            print(f"\nOnce more, by itself: {failure.nodeid}", flush=True)
            status, again = self._run_pytest(["-p", "no:cacheprovider", failure.nodeid], TEST_TIMEOUT_S)
            # A test that is skipped or not found has not passed.
            if status == 0 and again.passed == {failure.nodeid}:
                flaky.append(failure)
            else:
                failed.append(failure.nodeid)
        return Verdict(len(outcomes.ran), failed, flaky, faults, self._flaky_before)

    def _run_pytest(self, arguments: Sequence[str], timeout_s: float) -> tuple[int | None, Outcomes]:
        """Return pytest's exit status, None when it was ended, and what it wrote; end what the run left."""
        folder = leftovers.make_folder()
        path = folder / "outcomes"
        path.touch()
        environment = {**os.environ, FOLDER: str(folder), OUTCOMES: str(path)}
        status = run_to_end([sys.executable, "-m", "pytest", *arguments], environment, timeout_s, path)
        outcomes = read_outcomes(path.read_text(encoding="utf-8"))
        if not outcomes.has_ended:
            for stacks in folder.glob(f"*/{STACKS}"):
                print(stacks.read_text(encoding="utf-8", errors="replace"), end="", flush=True)
        if left := leftovers.end_run(folder):
            print("Left behind by the tests, and ended:", *left, sep="\n    ", flush=True)
        return status, outcomes


def run_to_end(argv: Sequence[str], environment: Mapping[str, str], timeout_s: float, progress: Path) -> int | None:
    """Run a program; return its exit status, or None when it was ended.

    It is ended after ``timeout_s``, and when it has not written to the file ``progress`` for ``SILENCE_S``.
    """
    process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL)
    # Ctrl-C reaches pytest from the terminal. These signals reach this process alone, and pytest ends by SIGINT.
    _handle(_ENDS, lambda *_: process.send_signal(signal.SIGINT))
    deadline = time.monotonic() + timeout_s
    try:
        while process.poll() is None:
            if time.monotonic() > deadline or time.time() - progress.stat().st_mtime > SILENCE_S:
                process.kill()
                process.wait(INTERRUPT_TIMEOUT_S)
                return None
            time.sleep(_POLL_S)
        return process.returncode
    except KeyboardInterrupt:
        # pytest now stops what it has started, and a second Ctrl-C must not leave half of it.
        _handle((signal.SIGINT, *_ENDS), signal.SIG_IGN)
        try:
            process.wait(INTERRUPT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            _handle(_ENDS, signal.default_int_handler)


def _handle(
    numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], object] | signal.Handlers
) -> None:
    for number in numbers:
        signal.signal(number, handler)


def find_faults(status: int | None, outcomes: Outcomes) -> list[str]:
    """Return what is wrong with a run itself, in sentences: why its tests alone do not say what came of it."""
    faults = [f"The process {name} of pytest-xdist died outside a test." for name in outcomes.broken]
    if status is None:
        faults.append("pytest did not end in time, and was ended: see the test that ran last.")
    elif status not in {0, 1}:
        meaning = "by a signal" if status < 0 else "see pytest's own words above"
        faults.append(f"pytest ended with status {status} ({meaning}), not because a test failed.")
    elif not outcomes.has_ended:
        faults.append("pytest ended before its last step.")
    elif status == 1 and not outcomes.failures:
        faults.append("pytest failed, and no test did.")
    if len(outcomes.failures) < MAX_FAILURES and len(outcomes.ran) < outcomes.collected:
        faults.append(f"{outcomes.collected - len(outcomes.ran)} of {outcomes.collected} tests did not run.")
    return faults


def read_outcomes(text: str) -> Outcomes:
    """Return what came of a run, from what ``evidence.py`` has written: a JSON object a line."""
    outcomes = Outcomes()
    for line in text.splitlines():
        value = json.loads(line)
        if "collected" in value:
            outcomes.collected = value["collected"]
        elif "has_ended" in value:
            outcomes.broken, outcomes.has_ended = value["broken"], value["has_ended"]
        elif value["outcome"] == "failed":
            # A test may fail and its teardown too.
            nodeid = value["nodeid"]
            outcomes.failures[nodeid] = f"{outcomes.failures.get(nodeid, '')}{value['output']}\n"
        else:
            (outcomes.passed if value["outcome"] == "passed" else outcomes.skipped).add(value["nodeid"])
    return outcomes


def main(arguments: Sequence[str]) -> int:
    """Run the stage; return the exit status."""
    # A shell in the background starts its children with SIGINT ignored.
    _handle((signal.SIGINT, *_ENDS), signal.default_int_handler)
    for left in leftovers.end_dead_runs():
        print(f"Left behind by an earlier run, and ended: {left}", flush=True)
    flaky_file = os.environ.get(FLAKY_FILE)
    before = Path(flaky_file).read_text(encoding="utf-8").splitlines() if flaky_file else []
    try:
        verdict = Suite(len(before)).run(arguments)
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        leftovers.end_run(leftovers.make_folder())
    if flaky_file:
        with Path(flaky_file).open("a", encoding="utf-8") as file:
            file.writelines(f"{failure.nodeid}\n" for failure in verdict.flaky)
    print(f"\n{verdict.describe()}", flush=True)
    return verdict.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin: an end for every test, and what its reader needs when one fails.

- The report of a failed test has the logs of the processes that it used. Where the test ran out of time, the report
  also has the stacks of all threads. pytest-timeout ends such a test by raising in the main thread.
- A call of C code that never returns is not interrupted by that. ``timeout_grace`` seconds later faulthandler ends the
  whole process. pytest-xdist then reports the test as failed and starts another process. This plugin adds the stacks
  and the logs to the report, and ends what the dead process had started.
- Each process of a run keeps its temporary files in a folder of its own, by which its leftovers are found.
- What came of each test, and whether the run came to its end, goes to the file that :data:`OUTCOMES` names, for
  ``suite.py``.

Loaded by ``tests/conftest.py``.
"""

import faulthandler
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import pytest

from support import leftovers, processes
from support.scheduling import FileScheduling

FOLDER = "PORTHOLE_SUITE_FOLDER"
OUTCOMES = "PORTHOLE_SUITE_OUTCOMES"
STACKS = "stacks.txt"
# From a test's deadline to the end of its process: time for the teardown of a test that was interrupted.
GRACE_S = "60"
# For the work outside tests: to collect them, and to end a session.
_PHASE_TIMEOUT_S = 240
# Of all logs together, in one report.
_LOGS_CHARS = 60_000
_LOG_MIN_CHARS = 2_000
# A log that was not written to since the test began says nothing about it.
_FRESH_S = 900


@dataclass
class Run:
    """One pytest process."""

    folder: Path
    is_owner: bool
    # Where faulthandler writes when it ends the process.
    stacks: TextIO
    # The processes of pytest-xdist that died, with the error, and those of them that died of a test.
    ended: dict[str, str] = field(default_factory=dict)
    crashed: set[str] = field(default_factory=set)


_RUN = pytest.StashKey[Run]()
_STACKS = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting ``timeout_grace``."""
    parser.addini("timeout_grace", "Seconds from a test's deadline to the end of its process", default=GRACE_S)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give this process a folder, before any other plugin asks for temporary files."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    is_owner = FOLDER not in os.environ
    if is_owner:
        os.environ[FOLDER] = str(leftovers.make_folder())
    folder = Path(os.environ[FOLDER], worker or "main")
    folder.mkdir(exist_ok=True)
    # A libvirtd that root starts is another user, and has to get through.
    folder.chmod(0o711)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    config.option.basetemp = folder / "t"
    config.stash[_RUN] = Run(folder, is_owner, (folder / STACKS).open("a", encoding="utf-8"))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Note that the run has come to its end, and end what is left of it where no ``suite.py`` does."""
    run = config.stash.get(_RUN, None)
    if run is None:
        return
    faulthandler.cancel_dump_traceback_later()
    run.stacks.close()
    _write(broken=sorted(run.ended.keys() - run.crashed), has_ended=True)
    if run.is_owner:
        del os.environ[FOLDER]
        leftovers.end_run(run.folder.parent)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Bound the time in which the tests are collected."""
    _bound_phase(session.config)
    result = yield
    faulthandler.cancel_dump_traceback_later()
    return result


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note how many tests there are, where this process runs them itself."""
    _write(collected=len(session.items))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(ids: list[str]) -> None:
    """Note how many tests there are; each process of pytest-xdist finds the same."""
    _write(collected=len(ids))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Bound the time in which a process of pytest-xdist ends; the one that started them waits for all."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        _bound_phase(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Note a process of pytest-xdist that died."""
    if error:
        node.config.stash[_RUN].ended[node.gateway.id] = str(error)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    """Give a test that has killed its process to no other one."""
    return FileScheduling(config, log, {}) if config.getoption("dist") == "loadfile" else None


def _bound_phase(config: pytest.Config) -> None:
    faulthandler.dump_traceback_later(_PHASE_TIMEOUT_S, exit=True, file=config.stash[_RUN].stacks)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """Have the test interrupted at its deadline, and its process ended ``timeout_grace`` later."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        item.stash[_STACKS] = format_stacks()
        pytest.fail(f"The test did not end within {settings.timeout:g} s.")

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout)
    grace_s = float(item.config.getini("timeout_grace"))
    faulthandler.dump_traceback_later(settings.timeout + grace_s, exit=True, file=item.config.stash[_RUN].stacks)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    """Stop the first clock; the second one runs on through the teardown."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Stop the second clock with the test's end."""
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
        processes.forget_ended()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs of the test's processes to the report of a failure, and the stacks where time ran out."""
    report = yield
    if report.failed:
        if stacks := item.stash.get(_STACKS, ""):
            report.sections.append(("Stacks at the deadline", stacks))
            del item.stash[_STACKS]
        logs = {_describe(process): process.log_of_run() for process in processes.started()}
        report.sections += _shorten(logs)
    return report


def pytest_handlecrashitem(report: pytest.TestReport) -> None:
    """Add what a dead process of pytest-xdist has left to the report of its last test, and end its leftovers."""
    report.node.config.stash[_RUN].crashed.add(report.node.gateway.id)
    folder = Path(os.environ[FOLDER], report.node.gateway.id)
    report.sections += collect_remains(folder)
    leftovers.end_processes(folder)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what came of a test: of its call, or of a setup or teardown that did not pass."""
    if report.when != "call" and report.passed:
        return
    sections = "".join(f"\n--- {title} ---\n{text}" for title, text in report.sections)
    output = f"{report.longreprtext}\n{sections}" if report.failed else ""
    _write(nodeid=report.nodeid, outcome=report.outcome, output=output)


def _write(**values: object) -> None:
    """Add a line to the file of outcomes; the processes of pytest-xdist leave that to the one that started them."""
    path = os.environ.get(OUTCOMES)
    if path and "PYTEST_XDIST_WORKER" not in os.environ:
        with Path(path).open("a", encoding="utf-8") as outcomes:
            outcomes.write(json.dumps(values) + "\n")


def format_stacks() -> str:
    """Return the stacks of all threads of this process, innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = sys._current_frames().items()
    return "\n".join(f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in stacks)


def collect_remains(folder: Path) -> list[tuple[str, str]]:
    """Return titles and texts: the stacks that a dead process left in its ``folder``, and the logs of its servers."""
    stacks = (folder / STACKS).read_text(errors="replace")
    found = [("Stacks at the end of the process", stacks)] if stacks else []
    newest = time.time() - _FRESH_S
    logs = {}
    for path in sorted(folder.rglob("*.log")):
        if path.is_file() and path.stat().st_mtime > newest:
            logs[f"Log {path.relative_to(folder)}"] = path.read_text(errors="replace")
    return found + _shorten(logs)


def _describe(process: processes.Process) -> str:
    return f"Log of {process.name} (process {process.pid}, {process.describe_state()})"


def _shorten(logs: dict[str, str]) -> list[tuple[str, str]]:
    """Return the ends of the logs that say something, each with the room that their number leaves."""
    chars = max(_LOGS_CHARS // max(len(logs), 1), _LOG_MIN_CHARS)
    return [(title, text[-chars:]) for title, text in logs.items() if text.strip()]

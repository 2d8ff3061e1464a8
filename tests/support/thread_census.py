# SPDX-License-Identifier: Apache-2.0
"""The threads of a running daemon, by their Python names.

Why: before Python 3.14 the kernel does not know the name of a Python thread, and only the process itself can say it. A
daemon that is started through :func:`observe` writes its threads into a file at SIGUSR2. A thread that Python did not
start, such as one of a C library, has the name ``native:`` and the kernel's name.
"""

import contextlib
import json
import os
import signal
from pathlib import Path

from support.processes import Process, wait_until

_TIMEOUT_S = 20
# Runs a module as "python -m" does. A thread that starts or ends has no name for a moment: only one that keeps having
# none is native.
_OBSERVED = """
import contextlib, json, os, runpy, signal, sys, threading, time

def read_threads():
    kernel = {}
    for tid in os.listdir("/proc/self/task"):
        # A thread may end meanwhile.
        with contextlib.suppress(OSError), open(f"/proc/self/task/{tid}/comm") as file:
            kernel[int(tid)] = file.read().strip()
    python = {thread.native_id: thread.name for thread in threading.enumerate()}
    return {tid: python.get(tid) for tid in kernel}, kernel

def census(*_):
    for _ in range(25):
        names, kernel = read_threads()
        if None not in names.values():
            break
        time.sleep(0.02)
    path = os.path.join(DIRECTORY, str(os.getpid()))
    with open(path + ".part", "w") as file:
        json.dump(sorted(name or f"native:{kernel[tid]}" for tid, name in names.items()), file)
    os.replace(path + ".part", path)

DIRECTORY = sys.argv.pop(1)
signal.signal(signal.SIGUSR2, census)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def observe(process: Process, directory: Path) -> None:
    """Let ``process``, which runs ``python -m MODULE``, answer :func:`take_census` from its next start on."""
    interpreter, flag, *rest = process.argv
    assert flag == "-m", process.argv
    process.argv = [interpreter, "-c", _OBSERVED, str(directory), *rest]


def take_census(process: Process, directory: Path) -> dict[str, list[str]]:
    """Return ``{"main": names}`` of the process, and ``{"worker": names}`` of its children, taken together."""
    names = {"main": _ask(process.pid, directory)}
    workers = [name for child in _list_children(process.pid) for name in _ask(child, directory)]
    return names | ({"worker": workers} if workers else {})


def _ask(pid: int, directory: Path) -> list[str]:
    path = directory / str(pid)
    path.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    wait_until(path.exists, _TIMEOUT_S, f"the threads of process {pid}")
    names: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return names


def _list_children(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may end meanwhile; one that has started a process does not.
        with contextlib.suppress(FileNotFoundError):
            children += map(int, (task / "children").read_text(encoding="ascii").split())
    return sorted(children)

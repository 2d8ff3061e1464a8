# SPDX-License-Identifier: Apache-2.0
"""What a process and its children have used, from /proc."""

import os
from pathlib import Path


def tree(pid: int) -> list[int]:
    """Return ``pid`` and every process below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            found += tree(int(child))
    return found


def cpu_seconds(pids: list[int]) -> float:
    """Return the processor seconds of ``pids`` so far, to the hundredth; those of threads that have ended count too."""
    ticks = 0
    for pid in pids:
        # proc_pid_stat(5): utime and stime are the 14th and 15th field; the second one is the name in parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def pss_kib(pid: int) -> int:
    """Return the proportional set size: private memory, and a share of what is shared."""
    return _read_rollup(pid, "Pss")


def rss_kib(pid: int) -> int:
    """Return the resident set size: all memory that is in use, shared or not."""
    return _read_rollup(pid, "Rss")


def allocated_kib(pid: int) -> int:
    """Return what the process has allocated: its anonymous memory, swapped out or not.

    The kernel may drop pages of libraries at any time and read them again, and the proportional set size with them.
    """
    return _read_rollup(pid, "Anonymous") + _read_rollup(pid, "Swap")


def _read_rollup(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no {field}")

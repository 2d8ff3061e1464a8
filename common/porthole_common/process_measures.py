# SPDX-License-Identifier: Apache-2.0
"""The metrics of the process itself: CPU, memory, descriptors, version.

Why not prometheus_client's own: they need /proc/stat, which ``ProcSubset=pid`` of the unit files hides. Here only files
of the process itself are read. Imported by :mod:`porthole_common.metrics_server`.
"""

import functools
import os
import resource
import time
from pathlib import Path

from porthole_common import metrics
from porthole_common.diagnosis import find_version

_PROC = Path("/proc/self")
# Fields of proc_pid_stat(5), counted from the one behind the name.
_STARTTIME, _RSS = 19, 21
# By process id: the same at each scrape, although the clocks drift.
_started_at: dict[int, float] = {}


def _read_stat() -> list[str]:
    # The name of the program may have blanks and brackets.
    return (_PROC / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def read_start_time() -> float:
    """Return when this process started, in seconds since 1970."""
    pid = os.getpid()
    if pid not in _started_at:
        since_boot_s = int(_read_stat()[_STARTTIME]) / os.sysconf("SC_CLK_TCK")
        booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        _started_at.clear()
        _started_at[pid] = round(booted_at + since_boot_s, 2)
    return _started_at[pid]


_find_version = functools.cache(find_version)

metrics.BUILD_INFO.add_source(lambda: [((_find_version(),), 1)])
metrics.CPU_SECONDS.add_source(lambda: [((), time.process_time())])
metrics.RESIDENT_BYTES.add_source(lambda: [((), int(_read_stat()[_RSS]) * resource.getpagesize())])
# Without the descriptor that lists the others.
metrics.OPEN_FDS.add_source(lambda: [((), len(os.listdir(_PROC / "fd")) - 1)])
metrics.MAX_FDS.add_source(lambda: [((), resource.getrlimit(resource.RLIMIT_NOFILE)[0])])
metrics.START_TIME.add_source(lambda: [((), read_start_time())])

# SPDX-License-Identifier: Apache-2.0
"""A hundred thousand hostile inputs to the proxy's two ports and the API: no crash, no 500, and memory stays flat.

``tox -e bench -- fuzz``. A shorter run of the same seeds is among the functional tests.
"""

import sys
import time
from collections import Counter

from benchmarks.bed import make_bed
from benchmarks.cpu import pss_kib
from benchmarks.table import Row
from support.console import get_console, token_of
from support.fuzz import API, NOVNC, XVPVNC, Targets, batches, fuzz

INPUTS = 100_000
# Memory is compared from after the first of so many batches on: until then everything is used for the first time.
BATCHES = 10


def run() -> list[Row]:
    """Return how many inputs there were, what was wrong, and what the daemons' memory did."""
    with make_bed({"consoleauth": {"token_ttl": 86400}}) as bed:
        porthole = bed.porthole
        ports = {NOVNC: porthole.novnc_port, XVPVNC: porthole.xvp_port, API: porthole.api_port}
        tokens = {door: token_of(get_console(porthole, bed.instances[0], door)) for door in (NOVNC, XVPVNC)}
        targets = Targets(ports, bed.instances[0], tokens)
        daemons = {"novncproxy": porthole.novncproxy, "api": porthole.api}
        pids = {name: process.pid for name, process in daemons.items()}
        answers: Counter[str] = Counter()
        faults: list[str] = []
        sizes: list[dict[str, float]] = []
        begun = time.monotonic()
        for seeds in batches(INPUTS, BATCHES):
            outcome = fuzz(targets, seeds)
            answers += outcome.answers
            faults += outcome.faults
            sizes.append({name: pss_kib(pid) for name, pid in pids.items()})
        seconds = time.monotonic() - begun
        ended = sum(not process.running for process in daemons.values())
        tracebacks = porthole.logs().count("Traceback")
    sys.stdout.write(f"\nanswers: {dict(sorted(answers.items()))}\nfaults: {faults[:20]}\n")
    rows = [
        Row("hostile inputs", answers.total(), ""),
        Row("inputs in a second", answers.total() / seconds, ""),
        Row("daemons that ended", ended, "", bar="none"),
        Row("answers 500, or none in time", len(faults), "", bar="none"),
        Row("tracebacks in the logs", tracebacks, "", bar="none"),
    ]
    return rows + [
        Row(f"memory of {name}", sizes[-1][name], "KiB", f"after {INPUTS // BATCHES}", sizes[0][name], "flat")
        for name in pids
    ]

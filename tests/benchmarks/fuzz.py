# SPDX-License-Identifier: Apache-2.0
"""A hundred thousand hostile inputs to the proxy's two ports and the API: no crash, no 500, and memory stays flat.

``tox -e bench -- fuzz``. A shorter run of the same seeds is among the functional tests.
"""

import contextlib
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

from benchmarks.cpu import allocated_kib
from benchmarks.table import Row
from support.console import get_console, token_of, wait_for_instances
from support.daemons import Porthole
from support.fuzz import API, NOVNC, XVPVNC, Targets, batches, fuzz
from support.memcached import Memcached
from support.rabbitmq import RabbitMQ
from support.vnc_servers import EchoVnc

INPUTS = 100_000
# Memory is compared from after the first of so many batches on: until then everything is used for the first time.
BATCHES = 10


def run() -> list[Row]:
    """Return how many inputs there were, what was wrong, and what the daemons' memory did."""
    with _make_porthole() as (porthole, instance):
        ports = {NOVNC: porthole.novnc_port, XVPVNC: porthole.xvp_port, API: porthole.api_port}
        daemons = {"novncproxy": porthole.novncproxy, "api": porthole.api}
        pids = {name: process.pid for name, process in daemons.items()}
        answers: Counter[str] = Counter()
        faults: list[str] = []
        sizes: list[dict[str, float]] = []
        begun = time.monotonic()
        for seeds in batches(INPUTS, BATCHES):
            # The API gives out tokens all the time, and an instance's two hundredth costs the oldest its life.
            tokens = {door: token_of(get_console(porthole, instance, door)) for door in (NOVNC, XVPVNC)}
            outcome = fuzz(Targets(ports, instance, tokens), seeds)
            answers += outcome.answers
            faults += outcome.faults
            sizes.append({name: allocated_kib(pid) for name, pid in pids.items()})
        seconds = time.monotonic() - begun
        ended = sum(not process.running for process in daemons.values())
        tracebacks = porthole.logs().count("Traceback")
    sys.stdout.write(f"\nanswers: {dict(sorted(answers.items()))}\nfaults: {faults[:20]}\n")
    for name in pids:
        tenths = " ".join(f"{size[name]:.0f}" for size in sizes)
        sys.stdout.write(f"KiB of {name} after each tenth: {tenths}\n")
    rows = [
        Row("hostile inputs", answers.total(), ""),
        Row("inputs in a second", answers.total() / seconds, ""),
        Row("daemons that ended", ended, "", bar="none"),
        Row("answers 500, or none in time", len(faults), "", bar="none"),
        Row("tracebacks in the logs", tracebacks, "", bar="none"),
    ]
    return rows + [
        Row(f"memory of {name}", sizes[-1][name], "KiB", f"after {INPUTS * tenths // BATCHES}", size[name], "flat")
        for name in pids
        for tenths, size in enumerate(sizes, 1)
        if tenths in {1, BATCHES // 2}
    ]


@contextlib.contextmanager
def _make_porthole() -> Iterator[tuple[Porthole, str]]:
    """Give running daemons and the instance they have: its VNC server bears any bytes, and ends when its peer does."""
    instance = str(uuid.uuid4())
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        vnc = stack.enter_context(EchoVnc())
        path = directory / "instances.yaml"
        entry = {"uuid": instance, "name": "echo", "host": "127.0.0.1", "port": vnc.port}
        path.write_text(yaml.safe_dump({"instances": [entry]}), encoding="utf-8")
        rabbitmq = stack.enter_context(RabbitMQ(directory / "rabbitmq"))
        memcached = stack.enter_context(Memcached())
        options: dict[str, dict[str, object]] = {
            "DEFAULT": {"debug": False},
            "novncproxy": {"max_sessions_per_token": 50},
            "consoleauth": {"token_ttl": 86400},
        }
        porthole = Porthole(directory / "porthole", rabbitmq, memcached, instances_file=path, options=options)
        stack.enter_context(porthole)
        wait_for_instances(porthole, instance)
        yield porthole, instance

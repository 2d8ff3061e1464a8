# SPDX-License-Identifier: Apache-2.0
"""Hostile bytes at the proxy's two ports and the API: no crash, no 500, no traceback, and memory stays flat.

The first inputs of ``tox -e bench -- fuzz``, which sends a hundred thousand.
"""

import uuid as uuidlib
from collections.abc import Callable
from pathlib import Path

import yaml

from support.console import get_console, token_of, wait_for_instances
from support.daemons import Options, Porthole
from support.fuzz import API, NOVNC, XVPVNC, Targets, batches, fuzz
from support.vnc_servers import EchoVnc

INPUTS = 3000
GROWTH_BYTES = 12_000_000


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


def test_hostile_bytes(make_porthole: Callable[..., Porthole], tmp_path: Path, report: Callable[[str], None]) -> None:
    instance = str(uuidlib.uuid4())
    with EchoVnc() as vnc:
        path = tmp_path / "instances.yaml"
        entry = {"uuid": instance, "name": "echo", "host": "127.0.0.1", "port": vnc.port}
        path.write_text(yaml.safe_dump({"instances": [entry]}), encoding="utf-8")
        options: Options = {"DEFAULT": {"debug": False}, "novncproxy": {"max_sessions_per_token": 50}}
        porthole = make_porthole(instances_file=path, options=options)
        wait_for_instances(porthole, instance)
        ports = {NOVNC: porthole.novnc_port, XVPVNC: porthole.xvp_port, API: porthole.api_port}
        tokens = {door: token_of(get_console(porthole, instance, door)) for door in (NOVNC, XVPVNC)}
        targets = Targets(ports, instance, tokens)
        first, *others = batches(INPUTS, 4)
        outcome = fuzz(targets, first)
        before = {process.name: resident_bytes(process.pid) for process in (porthole.api, porthole.novncproxy)}
        for seeds in others:
            later = fuzz(targets, seeds)
            outcome.answers += later.answers
            outcome.faults += later.faults
        report(f"{outcome.answers.total()} hostile inputs: {dict(sorted(outcome.answers.items()))}")
        assert not outcome.faults
        for process in (porthole.api, porthole.novncproxy):
            assert process.running
            assert resident_bytes(process.pid) - before[process.name] < GROWTH_BYTES
        assert "Traceback" not in porthole.api.log() + porthole.novncproxy.log()
    # All three doors were behind their first line.
    assert {"novnc 101", "xvpvnc 200", "api 200"} <= set(outcome.answers)

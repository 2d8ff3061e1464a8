# SPDX-License-Identifier: Apache-2.0
"""The table of doc/source/threads.rst against the threads of running daemons: nothing is missing on either side."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
import uuid as uuidlib
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from support.console import get_console, open_console, read_greeting, token_of, wait_for_instances
from support.daemons import DAEMONS, Porthole
from support.libvirtd import Libvirtd
from support.ports import free_port
from support.processes import Process, wait_until
from support.thread_census import observe, take_census
from support.vnc_servers import EchoVnc

PAGE = Path(__file__).parents[2] / "doc" / "source" / "threads.rst"
TIMEOUT_S = 60
# The processes that open the console of the test, revoke its token, and answer the doctor.
USED = {"api", "compute", "consoleauth", "worker"}
# The names of the threads, by the table's name of the process.
Census = dict[str, set[str]]


@dataclass(frozen=True)
class Row:
    """One row: patterns of names, the processes that have such a thread, and when."""

    patterns: tuple[str, ...]
    processes: tuple[str, ...]
    present: str

    def covers(self, process: str, name: str) -> bool:
        # The compute with the libvirt driver is a compute too.
        is_here = process in self.processes or process.partition(" (")[0] in self.processes
        return is_here and any(_matches(name, pattern) for pattern in self.patterns)

    def is_found(self, process: str, census: Census) -> bool:
        return any(self.covers(process, name) for name in census[process])


def _matches(name: str, pattern: str) -> bool:
    # "Thread-*" is a thread whose function has no name; "Thread-* (poll)" is another row.
    return fnmatchcase(name, pattern) and ("(" in pattern or "(" not in name)


def read_table() -> list[Row]:
    """Return the rows of the page's table."""
    rows = [re.split(r"\n {5}- ", row) for row in re.split(r"\n {3}\* - ", PAGE.read_text(encoding="utf-8"))[2:]]
    return [
        Row(tuple(re.findall(r"``([^`]+)``", names)), tuple(re.split(r",\s+", " ".join(processes.split()))), present)
        for names, processes, present, *_ in rows
    ]


def list_missing(rows: list[Row], census: Census) -> list[str]:
    """Return the rows of threads that are always present and are not in ``census``, with the process."""
    return [
        f"{row.patterns} in {process}"
        for row in rows
        if row.present == "always"
        for process in row.processes
        if not row.is_found(process, census)
    ]


def list_strangers(rows: list[Row], census: Census) -> list[str]:
    """Return the threads of ``census`` that are in no row."""
    return [
        f"{name} in {process}"
        for process, names in census.items()
        for name in names
        if not any(row.covers(process, name) for row in rows)
    ]


def take(processes: dict[str, Process], directory: Path) -> Census:
    """Return the threads of this moment; the proxy with workers counts as a supervisor and its workers."""
    census: Census = {}
    for name, process in processes.items():
        found = {kind: set(names) for kind, names in take_census(process, directory).items()}
        if name == "supervisor":
            assert found.keys() == {"main", "worker"}, found
            census |= {"supervisor": found["main"], "worker": found["worker"]}
        else:
            census[name] = found["main"]
    return census


def make_processes(porthole: Porthole, libvirt_uri: str, instances_file: Path) -> dict[str, Process]:
    """Return a process of each kind in the table, not started."""
    libvirt = {
        "DEFAULT": {"host": f"{porthole.host}-libvirt"},
        "compute": {"driver": "libvirt"},
        "libvirt": {"connection_uri": libvirt_uri},
    }
    single = {
        "novncproxy": {"workers": 1},
        "vnc": {"novncproxy_port": free_port(), "xvpvncproxy_port": free_port()},
    }
    ports = [f"--{name}-port={free_port()}" for name in ("api", "novnc", "xvp")]
    argv = [sys.executable, "-m", "porthole_cli.main", "standalone", *ports, f"--instances-file={instances_file}"]
    env = {"PYTHONUNBUFFERED": "1", "NO_PROXY": "*", "no_proxy": "*", "PYTHONWARNINGS": ""}
    return {
        **{name: porthole.processes[name] for name in ("consoleauth", "compute", "api")},
        "supervisor": porthole.processes["novncproxy"],
        "compute (libvirt driver)": porthole.add("compute", "compute-libvirt", libvirt),
        "novncproxy": porthole.add("novncproxy", "novncproxy-single", single),
        "standalone": Process(argv, porthole.directory / "standalone.log", env, name="porthole standalone"),
    }


def use(porthole: Porthole, instance_uuid: str) -> None:
    """Open a console, and fetch its page."""
    wait_for_instances(porthole, instance_uuid)
    with open_console(porthole.novnc_port, token_of(get_console(porthole, instance_uuid))) as connection:
        read_greeting(connection)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{porthole.novnc_port}/console.html", timeout=TIMEOUT_S) as page:
        page.read()


def examine(argument: str, value: object, watch: Callable[[], None]) -> None:
    """Run the doctor, and call ``watch`` again and again until it has ended."""
    argv = [sys.executable, "-m", "porthole_cli.main", "doctor", argument, str(value)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONWARNINGS": ""}) as doctor:
        try:
            while doctor.poll() is None:
                watch()
        finally:
            doctor.kill()


def test_each_thread_is_in_a_row_and_each_row_is_found(
    make_porthole: Callable[..., Porthole], libvirtd: Libvirtd, tmp_path: Path
) -> None:
    rows = read_table()
    uuid, instances_file, directory = str(uuidlib.uuid4()), tmp_path / "instances.yaml", tmp_path / "census"
    directory.mkdir()
    with EchoVnc() as vnc:
        instance = {"uuid": uuid, "name": "echo", "host": "127.0.0.1", "port": vnc.port}
        instances_file.write_text(yaml.safe_dump({"instances": [instance]}), encoding="utf-8")
        # The metrics at the ports of an operator; a port that is in use costs no thread.
        options = {"novncproxy": {"workers": 2}, "metrics": {"bind_port": None}, "history": {"enabled": True}}
        porthole = make_porthole(instances_file=instances_file, daemons=(), options=options)
        processes = make_processes(porthole, libvirtd.uri, instances_file)
        for process in processes.values():
            observe(process, directory)
            process.start()
        try:
            for process in processes.values():
                process.wait_for_line("Daemon ready", TIMEOUT_S)
            seen = [take(processes, directory)]
            # All processes are named in the table, and all of the table are here.
            assert {process for row in rows for process in row.processes} == seen[0].keys()

            def has_all() -> bool:
                seen.append(take(processes, directory))
                return not list_missing(rows, seen[-1])

            wait_until(
                has_all, TIMEOUT_S, "every thread that is always there", lambda: str(list_missing(rows, seen[-1]))
            )
            use(porthole, uuid)
            seen.append(take(processes, directory))
            # The compute has the tokens of an entry that is gone revoked.
            instances_file.write_text(yaml.safe_dump({"instances": []}), encoding="utf-8")
            processes["compute"].signal(signal.SIGHUP)
            processes["compute"].wait_for_line("Revocation done", TIMEOUT_S)
            for argument, value in (
                ("--config-file", porthole.conf_path),
                ("--standalone", processes["standalone"].pid),
            ):
                examine(argument, value, lambda: seen.append(take(processes, directory)))
            for row in rows:
                if row.present == "in use":
                    used = USED.intersection(row.processes)
                    unused = {process for process in used if not any(row.is_found(process, census) for census in seen)}
                    assert unused == set(), row
            strangers = {stranger for census in seen for stranger in list_strangers(rows, census)}
            assert strangers == set()
        finally:
            processes["standalone"].kill()


def test_the_comparison_finds_what_is_missing_on_either_side() -> None:
    rows = [Row(("a-*", "b"), ("api",), "always"), Row(("c",), ("api",), "at times")]
    assert list_missing(rows, {"api": {"c"}}) == ["('a-*', 'b') in api"]
    assert list_missing(rows, {"api": {"b"}}) == []
    strangers = list_strangers(rows, {"api": {"a-1", "c", "native:x"}, "compute": {"b"}})
    assert strangers == ["native:x in api", "b in compute"]


def test_each_row_is_complete() -> None:
    rows = read_table()
    assert len(rows) > len(DAEMONS)
    for row in rows:
        assert row.patterns, row
        assert row.present in {"always", "in use", "at times"}, row

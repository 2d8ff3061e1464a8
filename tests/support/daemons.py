# SPDX-License-Identifier: Apache-2.0
"""Porthole's daemons as processes with one porthole.conf, on free loopback ports.

Why: the functional tests and the benchmarks run what an operator runs. A test says what differs from the
ordinary (``options``), which daemons it wants, and may add further ones (a second host, a second consoleauth).
"""

import os
import re
import secrets
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Self

from support.memcached import Memcached
from support.ports import free_port
from support.processes import Process
from support.rabbitmq import RabbitMQ

DAEMONS = ("consoleauth", "compute", "api", "novncproxy")
# A start takes two seconds; a machine that runs a QEMU guest beside it without KVM may need many more.
READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
Options = Mapping[str, Mapping[str, object]]
UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


@dataclass(frozen=True)
class Answer:
    """What the api answered; the names of ``headers`` are looked up in capitals or not."""

    status: int
    headers: Message
    body: bytes


class Porthole:
    """The four daemons of one node; :meth:`start` starts those in ``daemons``, the others wait for their turn."""

    def __init__(
        self,
        directory: Path,
        rabbitmq: RabbitMQ,
        memcached: Memcached | Sequence[Memcached],
        *,
        libvirt_uri: str | None = None,
        instances_file: Path | None = None,
        options: Options | None = None,
        daemons: Sequence[str] = DAEMONS,
        host: str | None = None,
        descriptors: int | None = None,
    ) -> None:
        """Write ``directory``/porthole.conf.

        With ``instances_file`` compute's driver is ``static``. ``options`` is ``{group: {name: value}}`` and wins over
        what is set here; a list value is written comma-separated, None leaves the option out. All daemons of one topic
        on one broker serve each other, so one Porthole at a time uses a broker. ``descriptors``: the soft limit of
        novncproxy, when it is another one than everybody's.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        # A name that no other test used: nothing that an earlier daemon left in its queue is for this one.
        self.host = host or f"host-{secrets.token_hex(3)}"
        self.conf_path = directory / "porthole.conf"
        self._wanted = list(daemons)
        self.api_port, self.novnc_port, self.xvp_port = free_port(), free_port(), free_port()
        self.api_url = f"http://127.0.0.1:{self.api_port}"
        stores = [memcached] if isinstance(memcached, Memcached) else list(memcached)
        own = self._build_options(rabbitmq, stores, libvirt_uri, instances_file)
        self.conf_path.write_text(format_conf(_merge(own, options or {})), encoding="utf-8")
        self.processes: dict[str, Process] = {}
        self.consoleauth = self.add("consoleauth")
        self.compute = self.add("compute")
        self.api = self.add("api")
        self.novncproxy = self.add("novncproxy", descriptors=descriptors)

    def _build_options(
        self, rabbitmq: RabbitMQ, stores: list[Memcached], libvirt_uri: str | None, instances_file: Path | None
    ) -> Options:
        return {
            "DEFAULT": {
                "debug": True,
                "transport_url": rabbitmq.transport_url,
                "host": self.host,
                "state_path": self.directory / "state",
                # A test does not wait for the consoles it left open.
                "graceful_shutdown_timeout": 0,
            },
            "api": {"bind_port": self.api_port},
            # Many daemons run side by side here; a test of metrics chooses ports.
            "metrics": {"bind_port": 0},
            "compute": {"driver": "static" if instances_file else "libvirt"},
            "libvirt": {"connection_uri": libvirt_uri},
            "static": {"instances_file": instances_file, "runs_directory": self.directory},
            "memcache": {"servers": [store.address for store in stores]},
            "vnc": {
                "novncproxy_host": "127.0.0.1",
                "novncproxy_port": self.novnc_port,
                "novncproxy_base_url": f"http://127.0.0.1:{self.novnc_port}/console.html",
                "xvpvncproxy_host": "127.0.0.1",
                "xvpvncproxy_port": self.xvp_port,
                "xvpvncproxy_base_url": f"http://127.0.0.1:{self.xvp_port}/console",
            },
        }

    def add(
        self, daemon: str, name: str | None = None, options: Options | None = None, descriptors: int | None = None
    ) -> Process:
        """Return a further process of ``daemon`` ("compute", ...), not started, stopped with the rest.

        ``name`` (default: the daemon's) is its key in :attr:`processes` and its log's name. ``options`` go to a second
        configuration file and win over the first. ``descriptors`` is its soft limit.
        """
        name = name or daemon
        assert name not in self.processes, f"there is a {name} already"
        argv = [sys.executable, "-m", f"porthole_{daemon}.main", "--config-file", str(self.conf_path)]
        if options:
            extra = self.directory / f"{name}.conf"
            extra.write_text(format_conf(options), encoding="utf-8")
            argv += ["--config-file", str(extra)]
        # Without proxies of the environment, and unbuffered, so that a log read after a kill is whole.
        env = {"PYTHONUNBUFFERED": "1", "NO_PROXY": "*", "no_proxy": "*", **read_unit_environment(daemon)}
        process = Process(argv, self.directory / f"{name}.log", env, name=f"porthole-{name}", descriptors=descriptors)
        self.processes[name] = process
        return process

    def start(self) -> None:
        """Start the wanted daemons, all at once, and return when each has said that it is ready."""
        try:
            for name in self._wanted:
                self.processes[name].start()
            for name in self._wanted:
                self.wait_ready(name)
        except BaseException:
            self.stop()
            raise

    def start_daemon(self, name: str) -> Process:
        """Start one (again) and wait until it is ready."""
        self.processes[name].start()
        self.wait_ready(name)
        return self.processes[name]

    def wait_ready(self, name: str) -> None:
        """Return once the daemon's last start is through."""
        self.processes[name].wait_for_line("Daemon ready", READY_TIMEOUT_S)

    def start_waiting(self, name: str) -> None:
        """Start one (again) whose broker or hypervisor is away: it serves already, and is not ready."""
        self.processes[name].start()
        self.processes[name].wait_for_line("Daemon not ready", READY_TIMEOUT_S)

    def stop(self) -> None:
        """Stop whatever runs, all at once: each may have to wait for its broker's answer.

        :raises AssertionError: when some did not end by SIGTERM; by then they are killed.
        """
        running = [process for process in self.processes.values() if process.running]
        for process in running:
            process.signal(signal.SIGTERM)
        late = []
        for process in running:
            try:
                process.wait(STOP_TIMEOUT_S)
            except AssertionError as exc:
                late.append(str(exc))
                process.kill()
        assert not late, "\n".join(late)

    def logs(self) -> str:
        """Everything every daemon wrote."""
        return "".join(process.log() for process in self.processes.values())

    def command_lines(self) -> list[str]:
        """The command lines of the daemons that run and of their children, as any user of the machine sees them."""
        own = {process.pid for process in self.processes.values() if process.running}
        return [line for pid, parent, line in _processes() if pid in own or parent in own]

    def request(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
    ) -> tuple[int, bytes]:
        """Send one request to the api and return status and body; POST when there is a body, unless ``method`` says so.

        For tests that need an answer of the api in passing.
        """
        answer = self.send(path, body, headers, method)
        return answer.status, answer.body

    def send(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
    ) -> "Answer":
        """Send one request to the api; POST when there is a body, unless ``method`` says otherwise."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        given = {"Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.api_url + path, data=body, headers=given, method=method)  # noqa: S310
        try:
            with opener.open(request, timeout=60) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as exc:
            with exc:
                return Answer(exc.code, exc.headers, exc.read())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def read_unit_environment(daemon: str) -> dict[str, str]:
    """Return what the daemon's unit sets for it, without what systemd alone can fill in (``%``)."""
    text = (UNITS / f"porthole-{daemon}.service").read_text(encoding="utf-8")
    settings = re.findall(r"^Environment=(\w+)=([^%\s]+)$", text, re.MULTILINE)
    assert settings, f"{daemon}'s unit sets nothing"
    return dict(settings)


def format_conf(options: Options) -> str:
    """Return ``{group: {name: value}}`` as the text of a configuration file."""
    lines = []
    for group, values in options.items():
        lines.append(f"[{group}]")
        lines += [f"{name} = {_format_value(value)}" for name, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _format_value(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _merge(first: Options, second: Options) -> Options:
    return {group: {**first.get(group, {}), **second.get(group, {})} for group in {**first, **second}}


def _processes() -> list[tuple[int, int, str]]:
    """Return (pid, parent's pid, command line) of every process."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            line = Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            status = Path(entry.path, "status").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        parent = next(int(row.split()[1]) for row in status.splitlines() if row.startswith("PPid:"))
        found.append((int(entry.name), parent, line))
    return found

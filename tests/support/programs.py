# SPDX-License-Identifier: Apache-2.0
"""Runs a program of Porthole's to its end, many times, at the price of one import.

Why: half a second of each start is Python's import of the same libraries, and the tests of error messages start
hundreds of programs. A process per program imports it once and forks for each run. What runs is what
``python -m MODULE`` runs, as its own process, with its own streams, environment and working directory, to Python's
own end. A run whose environment changes what Python reads at its start gets a new Python instead.
"""

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAX_REQUEST_BYTES = 1024 * 1024
# The import of a program, on a machine that is busy with other tests.
_IMPORT_TIMEOUT_S = 60
_TIMED_OUT = "timed out"
_servers: "dict[str, _Server]" = {}


def run_program(
    module: str,
    *argv: str,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stderr: BinaryIO | None = None,
    timeout_s: float = 60,
) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m module argv`` and return what came of it; its standard input is empty.

    ``env`` is the whole environment. Without ``stderr`` both streams are returned.

    :raises subprocess.TimeoutExpired: when it runs for longer; it is killed.
    """
    where = cwd or Path.cwd()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        streams = (said, stderr or complained)
        if _read_at_start(env) == _read_at_start(_server_environment()):
            status = _get_server(module).run(argv, env, where, streams, timeout_s)
        else:
            status = _run_anew([sys.executable, "-m", module, *argv], env, where, streams, timeout_s)
        texts = []
        for stream in (said, complained):
            stream.seek(0)
            texts.append(stream.read().decode(env.get("PYTHONIOENCODING") or "utf-8", "replace"))
    return subprocess.CompletedProcess([module, *argv], status, *texts)


def _run_anew(
    command: list[str], env: Mapping[str, str], cwd: Path, streams: tuple[BinaryIO, BinaryIO], timeout_s: float
) -> int:
    said, complained = streams
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=complained,
        timeout=timeout_s,
        check=False,
        cwd=cwd,
        env=env,
    ).returncode


def _server_environment() -> dict[str, str]:
    # As an operator starts it, without what Python tells developers.
    return {**os.environ, "PYTHONWARNINGS": ""}


def _read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that Python looks at once, before the program."""
    return {name: value for name, value in env.items() if name.startswith(("PYTHON", "LC_", "LANG")) and value}


def _get_server(module: str) -> "_Server":
    server = _servers.get(module)
    if server is None or not server.running:
        server = _servers[module] = _Server(module)
    return server


@atexit.register
def _stop_servers() -> None:
    for server in _servers.values():
        server.stop()


class _Server:
    """The process that has imported ``module``, from this side."""

    def __init__(self, module: str) -> None:
        self._socket, other = socket.socketpair()
        with other:
            fd = other.fileno()
            argv = [sys.executable, "-m", "support.programs", module, str(fd)]
            self._popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, env=_server_environment(), pass_fds=[fd], start_new_session=True
            )
        self._module = module

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def run(
        self,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        cwd: Path,
        streams: tuple[BinaryIO, BinaryIO],
        timeout_s: float,
    ) -> int:
        order = _Order(argv, dict(env), str(cwd), timeout_s)
        socket.send_fds(self._socket, [order.to_line()], [stream.fileno() for stream in streams])
        self._socket.settimeout(timeout_s + _IMPORT_TIMEOUT_S)
        answer = self._socket.recv(_MAX_REQUEST_BYTES)
        assert answer, f"{self._module} could not be imported, or its process has ended"
        status: int | str = json.loads(answer)
        if isinstance(status, str):
            raise subprocess.TimeoutExpired([self._module, *argv], timeout_s)
        return status

    def stop(self) -> None:
        self._socket.close()
        self._popen.kill()
        self._popen.wait(timeout=20)


@dataclass(frozen=True)
class _Order:
    """One run, as the server is told of it, in one message of JSON with the two streams beside it."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    timeout_s: float

    def to_line(self) -> bytes:
        return json.dumps([self.argv, self.env, self.cwd, self.timeout_s]).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "_Order":
        argv, env, cwd, timeout_s = json.loads(line)
        return cls(tuple(argv), env, cwd, timeout_s)


def _serve(channel: socket.socket) -> _Order | None:
    """Fork for each order until the other side is gone; return the order in the child, and None at the end."""
    while True:
        line, fds, _flags, _address = socket.recv_fds(channel, _MAX_REQUEST_BYTES, 2)
        while line and not line.endswith(b"\n"):
            line += channel.recv(_MAX_REQUEST_BYTES)
        if not line:
            return None
        order = _Order.from_line(line)
        assert threading.active_count() == 1, "a process with threads cannot be forked"
        pid = os.fork()
        if not pid:
            channel.close()
            os.dup2(fds[0], 1)
            os.dup2(fds[1], 2)
        for fd in fds:
            os.close(fd)
        if not pid:
            return order
        channel.sendall(json.dumps(_wait(pid, order.timeout_s)).encode())


def _wait(pid: int, timeout_s: float) -> int | str:
    """Return the child's exit status, negative for a signal. A child that takes too long is killed: ``_TIMED_OUT``."""
    fd = os.pidfd_open(pid)
    try:
        has_ended = bool(select.select([fd], [], [], timeout_s)[0])
        if not has_ended:
            os.kill(pid, signal.SIGKILL)
        _pid, status = os.waitpid(pid, 0)
    finally:
        os.close(fd)
    return os.waitstatus_to_exitcode(status) if has_ended else _TIMED_OUT


def _main(module: str, fd: int) -> None:
    importlib.import_module(module)
    order = _serve(socket.socket(fileno=fd))
    if order is None:
        return
    # From here on this is the program, down to the end of its process.
    os.environ.clear()
    os.environ.update(order.env)
    os.chdir(order.cwd)
    sys.argv = [module, *order.argv]
    # It is run as __main__ instead.
    del sys.modules[module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))

# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL of the tests' own, on a free port of loopback, in a folder of its own.

PostgreSQL does not run as root, so that root starts it as nobody. The cluster that Debian's package may have made is
neither used nor disturbed.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg2

from support.ports import free_port
from support.processes import Process

_USER = "porthole"


class PostgreSQL:
    """Start, stop, pause one server; a restart keeps port and data."""

    def __init__(self) -> None:
        self.port = free_port()
        self._binaries = _find_binaries()
        self._directory = Path(tempfile.mkdtemp(prefix="porthole-postgresql-"))
        self._data = self._directory / "data"
        self._identity = as_nobody(self._directory)
        argv = [*self._identity, str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        argv += ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._directory}"]
        argv += ["-c", "fsync=off", "-c", "max_connections=40"]
        self.process = Process(argv, self._directory / "postgresql.log", name="postgres")

    def make_url(self, database: str) -> str:
        """Make an empty database, and return its URL."""
        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user=_USER, dbname="postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{database}"')
        connection.close()
        return f"postgresql+psycopg2://{_USER}:secret@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and return once it answers."""
        if not self._data.exists():
            command = [str(self._binaries / "initdb"), "-D", str(self._data), "-U", _USER, "-A", "trust", "-E", "UTF8"]
            command += ["--locale=C.UTF-8", "--no-sync"]
            subprocess.run([*self._identity, *command], check=True, capture_output=True, timeout=60)
        self.process.start()
        self.process.wait_for(self._answers, 30, f"an answer at port {self.port}")

    def stop(self) -> None:
        """End it at once (SIGINT, "fast shutdown"): connections are cut."""
        self.process.signal(signal.SIGINT)
        self.process.stop()

    def kill(self) -> None:
        """End it as the loss of its host would: SIGQUIT, "immediate shutdown", leaves no child behind."""
        self.process.signal(signal.SIGQUIT)
        self.process.wait(20)

    def pause(self) -> None:
        """Let it hang, with all its children."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        self._signal_all(signal.SIGCONT)

    def close(self) -> None:
        """Stop, and leave no file."""
        self.resume()
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _signal_all(self, number: int) -> None:
        if self.process.running:
            for pid in (*self.process.children(), self.process.pid):
                os.kill(pid, number)

    def _answers(self) -> bool:
        try:
            psycopg2.connect(host="127.0.0.1", port=self.port, user=_USER, dbname="postgres", connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def as_nobody(directory: Path) -> list[str]:
    """Return what to put before a command that must not run as root, and give nobody the folder."""
    if os.geteuid() != 0:
        return []
    shutil.chown(directory, "nobody", "nogroup")
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]


def _find_binaries() -> Path:
    """Return the folder of the newest version: Debian puts none of them on the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    assert found, "postgresql is not installed (see bindep.txt)"
    return found[-1].parent

# SPDX-License-Identifier: Apache-2.0
"""A MariaDB of the tests' own, on a free port of loopback, in a folder of its own; as root it runs as nobody.

The server that Debian's package may have set up is neither used nor disturbed: no configuration file is read.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymysql

from support.ports import free_port
from support.postgresql import as_nobody
from support.processes import Process

_USER, _PASSWORD = "porthole", "secret"


class MariaDB:
    """Start, stop, pause one server; a restart keeps port and data."""

    def __init__(self) -> None:
        executable = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
        assert executable, "mariadb-server is not installed (see bindep.txt)"
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="porthole-mariadb-"))
        self._data = self._directory / "data"
        self._socket = self._directory / "socket"
        self._identity = as_nobody(self._directory)
        argv = [*self._identity, executable, "--no-defaults", f"--datadir={self._data}", f"--port={self.port}"]
        argv += ["--bind-address=127.0.0.1", f"--socket={self._socket}", f"--pid-file={self._directory / 'pid'}"]
        argv += ["--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=32M", "--performance-schema=off"]
        self.process = Process(argv, self._directory / "mariadb.log", {"TMPDIR": str(self._directory)})

    def make_url(self, database: str) -> str:
        """Make an empty database, and return its URL."""
        self._execute(f"CREATE DATABASE `{database}` CHARACTER SET latin1")
        return f"mysql+pymysql://{_USER}:{_PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and return once it answers."""
        is_new = not self._data.exists()
        if is_new:
            command = ["mariadb-install-db", "--no-defaults", f"--datadir={self._data}", "--skip-test-db"]
            command += ["--auth-root-authentication-method=normal", "--force"]
            # Its own temporary files too: nobody may not write to a folder of root's.
            env = {**os.environ, "TMPDIR": str(self._directory)}
            subprocess.run([*self._identity, *command], check=True, capture_output=True, timeout=90, env=env)
        self.process.start()
        # No connection is tried before: PyMySQL leaves the socket of one that fails open.
        self.process.wait_for_line("ready for connections")
        if is_new:
            self._execute(f"CREATE USER {_USER}@'127.0.0.1' IDENTIFIED BY '{_PASSWORD}'")
            self._execute(f"GRANT ALL ON *.* TO {_USER}@'127.0.0.1'")

    def stop(self) -> None:
        """End it in order."""
        self.process.stop()

    def kill(self) -> None:
        """End it as the loss of its host would."""
        self.process.kill()

    def pause(self) -> None:
        """Let it hang."""
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        self.process.signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop, and leave no file."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _execute(self, statement: str) -> None:
        connection: Any = pymysql.connect(unix_socket=str(self._socket), user="root", connect_timeout=5)
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

# SPDX-License-Identifier: Apache-2.0
"""A memcached of the tests' own, on a free loopback port."""

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.ports import free_port
from support.processes import Process


class Memcached:
    """Start, stop, pause and ask one memcached; a restart keeps the port and forgets the items.

    ``arguments`` are further ones of memcached(1), such as ``["-m", "1"]``.
    """

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        executable = shutil.which("memcached")
        assert executable, "memcached is not installed (see bindep.txt)"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._directory = Path(tempfile.mkdtemp(prefix="porthole-memcached-"))
        # memcached refuses to run as root without being told whom to become.
        identity = ["-u", "nobody"] if os.geteuid() == 0 else []
        argv = [executable, "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-t", "2", *identity, *arguments]
        self.process = Process(argv, self._directory / "memcached.log")

    def start(self) -> None:
        """Start, and return once it answers."""
        self.process.start()
        self.process.wait_for(self._answers, 20, f"an answer at {self.address}")

    def stop(self) -> None:
        """End the process; the items are gone."""
        self.process.stop()

    def restart(self) -> None:
        """Stop and start: same port, no items."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let it hang: connections are accepted by the kernel, and nothing answers."""
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        self.process.signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop, and leave no file."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def command(self, text: str) -> str:
        """Send one command of the text protocol and return the answer up to its last line, END or otherwise."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            sock.sendall(text.encode() + b"\r\n")
            answer = b""
            while not answer.endswith(
                (b"END\r\n", b"OK\r\n", b"ERROR\r\n", b"STORED\r\n", b"DELETED\r\n", b"FOUND\r\n")
            ):
                chunk = sock.recv(65536)
                assert chunk, f"memcached closed after {answer!r}"
                answer += chunk
        return answer.decode()

    def stats(self) -> dict[str, int]:
        """Return the numbers among ``stats``: cmd_get, cmd_set, curr_items, evictions, total_connections, ..."""
        lines = (line.split() for line in self.command("stats").splitlines())
        return {parts[1]: int(parts[2]) for parts in lines if len(parts) == 3 and parts[2].isdecimal()}

    def _answers(self) -> bool:
        try:
            return self.command("stats").endswith("END\r\n")
        except OSError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

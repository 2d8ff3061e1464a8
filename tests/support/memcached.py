# SPDX-License-Identifier: Apache-2.0
"""A memcached of the tests' own, on a free port, of loopback unless told otherwise."""

import itertools
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

    ``arguments`` are further ones of memcached(1), such as ``["-m", "1"]``; ``host`` is the address to listen on. As
    ``deploy/install.sh`` has it, it refuses items when it is full (``-M``), unless it ``evicts``.
    ``port`` is one that is free there, unset: any that is free here.
    ``speaks_text`` is False for one that wants TLS or a login: then :meth:`command` and what uses it are of no use.
    """

    def __init__(
        self,
        arguments: Sequence[str] = (),
        host: str = "127.0.0.1",
        speaks_text: bool = True,
        port: int | None = None,
        evicts: bool = False,
    ) -> None:
        executable = shutil.which("memcached")
        assert executable, "memcached is not installed (see bindep.txt)"
        self.port = port or free_port()
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self._host = host
        self._speaks_text = speaks_text
        self._directory = Path(tempfile.mkdtemp(prefix="porthole-memcached-"))
        # memcached refuses to run as root without being told whom to become.
        identity = ["-u", "nobody"] if os.geteuid() == 0 else []
        full = [] if evicts else ["-M"]
        argv = [executable, "-l", host, "-p", str(self.port), "-U", "0", "-t", "2", *full, *identity, *arguments]
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
        with socket.create_connection((self._host, self.port), timeout=10) as sock:
            sock.sendall(text.encode() + b"\r\n")
            answer = b""
            while not answer.endswith(
                (b"END\r\n", b"OK\r\n", b"ERROR\r\n", b"STORED\r\n", b"DELETED\r\n", b"FOUND\r\n")
            ):
                chunk = sock.recv(65536)
                assert chunk, f"memcached closed after {answer!r}"
                answer += chunk
        return answer.decode()

    def fill(self) -> None:
        """Store items of all the sizes that tokens and indexes may have until there is no room (with ``-M``)."""
        with socket.create_connection((self._host, self.port), timeout=10) as sock, sock.makefile("rb") as answers:
            size = 50
            while size < 20000:
                for batch in itertools.count():
                    names = [f"fill-{size}-{batch}-{number}" for number in range(50)]
                    sock.sendall(b"".join(b"set %s 0 0 %d\r\n%s\r\n" % (n.encode(), size, b"x" * size) for n in names))
                    refused = [answers.readline() for _ in names].count(b"STORED\r\n") < len(names)
                    if refused or batch * 50 * size > 4 << 20:
                        break
                size += size // 5

    def stats(self) -> dict[str, int]:
        """Return the numbers among ``stats``: cmd_get, cmd_set, curr_items, evictions, total_connections, ..."""
        lines = (line.split() for line in self.command("stats").splitlines())
        return {parts[1]: int(parts[2]) for parts in lines if len(parts) == 3 and parts[2].isdecimal()}

    def _answers(self) -> bool:
        try:
            if not self._speaks_text:
                socket.create_connection((self._host, self.port), timeout=10).close()
                return True
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

# SPDX-License-Identifier: Apache-2.0
"""TigerVNC's X server as a process: a real VNC server that is not QEMU's."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.ports import free_port
from support.processes import Process
from support.vnc_servers import greets

# Debian calls it Xtigervnc; others, and TigerVNC itself, Xvnc.
_NAMES = ("Xtigervnc", "Xvnc")
_READY_TIMEOUT_S = 30


class Xvnc:
    """An X display of its own on a free port of loopback; without authentication unless ``security`` says otherwise."""

    def __init__(
        self, directory: Path, geometry: str = "640x480", security: Sequence[str] = ("-SecurityTypes", "None")
    ) -> None:
        """Prepare, without starting; the log goes into ``directory``."""
        program = next((path for name in _NAMES if (path := shutil.which(name))), None)
        assert program is not None, f"no TigerVNC server: none of {', '.join(_NAMES)} is in PATH"
        self.host = "127.0.0.1"
        self.port = free_port()
        # A display number is taken by a lock file and a socket; the port's number is as unlikely to be taken.
        self.display = f":{self.port}"
        argv = [program, self.display, "-rfbport", str(self.port), *security, "-localhost"]
        argv += ["-geometry", geometry, "-depth", "24", "-AlwaysShared", "-nolisten", "tcp", "-noreset"]
        self.process = Process(argv, directory / "xvnc.log", name="Xvnc")

    def start(self) -> None:
        """Start it and return once it greets."""
        self.process.start()
        self.process.wait_for(
            lambda: greets(self.host, self.port), _READY_TIMEOUT_S, f"an RFB greeting on port {self.port}"
        )

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

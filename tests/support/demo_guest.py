# SPDX-License-Identifier: Apache-2.0
"""The quickstart's demo guest on a private libvirtd, with its serial port as the second way to look into it.

Why: what a page shows and what its keys do is asked of the guest itself, where neither VNC nor Porthole takes part.
The guest is made by the script that the quickstart makes it with.
"""

import os
import re
import select
import shutil
import subprocess
import time
import tty
import uuid as uuidlib
from pathlib import Path
from types import TracebackType
from typing import Self

from support.libvirtd import Libvirtd

SCRIPT = Path(__file__).parents[2] / "deploy" / "demo-guest.sh"
FILES = ("kernel", "initramfs")
# The first build in a checkout downloads 28 MB.
BUILD_TIMEOUT_S = 600
XML_TIMEOUT_S = 30
BOOT_TIMEOUT_S = 120
COMMAND_TIMEOUT_S = 60
POLL_S = 0.2
GREETING = "Welcome to the demo guest of Porthole"
PROMPT = "demo:/root# "
COLUMNS = 80


class DemoGuest:
    """One running demo guest; it has a shell on its screen, and :meth:`run` types at the one on its serial port."""

    def __init__(self, libvirtd: Libvirtd, name: str = "demo") -> None:
        self.name = name
        self.uuid = str(uuidlib.uuid4())
        self._libvirtd = libvirtd
        self._directory = libvirtd.directory / f"boot-{self.uuid}"
        self._serial = -1

    def start(self) -> None:
        """Start it, and return once both shells wait for a command."""
        self._copy_files()
        self._libvirtd.create(self._xml())
        self._open_serial()
        self.wait_for_shells()

    def stop(self) -> None:
        """End it, if it still runs, and remove its files."""
        if self._serial >= 0:
            os.close(self._serial)
        if self.uuid in self._libvirtd.virsh("list", "--uuid").split():
            self._libvirtd.destroy(self.uuid)
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process id of its QEMU."""
        return self._libvirtd.guest_pid(self.name)

    def wait_for_shells(self) -> None:
        """Return once the shell on the serial port answers, and the screen ends with a prompt."""
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while PROMPT not in self._read(PROMPT, POLL_S):
            assert time.monotonic() < deadline, f"no prompt on the serial port after {BOOT_TIMEOUT_S} s"
            # QEMU drops what the guest prints until it has noticed that somebody has opened the port.
            os.write(self._serial, b"\r")
        while self.screen()[-1:] != [PROMPT.strip()]:
            assert time.monotonic() < deadline, f"no prompt on the screen after {BOOT_TIMEOUT_S} s: {self.screen()}"

    def wait_for_restart(self) -> None:
        """Return once it has started anew, after somebody has typed ``reboot``."""
        shown = self._read(GREETING, BOOT_TIMEOUT_S)
        assert GREETING in shown, f"no greeting on the serial port after {BOOT_TIMEOUT_S} s: {shown}"
        self.wait_for_shells()

    def screen(self) -> list[str]:
        """Return the lines of text on its screen, up to the last that is not empty."""
        text = self.run("cat /dev/vcs1")
        lines = [text[start : start + COLUMNS].rstrip() for start in range(0, len(text), COLUMNS)]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def enter(self, command: str) -> None:
        """Type a command at the shell on the serial port, and wait for nothing."""
        os.write(self._serial, command.encode() + b"\r")

    def run(self, command: str) -> str:
        """Run a command at the shell on the serial port, and return what it printed.

        :raises AssertionError: when the command takes more than :data:`COMMAND_TIMEOUT_S`.
        """
        # The shell shows what is typed, and the marks must not be found there.
        typed = f"printf '<%s>' begin; {command}; printf '<%s>' end"
        self.enter(typed)
        printed = self._read("<end>", COMMAND_TIMEOUT_S)
        found = re.search(r"<begin>(.*)<end>", printed, re.DOTALL)
        assert found, f"{command!r} at the guest's serial port printed {printed!r}"
        return found[1].replace("\r\n", "\n")

    def _copy_files(self) -> None:
        build = subprocess.run([SCRIPT, "build"], capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
        assert build.returncode == 0, build.stderr
        self._directory.mkdir(mode=0o755)
        # QEMU runs as a user who may not read below a home directory.
        for name in FILES:
            shutil.copy(SCRIPT.parents[1] / ".cache" / "demo-guest" / name, self._directory)

    def _xml(self) -> str:
        command = [str(SCRIPT), "xml", self.name, self.uuid, str(self._directory)]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=XML_TIMEOUT_S, check=True).stdout

    def _open_serial(self) -> None:
        path = self._libvirtd.virsh("ttyconsole", self.uuid).strip()
        self._serial = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._serial)

    def _read(self, end: str, timeout_s: float) -> str:
        """Return what the port says up to ``end``, or in ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        received = b""
        while end.encode() not in received and (left := deadline - time.monotonic()) > 0:
            if select.select([self._serial], [], [], left)[0]:
                received += os.read(self._serial, 4096)
        return received.decode(errors="replace")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

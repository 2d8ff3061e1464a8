# SPDX-License-Identifier: Apache-2.0
"""A libvirtd that holds the lock of one domain, for as long as a test looks at it.

Why a dump: libvirtd holds the lock while it opens the file of a dump, and a FIFO opens only once somebody reads it. So
the lock is held without a signal to QEMU or libvirtd, and without a limit of time. As when a QEMU is stopped while it
arrives, keepalives are answered, and every question about that domain and every list of domains are not.
"""

import os
import threading
from types import TracebackType
from typing import Self

from support.deadlines import join_within
from support.libvirtd import Libvirtd, VirshFailed, VirshHung
from support.processes import wait_until

TIMEOUT_S = 60
PROBE_TIMEOUT_S = 2


class HeldDomain:
    """Holds the lock of the running ``guest`` (name or UUID) until :meth:`release`, or the end of the block."""

    def __init__(self, libvirtd: Libvirtd, guest: str) -> None:
        self._libvirtd = libvirtd
        self._guest = guest
        self._fifo = libvirtd.directory / "data" / "dump"
        self._dump = threading.Thread(target=self._run_dump, name="dump", daemon=True)

    def _run_dump(self) -> None:
        try:
            arguments = ("dump", self._guest, str(self._fifo), "--memory-only", "--live")
            self._libvirtd.virsh(*arguments, timeout_s=10 * TIMEOUT_S)
        except VirshFailed:
            # Nobody reads the dump: it fails, and the guest runs on.
            return

    def _is_held(self) -> bool:
        try:
            self._libvirtd.virsh("domstate", self._guest, timeout_s=PROBE_TIMEOUT_S)
        except VirshHung:
            return True
        return False

    def release(self) -> None:
        """Let go, and return once libvirtd has."""
        if self._dump.is_alive() and self._fifo.exists():
            os.close(os.open(self._fifo, os.O_RDONLY | os.O_NONBLOCK))
        join_within(TIMEOUT_S, self._dump)
        self._fifo.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        os.mkfifo(self._fifo)
        self._fifo.chmod(0o666)
        self._dump.start()
        wait_until(self._is_held, TIMEOUT_S, f"the lock of {self._guest}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

# SPDX-License-Identifier: Apache-2.0
"""The domains that run, from the events and lists of a hypervisor: which of them ended during an outage.

Why: a domain that stops while the connection to libvirt is down sends no event, and its consoles must end all the same.
So the domains that ran before are compared with the list of the new connection. Pure; any thread may call. Called by
:mod:`porthole_compute.drivers.libvirt_host`.
"""

import threading
from collections.abc import Mapping


class RunningDomains:
    """Each running domain's UUID, with the name of its run (:mod:`porthole_compute.drivers.libvirt_run`)."""

    def __init__(self) -> None:
        self._running: dict[str, str] = {}
        # Those that ran when the connection was lost.
        self._ran_before: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, uuid: str, run: str) -> None:
        """Note that a domain has started."""
        with self._lock:
            self._running[uuid] = run

    def discard(self, uuid: str) -> None:
        """Note that a domain has stopped."""
        with self._lock:
            self._running.pop(uuid, None)

    def begin_connection(self) -> None:
        """Start anew, since a new connection's events are about to arrive."""
        with self._lock:
            self._ran_before.update(self._running)
            self._running = {}

    def complete(self, listed: Mapping[str, str]) -> list[str]:
        """Add the list of a new connection; return the domains that ran before and do not, or have started again."""
        with self._lock:
            # Events arrive while the list is on its way, and are younger.
            self._running = {**listed, **self._running}
            ended = [uuid for uuid, run in self._ran_before.items() if self._running.get(uuid) != run]
            self._ran_before = {}
        return ended

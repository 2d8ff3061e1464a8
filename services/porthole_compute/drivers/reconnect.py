# SPDX-License-Identifier: Apache-2.0
"""Keeps one connection open, in a thread of its own, and makes it again whenever it is lost.

Why: no caller waits for a hypervisor that is down at the start of the daemon, or later. A caller gets the connection,
or learns at once that there is none. Called by :mod:`porthole_compute.drivers.libvirt_host`; uses no library.
"""

import threading
from collections.abc import Callable
from typing import Any

from porthole_common import errors
from porthole_common.log import get_logger

LOG = get_logger(__name__)


class Reconnector:
    """One connection, or None while there is none.

    ``open_connection`` gets an event that it, or its callbacks, set once the connection is lost; it returns the
    connection or raises Unavailable. ``close_connection`` never raises. ``on_change`` is called after each
    connection and each loss. ``name`` is the name of the other side in the log.
    """

    def __init__(
        self,
        name: str,
        open_connection: Callable[[threading.Event], Any],
        close_connection: Callable[[Any], None],
        on_change: Callable[[], None],
        interval_s: float,
    ) -> None:
        self._name = name
        self._open = open_connection
        self._close = close_connection
        self._on_change = on_change
        self._interval_s = interval_s
        self._current: Any = None
        self._lost = threading.Event()
        self._attempted = threading.Event()
        self._stopping = threading.Event()
        self._told = False
        self._thread = threading.Thread(target=self._run, name=f"{name} connector", daemon=True)

    @property
    def current(self) -> Any:
        """The connection, or None."""
        return self._current

    def start(self, timeout_s: float) -> None:
        """Begin; return after the first attempt, or ``timeout_s`` into it."""
        self._thread.start()
        if not self._attempted.wait(timeout_s):
            LOG.warning("Peer not answering; waiting for it", peer=self._name, seconds=timeout_s)

    def drop(self, connection: Any) -> None:
        """Have ``connection`` made again, since it is dead; nothing when it is no longer the current one."""
        # In this order: the event of a connection exists before the connection.
        lost = self._lost
        if connection is self._current:
            lost.set()

    def stop(self, timeout_s: float) -> None:
        """Close the connection; an attempt that hangs for longer than ``timeout_s`` is abandoned."""
        self._stopping.set()
        self._lost.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._lost = threading.Event()
            connection = self._attempt(self._lost)
            if connection is None:
                self._attempted.set()
                self._stopping.wait(self._interval_s)
                continue
            self._current = connection
            self._attempted.set()
            self._on_change()
            # stop() sets one event after the other; the second may have been that of the round before.
            if not self._stopping.is_set():
                self._lost.wait()
            self._current = None
            self._close(connection)
            if not self._stopping.is_set():
                LOG.warning("Peer lost", peer=self._name)
                self._on_change()

    def _attempt(self, lost: threading.Event) -> Any:
        connection, reason = None, ""
        try:
            connection = self._open(lost)
        except errors.Unavailable as exc:
            reason = str(exc.__cause__ or exc)
        except Exception:
            LOG.exception("Connection to the peer failed", peer=self._name)
        if connection is not None:
            self._told = False
            LOG.info("Peer connected", peer=self._name)
        elif reason and not self._told:
            # Logged once: it will fail like this every few seconds until the other side starts.
            LOG.warning(
                "Peer not connected; trying again", peer=self._name, reason=reason, retry_seconds=self._interval_s
            )
            self._told = True
        return connection

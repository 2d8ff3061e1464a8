# SPDX-License-Identifier: Apache-2.0
"""Connections to libvirt, and libvirt's event loop.

Why: libvirt's loop is one for the process, and a connection without keepalive messages never notices that its daemon
hangs. Each thread that asks has a connection of its own. On a shared one, a call may wait behind an open one until the
next keepalive, since libvirt's client loses some wake-ups of the thread that polls (virNetClientIOWakeup of libvirt 9).
And libvirtd reads no more of a client with five calls open (max_client_requests).
Called by :mod:`porthole_compute.drivers.libvirt_host`.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import libvirt

from porthole_common.log import get_logger

LOG = get_logger(__name__)
# libvirt breaks the connection (COUNT + 1) * INTERVAL = 6 s after the last keepalive message: before the deadline of
# the RPC, so that its caller learns the reason.
KEEPALIVE_INTERVAL_S = 2
KEEPALIVE_COUNT = 2
# How often libvirt's event loop sets the mark that it runs.
TICK_MS = 1000

_event_loop_lock = threading.Lock()
_event_loop_started = False
_ticked = threading.Event()


def start_event_loop() -> None:
    """Run libvirt's event loop in a thread of its own; once per process, before the first connection.

    Source: virEventRegisterDefaultImpl. The loop has no end; the thread is a daemon.
    """
    global _event_loop_started  # noqa: PLW0603 (libvirt's loop is global to the process too)
    with _event_loop_lock:
        if _event_loop_started:
            return
        # Errors arrive as exceptions; libvirt would also print them to stderr.
        libvirt.registerErrorHandler(lambda *_: None, None)
        libvirt.virEventRegisterDefaultImpl()
        _ticked.set()
        libvirt.virEventAddTimeout(TICK_MS, lambda *_: _ticked.set(), None)
        threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()
        _event_loop_started = True


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            LOG.exception("libvirt event loop failed")


def has_event_loop_run() -> bool:
    """Whether the event loop has run since the last call."""
    ticked = _ticked.is_set()
    _ticked.clear()
    return ticked


def open_kept_alive(open_connection: Callable[[str], Any], uri: str) -> Any:
    """Return a new connection that breaks soon after its daemon stops answering.

    :raises libvirtError: when libvirt does not answer.
    """
    connection = open_connection(uri)
    connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
    return connection


class ThreadConnections:
    """The connections on which questions are asked: one for each thread."""

    def __init__(self, open_connection: Callable[[], Any]) -> None:
        self._open = open_connection
        # (number, connection) by the thread's id; threads of questions are few, and end with the driver.
        self._opened: dict[int, tuple[int, Any]] = {}

    def get(self, number: int) -> Any:
        """Return this thread's connection, opened anew when ``number`` has changed or it is broken.

        :raises libvirtError: when libvirt does not answer.
        """
        thread = threading.get_ident()
        opened_at, connection = self._opened.get(thread, (0, None))
        if connection is not None and opened_at == number and is_connection_alive(connection):
            return connection
        self._close(thread)
        connection = self._open()
        self._opened[thread] = number, connection
        return connection

    def close(self) -> None:
        """Close every connection; one with a call under way is gone once the call has returned."""
        for thread in list(self._opened):
            self._close(thread)

    def _close(self, thread: int) -> None:
        _number, connection = self._opened.pop(thread, (0, None))
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()


def is_connection_alive(connection: Any) -> bool:
    """Whether the library takes the connection for alive (virConnectIsAlive); the daemon is not asked."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False

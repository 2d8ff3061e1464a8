# SPDX-License-Identifier: Apache-2.0
"""Joining the bus: subscribe to the inventory, then ask every compute for it.

Why in a thread of its own: without a broker the first connection is tried for ever, and meanwhile users must get 503.
Called by :mod:`porthole_api.main`.
"""

import threading
from collections.abc import Sequence

from porthole_api.directory import Directory
from porthole_common import errors, metrics, notifications
from porthole_common.context import build_daemon_context
from porthole_common.log import get_logger
from porthole_common.rpc import Rpc, RpcServer
from porthole_compute.rpcapi import ComputeAPI

LOG = get_logger(__name__)
RETRY_AFTER_S = 2.0
STOP_TIMEOUT_S = 2.0
# How often silent hosts are looked for, for the log. The answers to users do not depend on it.
WATCH_INTERVAL_S = 5.0


class Subscription:
    """Fills ``directory`` from the bus, under ``name``, which is unique to this host's api."""

    def __init__(
        self,
        rpc: Rpc,
        compute: ComputeAPI,
        directory: Directory,
        name: str,
        endpoints: Sequence[object] = (),
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        """Prepare; ``endpoints`` are served with the inventory, on the same connection."""
        self._rpc = rpc
        self._compute = compute
        self._directory = directory
        self._name = name
        self._retry_after_s = retry_after_s
        self._endpoints = [notifications.InventoryEndpoint(directory.update), *endpoints]
        self._server: RpcServer | None = None
        self._joined = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="subscription", daemon=True)

    @property
    def joined(self) -> bool:
        """Whether this process has subscribed to the inventory and asked for it."""
        return self._joined.is_set()

    def start(self) -> None:
        """Start the thread; returns at once."""
        metrics.INVENTORY_AGE.add_source(self._read_ages)
        self._thread.start()

    def stop(self) -> None:
        """Accept no more inventories. Harmless when not started, or while the first connection is still tried."""
        metrics.INVENTORY_AGE.remove_source(self._read_ages)
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)
        if self._server:
            self._server.stop()

    def _read_ages(self) -> metrics.Samples:
        return [((host,), age_s) for host, age_s in self._directory.list_silences().items()]

    def _join(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self._server:
                    # One thread, so that of two inventories of a host the later one wins.
                    server = self._rpc.get_server(notifications.INVENTORY_TOPIC, self._name, self._endpoints, threads=1)
                    server.start()
                    # Only now: a server whose start failed cannot be started again, so the next try makes a new one.
                    self._server = server
                self._ask()
            except errors.Unavailable as error:
                if not self._stopping.is_set():
                    LOG.warning("Inventory request failed", reason=error)
            except Exception:
                # An unusable broker does not end here: the start of a server waits for the broker.
                LOG.exception("Bus subscription failed")
            else:
                self._joined.set()
                break
            self._stopping.wait(self._retry_after_s)

    def _run(self) -> None:
        self._join()
        while not self._stopping.wait(WATCH_INTERVAL_S):
            self._directory.note_silent_hosts()

    def _ask(self) -> None:
        """Ask every compute; the subscription exists already, since the answers are published."""
        context = build_daemon_context()
        self._compute.publish_inventory(context)
        self._directory.mark_asked()
        LOG.info("Inventory requested", context=context)

# SPDX-License-Identifier: Apache-2.0
"""Publishes the instances of this host to every api: at start, on each change, on request, and at an interval.

Why: an api looks up the host and the owner of an instance in its memory, and counts a silent host as down. An instance
with another owner than in the inventory before has its consoles revoked. Made by :mod:`porthole_compute.main`. The
driver's events and the endpoint wake its thread.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from porthole_common import errors, metrics
from porthole_common.context import RequestContext, build_daemon_context
from porthole_common.log import get_logger
from porthole_common.model import Instance, InstanceState, Owner
from porthole_common.notifications import Inventory
from porthole_compute.drivers import ComputeDriver

LOG = get_logger(__name__)
# A guest that starts causes half a dozen events; one inventory covers them all.
DEBOUNCE_S = 0.2
# The pause after a publication that no broker took. An api counts a host as down after 90 s of silence.
RETRY_S = 5.0
# The interval during a migration: libvirt reports the end of a migration to the destination a moment before the end,
# and does not report it again.
MIGRATING_INTERVAL_S = 1.0


class Publisher(Protocol):
    """Where inventories go: :class:`porthole_common.notifications.InventoryPublisher`."""

    def publish(self, context: RequestContext, inventory: Inventory) -> None:
        """Send a full inventory.

        :raises RpcUnavailable: when there is no broker to take it.
        """


class Owners:
    """The last known owner of each instance. One thread calls it."""

    def __init__(self) -> None:
        self._owners: dict[str, Owner] = {}

    def update(self, instances: Iterable[Instance]) -> list[str]:
        """Take the owners of ``instances``; return the UUIDs of those whose project or user was another one.

        An instance in state UNKNOWN keeps its last owner: the hypervisor did not answer about it.
        """
        before, self._owners, changed = self._owners, {}, []
        for instance in instances:
            owner, last = Owner(instance.project_id, instance.user_id), before.get(instance.uuid)
            if instance.state != InstanceState.UNKNOWN:
                self._owners[instance.uuid] = owner
                if last not in (None, owner):
                    changed.append(instance.uuid)
            elif last is not None:
                self._owners[instance.uuid] = last
        return changed


class InventoryReporter:
    """A thread that publishes full inventories: of a hypervisor that is down, the last known instances."""

    def __init__(
        self,
        host: str,
        driver: ComputeDriver,
        publisher: Publisher,
        interval_s: float,
        debounce_s: float = DEBOUNCE_S,
        retry_s: float = RETRY_S,
        migrating_s: float = MIGRATING_INTERVAL_S,
        report_start: Callable[[RequestContext], None] = lambda _context: None,
        on_owner_changed: Callable[[str], None] = lambda _uuid: None,
    ) -> None:
        """Prepare; ``report_start`` tells the proxies that the instances are known, at first or again.

        It raises RpcUnavailable when there is no broker, and is then called again with the next inventory.
        ``on_owner_changed`` is called with an instance's UUID before its new owner is published.
        """
        self._host = host
        self._driver = driver
        self._publisher = publisher
        self._on_owner_changed = on_owner_changed
        self._interval_s = interval_s
        self._debounce_s = debounce_s
        self._retry_s = retry_s
        self._migrating_s = migrating_s
        self._last_known: tuple[Instance, ...] = ()
        self._owners = Owners()
        self._in_trouble = False
        self._is_up = True
        self._report_start = report_start
        self._is_start_reported = False
        self._published: tuple[int, bool] | None = None
        self._published_at: float | None = None
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inventory", daemon=True)

    def start(self) -> None:
        """Start the thread, which publishes the first inventory at once."""
        for metric, source in self._list_sources():
            metric.add_source(source)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    def request(self) -> None:
        """Have an inventory published soon; returns at once."""
        self._wanted.set()

    def stop(self, timeout_s: float) -> None:
        """Publish no more; wait up to ``timeout_s`` for the publication under way."""
        for metric, source in self._list_sources():
            metric.remove_source(source)
        self._stopping.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def publish(self) -> bool:
        """Publish an inventory now, from the calling thread; return whether a broker took it."""
        trouble = ""
        context = build_daemon_context()
        try:
            inventory = self._read()
            self._publisher.publish(context, inventory)
            self._published_at = time.time()
            self._log_published(context, inventory)
            if self._is_up and not self._is_start_reported:
                # Of what ended before, no event tells, so the proxies ask about their open consoles.
                self._report_start(context)
            self._is_start_reported = self._is_up
        except errors.Unavailable as exc:
            trouble = str(exc)
        if trouble and not self._in_trouble:
            LOG.warning(
                "Inventory not published; trying again", context=context, reason=trouble, retry_seconds=self._retry_s
            )
        elif self._in_trouble and not trouble:
            LOG.info("Inventory publication recovered", context=context)
        self._in_trouble = bool(trouble)
        return not trouble

    def _list_sources(self) -> list[tuple[metrics.Computed, metrics.Source]]:
        return [
            (metrics.HYPERVISOR_UP, self._read_up),
            (metrics.INSTANCES, self._read_states),
            (metrics.INVENTORY_PUBLISHED, self._read_published),
        ]

    def _read_up(self) -> metrics.Samples:
        return [((), self._is_up)]

    def _read_states(self) -> metrics.Samples:
        counts = dict.fromkeys(InstanceState, 0)
        for instance in self._last_known:
            counts[instance.state] += 1
        return [((state.lower(),), count) for state, count in counts.items()]

    def _read_published(self) -> metrics.Samples:
        return [] if self._published_at is None else [((), self._published_at)]

    def _log_published(self, context: RequestContext, inventory: Inventory) -> None:
        """Log the publication: at level info when it brings news, else at level debug."""
        count, is_up = len(inventory.instances), inventory.hypervisor_up
        level = logging.DEBUG if self._published == (count, is_up) else logging.INFO
        self._published = count, is_up
        LOG.log(level, "Inventory published", context=context, instances=count, hypervisor_up=is_up)

    def _read(self) -> Inventory:
        try:
            self._last_known = tuple(self._driver.list_instances())
        except errors.HypervisorUnavailable:
            self._is_up = False
        else:
            self._is_up = True
        for uuid in self._owners.update(self._last_known):
            self._on_owner_changed(uuid)
        return Inventory(self._host, self._last_known, hypervisor_up=self._is_up)

    def _next_in_s(self, published: bool) -> float:
        if not (published and self._is_up):
            # The return of a hypervisor is an event, but a single call that failed causes none afterwards.
            return self._retry_s
        states = {instance.state for instance in self._last_known}
        if InstanceState.MIGRATING in states:
            return self._migrating_s
        # A question about one instance that failed causes no event either.
        return self._retry_s if InstanceState.UNKNOWN in states else self._interval_s

    def _run(self) -> None:
        while True:
            self._wanted.clear()
            # Read after the clear, since stop() sets this event first.
            if self._stopping.is_set():
                return
            try:
                published = self.publish()
            except Exception:
                LOG.exception("Inventory not built")
                published = False
            self._wanted.wait(min(self._interval_s, self._next_in_s(published)))
            # Changes within this time go into the same inventory.
            self._stopping.wait(self._debounce_s)

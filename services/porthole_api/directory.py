# SPDX-License-Identifier: Apache-2.0
"""All instances, with their hosts and states, as the computes have published them.

Why: the api owns no database. Each compute sends whole snapshots (:class:`porthole_common.notifications.Inventory`),
and this directory answers from the latest snapshot of each host. Written by RPC threads, read by HTTP threads.

The rules:

* A snapshot replaces everything that its host published before.
* A host that is silent for ``SILENT_AFTER_S`` is down, and so is a host whose hypervisor does not answer. The
  instances of such a host stay visible with state UNKNOWN, and carry the reason. They are removed only when the host
  publishes a snapshot without them, or when the process ends.
* Several hosts may report an instance: it migrates, or a host has come back. A host that answers wins over one that
  does not; then a host where the instance runs; then the host whose word counted so far; then the host that published
  last. So two guests with one UUID do not take turns: owner, name and console stay the first one's.
* At start, an instance may be missing because its compute has not answered yet. Readers therefore wait for a moment
  (:mod:`porthole_api.warm_up`).

A cloud has tens of thousands of instances, and each user's list reads all of them. The answer for an instance with one
host is therefore kept, and built again only when it changes.
"""

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice

from porthole_api.snapshot import Snapshot
from porthole_api.warm_up import WarmUp
from porthole_common import errors
from porthole_common.log import get_logger
from porthole_common.model import Instance, InstanceState
from porthole_common.notifications import Inventory

LOG = get_logger(__name__)
# When all is well, a guest that has moved or stopped is published within a fraction of a second.
MOVE_LIMIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Located:
    """One instance as users see it; ``unavailable`` is why its console cannot be opened now, or None."""

    instance: Instance
    host: str
    created_at: datetime
    updated_at: datetime
    unavailable: errors.Unavailable | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """The directory's own notes on an instance: its place in the order, its hosts, and two times.

    ``host`` is the one whose word counts, also for ``name`` and ``state``. ``located`` is the answer as long as the
    only host answers; None with several hosts.
    """

    name: str
    state: InstanceState
    host: str
    hosts: frozenset[str]
    first_seen_at: datetime
    changed_at: datetime
    located: Located | None = None


class Directory:
    """The instances of all hosts. Thread-safe.

    ``clock`` is monotonic, in seconds. ``now`` returns the aware time for instances without a date of their own.
    ``condition`` is what readers wait on.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        condition: threading.Condition | None = None,
    ) -> None:
        self._clock = clock
        self._now = now
        self._changed = condition or threading.Condition()
        self._snapshots: dict[str, Snapshot] = {}
        self._known: dict[str, _Known] = {}
        self._order: list[tuple[str, str]] = []
        # The instances that several hosts report: few.
        self._shared: set[str] = set()
        # The hosts that did not answer when those were chosen from.
        self._faulty: set[str] = set()
        self._count = 0
        self._warm_up = WarmUp(clock)
        self._silent: set[str] = set()

    def mark_asked(self) -> None:
        """Note that every compute has just been asked for its inventory: the wait for the answers starts."""
        with self._changed:
            self._warm_up.mark_asked()
            self._changed.notify_all()

    def update(self, inventory: Inventory) -> None:
        """Replace the snapshot of ``inventory.host``."""
        with self._changed:
            self._count += 1
            former = self._snapshots.get(inventory.host)
            before = former.instances if former else {}
            # An instance without a change stays the same object: most snapshots hold nothing new.
            instances = {
                instance.uuid: before[instance.uuid] if before.get(instance.uuid) == instance else instance
                for instance in inventory.instances
            }
            snapshot = Snapshot(inventory.host, instances, inventory.hypervisor_up, self._clock(), self._count)
            self._snapshots[inventory.host] = snapshot
            if former is None:
                self._warm_up.mark_new_host()
            for uuid in before.keys() - instances.keys():
                self._withdraw(uuid, inventory.host)
            only_host = frozenset([inventory.host])
            for instance in instances.values():
                if before.get(instance.uuid) is not instance:
                    self._report(instance, only_host)
            self._settle_shared()
            self._changed.notify_all()
            was_silent = inventory.host in self._silent
            self._silent.discard(inventory.host)
        self._log_news(inventory, former, was_silent)

    def note_silent_hosts(self) -> None:
        """Log the hosts that have become silent since the last call."""
        with self._changed:
            now_s = self._clock()
            silent = {host for host, snapshot in self._snapshots.items() if snapshot.is_silent(now_s)}
            lost = [(host, now_s - self._snapshots[host].seen_at_s) for host in sorted(silent - self._silent)]
            self._silent = silent
        for host, silent_s in lost:
            LOG.warning("Host lost", compute=host, seconds=silent_s)

    def get(self, uuid: str) -> Located:
        """Return the instance.

        :raises InstanceNotFound: when no host has it.
        :raises RpcUnavailable: when no host has ever answered, so that it is unknown whether the instance exists.
        """
        with self._changed:
            self._wait_while_warming(lambda: uuid in self._known)
            if uuid in self._known:
                return self._locate(uuid)
            if not self._snapshots:
                raise errors.RpcUnavailable("compute", "publish_inventory")
            raise errors.InstanceNotFound(uuid)

    def await_move(self, uuid: str, host: str) -> Located:
        """Return the instance once it is on another host than ``host``, which has just said that it does not have it.

        The directory learns of a move a moment later than the hosts: an inventory takes some time. A host where the
        instance runs counts at once, since the word of ``host`` is newer than its inventory.

        :raises InstanceNotFound: when no host has the instance any more.
        :raises InstanceNotReady: when no news arrives within ``MOVE_LIMIT_S``.
        """
        with self._changed:
            give_up_at_s = self._clock() + MOVE_LIMIT_S
            while uuid in self._known:
                if (located := self._locate_elsewhere(uuid, host)) is not None:
                    return located
                remaining_s = give_up_at_s - self._clock()
                if remaining_s <= 0:
                    raise errors.InstanceNotReady(uuid, str(InstanceState.MIGRATING))
                self._changed.wait(remaining_s)
            raise errors.InstanceNotFound(uuid)

    def list_duplicates(self, limit: int) -> dict[str, list[str]]:
        """Return ``{UUID: hosts}`` of at most ``limit`` instances that run on several hosts that answer.

        The first host is the one whose word counts. An instance that migrates may be here for a moment.
        """
        with self._changed:
            self._settle_shared()
            duplicates = {}
            for uuid in sorted(self._shared):
                first, others = self._known[uuid].host, self._known[uuid].hosts
                hosts = [host for host in (first, *sorted(others - {first})) if self._runs(uuid, host)]
                if len(hosts) > 1:
                    duplicates[uuid] = hosts
            return dict(islice(duplicates.items(), limit))

    def list_silences(self) -> dict[str, float]:
        """Return ``{host: seconds since its last snapshot}`` for every host that has published one."""
        with self._changed:
            now_s = self._clock()
            return {host: now_s - snapshot.seen_at_s for host, snapshot in self._snapshots.items()}

    def list_instances(
        self, after: str | None = None, has_name: Callable[[str], bool] | None = None
    ) -> Iterator[Located]:
        """Yield all instances, ordered by name, then UUID.

        ``after`` is the UUID to start behind; ``has_name`` selects by name. The order is the one at the call; an
        instance that disappears while the caller reads is skipped.

        :raises InstanceNotFound: when ``after`` does not exist (any more).
        :raises RpcUnavailable: when the computes could not be asked yet.
        """
        with self._changed:
            self._wait_while_warming(lambda: False)
            if not self._warm_up.has_asked and not self._snapshots:
                raise errors.RpcUnavailable("compute", "publish_inventory")
            self._settle_shared()
            start = 0
            if after is not None:
                if after not in self._known:
                    raise errors.InstanceNotFound(after)
                start = bisect_right(self._order, (self._known[after].name, after))
            order = self._order[start:]
        return self._locate_each(order, has_name)

    def _log_news(self, inventory: Inventory, former: Snapshot | None, was_silent: bool) -> None:
        """Log what has changed since the host's former snapshot; most snapshots change nothing."""
        instances = len(inventory.instances)
        if former is None or was_silent:
            LOG.info("Host found", compute=inventory.host, instances=instances)
        if not inventory.hypervisor_up and (former is None or former.hypervisor_up):
            LOG.warning("Hypervisor lost", compute=inventory.host, instances=instances)
        elif inventory.hypervisor_up and former is not None and not former.hypervisor_up:
            LOG.info("Hypervisor found", compute=inventory.host, instances=instances)

    def _locate_each(self, order: list[tuple[str, str]], has_name: Callable[[str], bool] | None) -> Iterator[Located]:
        for name, uuid in order:
            if has_name is not None and not has_name(name):
                continue
            with self._changed:
                if uuid not in self._known:
                    continue
                located = self._locate(uuid)
            yield located

    def _report(self, instance: Instance, only_host: frozenset[str]) -> None:
        uuid = instance.uuid
        known = self._known.get(uuid)
        if known is None:
            (host,) = only_host
            now = self._now()
            insort(self._order, (instance.name, uuid))
            self._known[uuid] = _Known(instance.name, instance.state, host, only_host, now, now)
        elif not only_host <= known.hosts:
            self._known[uuid] = replace(known, hosts=known.hosts | only_host, changed_at=self._now())
            self._shared.add(uuid)
        self._settle(uuid)

    def _withdraw(self, uuid: str, host: str) -> None:
        known = self._known[uuid]
        hosts = known.hosts - {host}
        if len(hosts) < 2:
            self._shared.discard(uuid)
        if hosts:
            self._known[uuid] = replace(known, hosts=hosts, changed_at=self._now())
            self._settle(uuid)
        else:
            self._take_out_of_order(uuid, known)
            del self._known[uuid]

    def _settle(self, uuid: str) -> None:
        """Choose the host whose word counts, and let the name and the order follow it."""
        known = self._known[uuid]
        host = max(known.hosts, key=lambda candidate: self._rank(uuid, candidate))
        instance = self._snapshots[host].instances[uuid]
        if (host, instance.name, instance.state) != (known.host, known.name, known.state):
            if instance.name != known.name:
                self._take_out_of_order(uuid, known)
                insort(self._order, (instance.name, uuid))
            known = replace(known, host=host, name=instance.name, state=instance.state, changed_at=self._now())
        located = self._build_located(uuid, host, known) if len(known.hosts) == 1 else None
        self._known[uuid] = replace(known, located=located)

    def _take_out_of_order(self, uuid: str, known: _Known) -> None:
        del self._order[bisect_left(self._order, (known.name, uuid))]

    def _locate(self, uuid: str) -> Located:
        if uuid in self._shared:
            # A host may have fallen silent since.
            self._settle(uuid)
        known = self._known[uuid]
        return self._judge(known.located or self._build_located(uuid, known.host, known))

    def _judge(self, located: Located) -> Located:
        """Return the answer as it is now: with state UNKNOWN and the reason when the host does not answer."""
        unavailable = self._find_fault(located.host)
        if unavailable is None:
            return located
        unknown = replace(located.instance, state=InstanceState.UNKNOWN)
        return replace(located, instance=unknown, unavailable=unavailable)

    def _locate_elsewhere(self, uuid: str, host: str) -> Located | None:
        """Return the instance without what ``host`` says of it; None while only ``host`` says that it runs."""
        known = self._known[uuid]
        others = known.hosts - {host}
        if not others:
            return None
        best = max(others, key=lambda candidate: self._rank(uuid, candidate))
        located = self._judge(self._build_located(uuid, best, known))
        return located if host not in known.hosts or located.instance.state is InstanceState.RUNNING else None

    def _build_located(self, uuid: str, host: str, known: _Known) -> Located:
        instance = self._snapshots[host].instances[uuid]
        created_at = instance.created_at or known.first_seen_at
        return Located(instance, host, created_at, max(known.changed_at, created_at))

    def _settle_shared(self) -> None:
        """Choose anew where several hosts have an instance, if other hosts than before do not answer."""
        if not self._shared:
            return
        faulty = {host for host in self._snapshots if not self._answers(host)}
        if faulty != self._faulty:
            self._faulty = faulty
            for uuid in self._shared:
                self._settle(uuid)

    def _rank(self, uuid: str, host: str) -> tuple[bool, bool, bool, int]:
        snapshot = self._snapshots[host]
        running = snapshot.instances[uuid].state is InstanceState.RUNNING
        return self._answers(host), running, host == self._known[uuid].host, snapshot.number

    def _runs(self, uuid: str, host: str) -> bool:
        instance = self._snapshots[host].instances[uuid]
        return instance.state is InstanceState.RUNNING and self._answers(host)

    def _answers(self, host: str) -> bool:
        return self._find_fault(host) is None

    def _find_fault(self, host: str) -> errors.Unavailable | None:
        return self._snapshots[host].find_fault(self._clock())

    def _wait_while_warming(self, is_satisfied: Callable[[], bool]) -> None:
        """Wait, with the lock released, until ``is_satisfied`` or the first answers are in."""
        while not is_satisfied():
            remaining_s = self._warm_up.get_remaining_s()
            if remaining_s <= 0:
                return
            self._changed.wait(remaining_s)

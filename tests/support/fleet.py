# SPDX-License-Identifier: Apache-2.0
"""Many computes that are none: they publish inventories on a real bus as porthole-compute does, and have no guests.

Why: a thousand hosts with thirty instances each fit into few processes, and the api cannot tell the difference. Each
process answers when an api asks, and publishes every so often.
"""

import multiprocessing
import threading
import time
import uuid
from datetime import UTC, datetime
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Self

from oslo_config import cfg

from porthole_common import errors
from porthole_common.context import RequestContext, build_daemon_context
from porthole_common.model import ConsoleType, Instance, InstanceState
from porthole_common.notifications import INVENTORY_TOPIC, INVENTORY_VERSION, Inventory
from porthole_common.rpc import Rpc, RpcTarget
from porthole_compute.rpcapi import TOPIC
from support.bus import parse_global_conf

# As [compute] inventory_interval.
INTERVAL_S = 30.0
# As porthole_compute.inventory's.
RETRY_S = 5.0
_PROJECTS = 100
_SPAWN = multiprocessing.get_context("spawn")
_NAMESPACE = uuid.UUID("5a9d4f5e-0000-4000-8000-000000000000")
_CREATED_AT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def build_project_id(number: int) -> str:
    """Return the id of the ``number``-th project, as Keystone would write it."""
    return uuid.uuid5(_NAMESPACE, f"project-{number % _PROJECTS}").hex


def build_inventory(host: int, instances: int) -> Inventory:
    """Return what the ``host``-th compute publishes; every instance runs."""
    return Inventory(
        f"compute-{host}.example.org",
        tuple(
            Instance(
                uuid=str(uuid.uuid5(_NAMESPACE, f"{host}-{number}")),
                name=f"vm-{host:04d}-{number:02d}.example.org",
                state=InstanceState.RUNNING,
                project_id=build_project_id(host + number),
                user_id=uuid.uuid5(_NAMESPACE, f"user-{number}").hex,
                console_types=(ConsoleType.NOVNC, ConsoleType.XVPVNC),
                created_at=_CREATED_AT,
            )
            for number in range(instances)
        ),
    )


class Fleet:
    """``hosts`` computes of ``instances`` each, in ``processes`` processes, while the context lasts."""

    def __init__(self, transport_url: str, hosts: int, instances: int, processes: int = 4) -> None:
        self._stop = _SPAWN.Event()
        self._ready = [_SPAWN.Event() for _ in range(processes)]
        self._processes = [
            _SPAWN.Process(
                target=_run_hosts,
                args=(transport_url, range(first, hosts, processes), instances, self._ready[first], self._stop),
                daemon=True,
            )
            for first in range(processes)
        ]

    def __enter__(self) -> Self:
        for process in self._processes:
            process.start()
        for ready in self._ready:
            assert ready.wait(120), "the computes did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for process in self._processes:
            process.join(20)
            process.kill()
            process.join(20)


class _Endpoint:
    """The one method of topic ``compute`` that an inventory needs."""

    target = RpcTarget(version="1.0")

    def __init__(self, wanted: threading.Event) -> None:
        self._wanted = wanted

    def publish_inventory(self, context: RequestContext) -> None:
        self._wanted.set()


def _run_hosts(transport_url: str, hosts: range, instances: int, ready: Event, stop: Event) -> None:
    """Be the computes of one process."""
    parse_global_conf()
    rpc = Rpc(cfg.CONF, 10, transport_url=transport_url)
    # As InventoryPublisher sends them, but made once: in life there is a processor for each.
    client, wanted = rpc.get_client(INVENTORY_TOPIC, INVENTORY_VERSION), threading.Event()
    inventories = [build_inventory(host, instances).to_primitive() for host in hosts]
    server = rpc.get_server(TOPIC, f"fleet-{hosts.start}", [_Endpoint(wanted)])
    server.start()
    ready.set()
    next_at_s = 0.0
    while not stop.is_set():
        if not wanted.wait(0.02) and time.monotonic() < next_at_s:
            continue
        wanted.clear()
        try:
            for inventory in inventories:
                client.publish(build_daemon_context(), "update_inventory", inventory=inventory)
        except errors.Unavailable:
            # While no api listens there is nothing to publish to.
            next_at_s = time.monotonic() + RETRY_S
        else:
            next_at_s = time.monotonic() + INTERVAL_S
    server.stop()
    rpc.close()

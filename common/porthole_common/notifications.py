# SPDX-License-Identifier: Apache-2.0
"""Notifications, which are published and not called: inventories, revocations, and the start of a compute host.

Why: the services form a line (api -> novncproxy -> compute -> consoleauth). Data in the other direction goes to all
subscribers, and the publisher does not know them. Compute publishes inventory, and the api subscribes to it.
Consoleauth publishes revocations, and the novncproxy subscribes to them, and to the starts that compute publishes.

A subscriber gives :meth:`Rpc.get_server` the topic, a name of its own that is unique on the bus, and an
endpoint of this module built on its callback.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from porthole_common.context import RequestContext
from porthole_common.model import Instance, RevocationReason
from porthole_common.rpc import Rpc, RpcTarget

INVENTORY_TOPIC = "porthole.inventory"
REVOCATIONS_TOPIC = "porthole.revocations"
INVENTORY_VERSION = "1.0"
# 1.1: compute_host and reason.
REVOCATIONS_VERSION = "1.1"
# On the same topic, since its subscribers are the same. 1.2: report_host_start.
HOST_STARTS_VERSION = "1.2"
_OLDEST_VERSION = "1.0"


@dataclass(frozen=True)
class Inventory:
    """All instances of one host: an instance that is not in ``instances`` is not on ``host``.

    ``hypervisor_up`` is False when compute runs and its hypervisor does not answer; then the instances are the last
    known ones.
    """

    host: str
    instances: tuple[Instance, ...]
    hypervisor_up: bool = True

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``{host, instances: [Instance.to_primitive()], hypervisor_up}``."""
        instances = tuple(Instance.from_primitive(item) for item in value["instances"])
        return cls(value["host"], instances, value.get("hypervisor_up", True))

    def to_primitive(self) -> dict[str, Any]:
        """Return ``{host, instances: [...], hypervisor_up}``."""
        return {
            "host": self.host,
            "instances": [instance.to_primitive() for instance in self.instances],
            "hypervisor_up": self.hypervisor_up,
        }


class InventoryPublisher:
    """Compute's side: sends its host's inventory to every api."""

    def __init__(self, rpc: Rpc) -> None:
        self._client = rpc.get_client(INVENTORY_TOPIC, INVENTORY_VERSION)

    def publish(self, context: RequestContext, inventory: Inventory) -> None:
        """Send a full inventory.

        :raises RpcUnavailable: when there is no broker to take it.
        """
        self._client.publish(context, "update_inventory", inventory=inventory.to_primitive())


class InventoryEndpoint:
    """The api's side: hands each inventory that arrives to ``on_inventory``, from an RPC thread."""

    target = RpcTarget(version=INVENTORY_VERSION)

    def __init__(self, on_inventory: Callable[[Inventory], None]) -> None:
        self._on_inventory = on_inventory

    def update_inventory(self, context: RequestContext, inventory: dict[str, Any]) -> None:
        """Take ``inventory`` (:meth:`Inventory.to_primitive`)."""
        self._on_inventory(Inventory.from_primitive(inventory))


@dataclass(frozen=True)
class Revocation:
    """The tokens of an instance are revoked: those for ``compute_host``, or all of them when it is None."""

    instance_uuid: str
    compute_host: str | None = None
    reason: RevocationReason = RevocationReason.ENDED

    @classmethod
    def from_primitive(
        cls, instance_uuid: str, compute_host: str | None = None, reason: str = RevocationReason.ENDED
    ) -> Self:
        """Build from the arguments of a message; a reason that only a newer version knows becomes the general one."""
        known = RevocationReason(reason) if reason in set(RevocationReason) else RevocationReason.ENDED
        return cls(instance_uuid, compute_host, known)

    def to_primitive(self) -> dict[str, Any]:
        """Return ``{instance_uuid, compute_host, reason}``."""
        return {
            "instance_uuid": self.instance_uuid,
            "compute_host": self.compute_host,
            "reason": str(self.reason),
        }


class RevocationPublisher:
    """Consoleauth's side: tells every proxy that an instance's tokens are gone."""

    def __init__(self, rpc: Rpc) -> None:
        self._is_pinned = not rpc.may_send(REVOCATIONS_TOPIC, REVOCATIONS_VERSION)
        self._client = rpc.get_client(REVOCATIONS_TOPIC, _OLDEST_VERSION if self._is_pinned else REVOCATIONS_VERSION)

    def publish(self, context: RequestContext, revocation: Revocation) -> None:
        """Send one revocation; without host and reason, which ends all sessions, where ``[upgrade_levels]`` says so.

        :raises RpcUnavailable: when there is no broker to take it.
        """
        arguments = revocation.to_primitive()
        if self._is_pinned:
            arguments = {"instance_uuid": revocation.instance_uuid}
        self._client.publish(context, "revoke_instance", **arguments)


class RevocationEndpoint:
    """The proxy's side: hands each revocation to ``on_revoked``, from an RPC thread."""

    target = RpcTarget(version=REVOCATIONS_VERSION)

    def __init__(self, on_revoked: Callable[[Revocation], None]) -> None:
        self._on_revoked = on_revoked

    def revoke_instance(
        self,
        context: RequestContext,
        instance_uuid: str,
        compute_host: str | None = None,
        reason: str = RevocationReason.ENDED,
    ) -> None:
        """End the sessions that these tokens opened."""
        self._on_revoked(Revocation.from_primitive(instance_uuid, compute_host, reason))


class HostStartPublisher:
    """Compute's side: tells every proxy that a host knows its instances from now on, after a time when it did not."""

    def __init__(self, rpc: Rpc, host: str) -> None:
        self._client = rpc.get_client(REVOCATIONS_TOPIC, HOST_STARTS_VERSION)
        self._may_send = rpc.may_send(REVOCATIONS_TOPIC, HOST_STARTS_VERSION)
        self._host = host

    def publish(self, context: RequestContext) -> None:
        """Send it, unless ``[upgrade_levels]`` says that proxies are older.

        :raises RpcUnavailable: when there is no broker to take it.
        """
        if self._may_send:
            self._client.publish(context, "report_host_start", compute_host=self._host)


class HostStartEndpoint:
    """The proxy's side: hands the name of each host that has started to ``on_started``, from an RPC thread."""

    target = RpcTarget(version=HOST_STARTS_VERSION)

    def __init__(self, on_started: Callable[[str], None]) -> None:
        self._on_started = on_started

    def report_host_start(self, context: RequestContext, compute_host: str) -> None:
        """Take the name of a host."""
        self._on_started(compute_host)

# SPDX-License-Identifier: Apache-2.0
"""The RPC client of compute: one method for each method of :mod:`porthole_compute.endpoint`."""

from collections.abc import Sequence
from typing import Any

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline
from porthole_common.diagnosis import HostDescription
from porthole_common.model import Claim, ConnectInfo, Target
from porthole_common.rpc import Rpc

TOPIC = "compute"
# 1.0: get_vnc_console, validate_console, publish_inventory.
# 1.1: describe_host.
# 1.2: validate_consoles; run and owner of validate_console.
VERSION = "1.2"
# Users' requests ask for the first version that has their methods, so that an api or a proxy may be newer than the
# computes. A compute that names a run takes it back too.
_CONSOLES = "1.0"
_DESCRIPTION = "1.1"
_RUNS = "1.2"
# The most consoles that one call of validate_consoles takes: a host answers within the call's deadline, although a
# question to libvirt takes some milliseconds, and the message stays small.
MAX_CONSOLES = 100


class ComputeAPI:
    """Client of the compute daemons; ``host`` is a daemon's ``[DEFAULT] host``.

    Every call ends within ``[rpc] call_timeout`` and raises RpcUnavailable when that host does not answer.
    ``deadline``: see :meth:`porthole_common.rpc.RpcClient.call`.
    """

    def __init__(self, rpc: Rpc) -> None:
        self._client = rpc.get_client(TOPIC, _CONSOLES)
        self._describing = rpc.get_client(TOPIC, _DESCRIPTION)
        self._validating = rpc.get_client(TOPIC, _RUNS)

    def get_vnc_console(
        self,
        context: RequestContext,
        host: str,
        instance_uuid: str,
        console_type: str,
        deadline: Deadline | None = None,
    ) -> ConnectInfo:
        """Return a new console of the instance, with a token that is not stored yet.

        :raises InstanceNotFound: when the host does not have the instance.
        :raises InstanceNotReady: when it is building or migrating.
        :raises InstanceNotRunning: when its QEMU does not run.
        :raises ConsoleTypeInvalid: when ``console_type`` is not one of Porthole's.
        :raises ConsoleTypeUnavailable: when the instance has no VNC display.
        :raises HypervisorUnavailable: when the hypervisor does not answer.
        """
        value: dict[str, Any] = self._client.call(
            context,
            "get_vnc_console",
            server=host,
            deadline=deadline,
            instance_uuid=instance_uuid,
            console_type=console_type,
        )
        return ConnectInfo.from_primitive(value)

    def validate_console(
        self,
        context: RequestContext,
        compute_host: str,
        claim: Claim,
        deadline: Deadline | None = None,
    ) -> Target:
        """Return where the instance's VNC server listens now: the address to dial.

        A claim without run and owner, as older computes make it, is sent in the way of older versions.

        :raises TokenInvalid: when ``claim`` is no longer true: the instance is gone, has stopped or moved, runs anew or
            has another owner.
        :raises HypervisorUnavailable: when the hypervisor does not answer.
        """
        client = self._client if claim.run is None and claim.owner is None else self._validating
        value: dict[str, Any] = client.call(
            context, "validate_console", server=compute_host, deadline=deadline, **claim.to_primitive()
        )
        return Target.from_primitive(value)

    def validate_consoles(
        self,
        context: RequestContext,
        compute_host: str,
        consoles: Sequence[ConnectInfo],
        deadline: Deadline | None = None,
        timeout_s: float | None = None,
        log_failures: bool = True,
    ) -> list[Target | errors.PortholeError]:
        """Return for each console what :meth:`validate_console` returns or raises, in the same order.

        An instance that is not ready has InstanceNotReady: an open console of it may go on, and none may begin.
        Each call has up to :data:`MAX_CONSOLES`, so more consoles are several calls, one after the other. A guest that
        the hypervisor does not answer about, for ``timeout_s`` at most, has HypervisorUnavailable, and the others have
        their answers. None stands for the compute's own patience, which is as long as a call allows.
        Without ``log_failures`` the caller logs a call that fails.

        :raises RpcUnavailable: when a call has no answer within its deadline.
        :raises RemoteFailure: also when the version of that compute has no such method, or an answer is not known here.
        """
        answers: list[Target | errors.PortholeError] = []
        for first in range(0, len(consoles), MAX_CONSOLES):
            asked = consoles[first : first + MAX_CONSOLES]
            values: list[dict[str, Any]] = self._validating.call(
                context,
                "validate_consoles",
                server=compute_host,
                deadline=deadline,
                log_failures=log_failures,
                consoles=[info.claim.to_primitive() for info in asked],
                timeout_s=timeout_s,
            )
            if len(values) != len(asked):
                raise errors.RemoteFailure(TOPIC, "validate_consoles")
            answers += map(_read_validation, values)
        return answers

    def describe_host(self, context: RequestContext, host: str) -> HostDescription:
        """Return the description of the compute, its hypervisor and its displays.

        :raises RemoteFailure: also when the version of that compute has no description.
        """
        value: dict[str, Any] = self._describing.call(context, "describe_host", server=host)
        return HostDescription.from_primitive(value)

    def publish_inventory(self, context: RequestContext) -> None:
        """Ask every compute to publish its inventory now; the answers arrive as publications.

        :raises RpcUnavailable: when there is no broker to take it.
        """
        self._client.publish(context, "publish_inventory")


def _read_validation(value: dict[str, Any]) -> Target | errors.PortholeError:
    """Return the address or the error; RemoteFailure for what only a newer compute knows, since it decides nothing."""
    try:
        return errors.from_primitive(value) if "error" in value else Target.from_primitive(value)
    except (KeyError, TypeError, ValueError):
        return errors.RemoteFailure(TOPIC, "validate_consoles")

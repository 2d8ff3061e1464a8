# SPDX-License-Identifier: Apache-2.0
"""What an api answers when it is examined; :mod:`porthole_api.rpcapi` is the other end.

Why: users' requests come over HTTP, and what an operator wants to know of an api does not concern them. Called by
oslo.messaging's threads.
"""

from typing import Any, Protocol

from oslo_config import cfg

from porthole_api.rpcapi import VERSION
from porthole_common.context import RequestContext
from porthole_common.diagnosis import ApiDescription, read_vitals
from porthole_common.rpc import RpcTarget

# The bus, the log, the policy file; each of the worker threads has a request's connection, and as many wait.
_DESCRIPTORS_BESIDE_REQUESTS = 128


class Hosts(Protocol):
    """The part of :class:`porthole_api.directory.Directory` that is used here."""

    def list_silences(self) -> dict[str, float]: ...  # noqa: D102


class ApiEndpoint:
    """Methods beside the inventories of topic :data:`porthole_api.rpcapi.TOPIC`."""

    target = RpcTarget(version=VERSION)

    def __init__(self, conf: cfg.ConfigOpts, hosts: Hosts) -> None:
        self._host = conf.host
        self._descriptors_needed = 2 * conf.api.workers + _DESCRIPTORS_BESIDE_REQUESTS
        self._hosts = hosts

    def describe_api(self, context: RequestContext) -> dict[str, Any]:
        """Return what ``ApiDescription.to_primitive`` writes."""
        vitals = read_vitals(self._host, self._descriptors_needed)
        return ApiDescription(vitals, self._hosts.list_silences()).to_primitive()

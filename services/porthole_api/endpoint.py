# SPDX-License-Identifier: Apache-2.0
"""The RPC methods of an api, for ``porthole doctor``; :mod:`porthole_api.rpcapi` is the client.

Why: users' requests come over HTTP, and they must not see what an operator wants to know about an api. Called by
oslo.messaging's threads.
"""

from typing import Any, Protocol

from oslo_config import cfg

from porthole_api.rpcapi import VERSION
from porthole_common.conf.metrics import find_host
from porthole_common.context import RequestContext
from porthole_common.diagnosis import ApiDescription, read_vitals
from porthole_common.rpc import RpcTarget

# The bus, the log, the policy file. Each worker thread has the connection of a request, and as many connections wait.
_DESCRIPTORS_BESIDE_REQUESTS = 128
# More than an operator reads at once.
_MAX_DUPLICATES = 20


class Hosts(Protocol):
    """The part of :class:`porthole_api.directory.Directory` that the endpoint uses."""

    def list_silences(self) -> dict[str, float]: ...  # noqa: D102

    def list_duplicates(self, limit: int) -> dict[str, list[str]]: ...  # noqa: D102


class ApiEndpoint:
    """Methods on topic :data:`porthole_api.rpcapi.TOPIC`, beside the inventories."""

    target = RpcTarget(version=VERSION)

    def __init__(self, conf: cfg.ConfigOpts, hosts: Hosts) -> None:
        self._host = conf.host
        self._metrics_host = find_host(conf, "api")
        self._descriptors_needed = 2 * conf.api.workers + _DESCRIPTORS_BESIDE_REQUESTS
        self._hosts = hosts

    def describe_api(self, context: RequestContext) -> dict[str, Any]:
        """Return what ``ApiDescription.to_primitive`` writes."""
        vitals = read_vitals(self._host, self._descriptors_needed, self._metrics_host)
        duplicates = self._hosts.list_duplicates(_MAX_DUPLICATES)
        return ApiDescription(vitals, self._hosts.list_silences(), duplicates).to_primitive()

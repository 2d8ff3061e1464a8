# SPDX-License-Identifier: Apache-2.0
"""The client of the apis, for ``porthole doctor``: one method per method of :mod:`porthole_api.endpoint`.

Why: a compute that has stopped does not answer discovery, and the apis remember that it existed. Users' requests do not
use this client.
"""

from typing import Any

from porthole_common import notifications
from porthole_common.context import RequestContext
from porthole_common.diagnosis import ApiDescription
from porthole_common.rpc import Rpc

# Each api process already listens on this topic, for inventories.
TOPIC = notifications.INVENTORY_TOPIC
# 1.1: describe_api. (1.0 is the version of the inventories.)
VERSION = "1.1"


class PortholeAPI:
    """Client of the api processes; ``server`` is the name that a process gave in discovery."""

    def __init__(self, rpc: Rpc) -> None:
        self._client = rpc.get_client(TOPIC, VERSION)

    def describe_api(self, context: RequestContext, server: str) -> ApiDescription:
        """Return the description of the process, and of the computes that it knows.

        :raises RpcUnavailable: when the process does not answer.
        """
        value: dict[str, Any] = self._client.call(context, "describe_api", server=server)
        return ApiDescription.from_primitive(value)

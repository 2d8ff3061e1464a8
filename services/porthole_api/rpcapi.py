# SPDX-License-Identifier: Apache-2.0
"""How ``porthole doctor`` reaches the apis: one method per method of :mod:`porthole_api.endpoint`.

Why: a compute that is gone answers no roll call; that there was one, the apis remember. Nothing that a user's request
needs goes this way.
"""

from typing import Any

from porthole_common import notifications
from porthole_common.context import RequestContext
from porthole_common.diagnosis import ApiDescription
from porthole_common.rpc import Rpc

# Each process listens there already, for inventories.
TOPIC = notifications.INVENTORY_TOPIC
# 1.1: describe_api. (1.0 is that of the inventories.)
VERSION = "1.1"


class PortholeAPI:
    """Client of the api's processes; ``server`` is the name that one gave at the roll call."""

    def __init__(self, rpc: Rpc) -> None:
        self._client = rpc.get_client(TOPIC, VERSION)

    def describe_api(self, context: RequestContext, server: str) -> ApiDescription:
        """Return what the process says of itself, and of the computes that it has heard of.

        :raises RpcUnavailable: when it does not answer.
        """
        value: dict[str, Any] = self._client.call(context, "describe_api", server=server)
        return ApiDescription.from_primitive(value)

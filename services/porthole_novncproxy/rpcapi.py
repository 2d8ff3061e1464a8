# SPDX-License-Identifier: Apache-2.0
"""How ``porthole doctor`` reaches the proxies: one method per method of :mod:`porthole_novncproxy.endpoint`.

Why: only the proxy can say which VNC servers it reaches from where it stands. No user's request goes this way.
"""

from collections.abc import Sequence
from typing import Any

from porthole_common import notifications
from porthole_common.context import RequestContext
from porthole_common.diagnosis import ProxyDescription, Reach
from porthole_common.model import Target
from porthole_common.rpc import Rpc

# Each process consumes from there already, under its own name, for revocations: no further connection is needed.
TOPIC = notifications.REVOCATIONS_TOPIC
# 1.1: describe_proxy, dial_targets. The topic also has the revocations, with the versions of notifications.py.
VERSION = "1.1"


class NovncProxyAPI:
    """Client of the proxy's processes; ``server`` is a name that discovery has found.

    Every call ends within the deadline of ``rpc``, and raises RpcUnavailable when that process does not answer.
    """

    def __init__(self, rpc: Rpc) -> None:
        self._client = rpc.get_client(TOPIC, VERSION)

    def describe_proxy(self, context: RequestContext, server: str) -> ProxyDescription:
        """Return what the process says of itself, its pages and its certificate."""
        value: dict[str, Any] = self._client.call(context, "describe_proxy", server=server)
        return ProxyDescription.from_primitive(value)

    def dial_targets(self, context: RequestContext, server: str, targets: Sequence[Target]) -> list[Reach]:
        """Have the process dial VNC servers, and return the outcomes in the same order.

        :raises RequestInvalid: when there are more than the endpoint takes.
        """
        asked = [target.to_primitive() for target in targets]
        values: list[dict[str, Any]] = self._client.call(context, "dial_targets", server=server, targets=asked)
        return [Reach.from_primitive(value) for value in values]

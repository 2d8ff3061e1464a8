# SPDX-License-Identifier: Apache-2.0
"""The RPC client of the proxy's processes: of :mod:`porthole_novncproxy.endpoint`, and of its ``sessions.endpoint``.

Why: only the proxy can say which VNC servers it reaches from where it stands, for ``porthole doctor``, and which
consoles are open, for the api.
"""

from collections.abc import Sequence
from typing import Any

from porthole_common import errors, notifications
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline
from porthole_common.diagnosis import ProxyDescription, Reach
from porthole_common.model import Target
from porthole_common.open_session import OpenSession, SessionFilter
from porthole_common.rpc import Rpc

# Each process consumes from there already, under its own name, for revocations: no further connection is needed.
TOPIC = notifications.REVOCATIONS_TOPIC
# 1.1: describe_proxy, dial_targets. The topic also has the revocations, with the versions of notifications.py.
VERSION = "1.1"
# 1.3: list_sessions, end_sessions.
SESSIONS_VERSION = "1.3"
# The most sessions of one answer: 0.5 MiB.
MAX_SESSIONS = 1001
# How long a process may take to list or end its sessions: users wait for the slowest one.
SESSIONS_TIMEOUT_S = 0.8


class NovncProxyAPI:
    """Client of the proxy's processes; ``server`` is a name that discovery has found.

    Every call ends within the deadline of ``rpc``, and raises RpcUnavailable when that process does not answer.
    """

    def __init__(self, rpc: Rpc) -> None:
        self._client = rpc.get_client(TOPIC, VERSION)
        self._sessions = rpc.get_client(TOPIC, SESSIONS_VERSION, SESSIONS_TIMEOUT_S)

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

    def list_sessions(
        self, context: RequestContext, server: str, asked: SessionFilter, limit: int, marker: str | None = None
    ) -> list[OpenSession]:
        """Return a page of the process's sessions, newest first, within :data:`SESSIONS_TIMEOUT_S`.

        ``limit``: up to :data:`MAX_SESSIONS`. ``marker``: the last id of the page before.

        :raises RequestInvalid: when the marker is malformed.
        :raises RemoteFailure: also when that process's version has no such method.
        """
        values = self._ask_sessions(context, "list_sessions", server, asked, limit=limit, marker=marker)
        try:
            return [OpenSession.from_primitive(value) for value in values]
        except (TypeError, ValueError) as exc:
            raise errors.RemoteFailure(TOPIC, "list_sessions") from exc

    def end_sessions(
        self,
        context: RequestContext,
        server: str,
        asked: SessionFilter,
        user_id: str | None,
        name: str | None,
        reason: str,
    ) -> int:
        """End the sessions of the process that ``asked`` lets through, and return how many, in the same time.

        ``user_id`` and ``name`` are those of the user who ends them.

        :raises RemoteFailure: also when that process's version has no such method.
        """
        count = self._ask_sessions(context, "end_sessions", server, asked, user_id=user_id, name=name, reason=reason)
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise errors.RemoteFailure(TOPIC, "end_sessions")
        return count

    def _ask_sessions(
        self, context: RequestContext, method: str, server: str, asked: SessionFilter, **arguments: Any
    ) -> Any:
        filters = asked.to_primitive()
        return self._sessions.call(
            context, method, server=server, deadline=Deadline(), log_failures=False, filters=filters, **arguments
        )

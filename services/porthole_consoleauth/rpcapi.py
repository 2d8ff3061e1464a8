# SPDX-License-Identifier: Apache-2.0
"""The RPC client of consoleauth: one method for each method of :mod:`porthole_consoleauth.endpoint`.

The last two are those of :mod:`porthole_consoleauth.history.endpoint`.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline
from porthole_common.diagnosis import StoreDescription
from porthole_common.history.event import HistoryEvent
from porthole_common.log import get_logger
from porthole_common.model import ConnectInfo, ConsoleMode, RevocationReason
from porthole_common.rpc import Rpc

LOG = get_logger(__name__)
TOPIC = "consoleauth"
# 1.0: authorize_console, check_token, delete_tokens_for_instance.
# 1.1: describe_store.
# 1.2: compute_host and reason of delete_tokens_for_instance.
# 1.3: run and owner of authorize_console.
# 1.4: mode, uses and ttl_s of authorize_console; spend_token.
# 1.5: record_events, list_events.
VERSION = "1.5"
# Each call asks for the first version that has its method, so that the consoleauths may be older.
_TOKENS = "1.0"
_DESCRIPTIONS = "1.1"
_REVOCATIONS = "1.2"
_RUNS = "1.3"
_USES = "1.4"
_HISTORY = "1.5"
# The events of one call of record_events: 0.5 MiB.
MAX_EVENTS = 500
# The arguments that the version of _RUNS added.
_BINDING = frozenset({"run", "owner"})


# TokenWish.uses of a token that opens any number of sessions.
ANY_NUMBER = 0


@dataclass(frozen=True)
class TokenWish:
    """What a user asks of a token: its ``mode``; its ``uses``, or :data:`ANY_NUMBER`; its life, ``ttl_s`` in seconds.

    None means what consoleauth's options say.
    """

    mode: ConsoleMode = ConsoleMode.CONTROL
    uses: int | None = None
    ttl_s: int | None = None


@dataclass(frozen=True)
class Authorized:
    """A token that is stored: when it expires (aware, UTC), and how many sessions it may open, None for any number."""

    expires_at: datetime
    uses: int | None = None


class ConsoleAuthAPI:
    """Client of the consoleauth daemons; any of them answers, since they share one store, unless ``server`` names one.

    Every call ends within ``[rpc] call_timeout``, and raises RpcUnavailable when none answers. ``deadline``: see
    :meth:`porthole_common.rpc.RpcClient.call`.
    """

    def __init__(self, rpc: Rpc) -> None:
        self._client = rpc.get_client(TOPIC, _TOKENS)
        self._describing = rpc.get_client(TOPIC, _DESCRIPTIONS)
        self._revoking = rpc.get_client(TOPIC, _REVOCATIONS)
        self._authorizing = rpc.get_client(TOPIC, _RUNS)
        self._spending = rpc.get_client(TOPIC, _USES)
        self._history = rpc.get_client(TOPIC, _HISTORY)
        self._may_send_history = rpc.may_send(TOPIC, _HISTORY)
        self._is_pinned = not rpc.may_send(TOPIC, _REVOCATIONS)
        self._may_send_run = rpc.may_send(TOPIC, _RUNS)

    def authorize_console(
        self,
        context: RequestContext,
        connect_info: ConnectInfo,
        deadline: Deadline | None = None,
        wish: TokenWish = TokenWish(),
    ) -> Authorized:
        """Store ``connect_info`` under its token and its instance, as ``wish`` asks; return what the token is then.

        The console of an older compute has neither run nor owner, and is sent in the way of older versions. So is every
        console where ``[upgrade_levels]`` says that consoleauth may be older; that token is not bound to a run.

        :raises TokenStoreUnavailable: when it is not certain that the store has it; then no user may get the URL.
        """
        arguments = connect_info.to_primitive()
        # consoleauth sets these itself; the user and the project are those of the context.
        for name in ("expires_at", "user_id", "project_id", "remaining_s", "mode", "uses"):
            arguments.pop(name, None)
        if not self._may_send_run:
            arguments = {name: item for name, item in arguments.items() if name not in _BINDING}
        client = self._client if _BINDING.isdisjoint(arguments) else self._authorizing
        if wish != TokenWish():
            # Never without them: a token for a viewer must not control the screen.
            arguments |= {"mode": str(wish.mode), "uses": wish.uses, "ttl_s": wish.ttl_s}
            client = self._spending
        value: dict[str, Any] = client.call(context, "authorize_console", deadline=deadline, **arguments)
        return Authorized(datetime.fromisoformat(value["expires_at"]), value.get("uses"))

    def spend_token(self, context: RequestContext, token: str, deadline: Deadline | None = None) -> None:
        """Take one of the token's uses; only for a token whose uses are limited, which no older consoleauth has.

        :raises TokenInvalid: when it is unknown, expired or revoked meanwhile, or has no use left.
        :raises TokenStoreUnavailable: when it is not certain that the use was taken.
        """
        self._spending.call(context, "spend_token", deadline=deadline, token=token)

    def check_token(
        self, context: RequestContext, token: str, server: str | None = None, deadline: Deadline | None = None
    ) -> ConnectInfo:
        """Return the console of ``token``: without ``token``, and with the four fields that consoleauth sets.

        The answer of an older consoleauth has neither user nor project, and no ``remaining_s``.

        :raises TokenInvalid: when it is malformed, unknown, expired or revoked.
        :raises TokenStoreUnavailable: when the store does not answer.
        :raises RemoteFailure: also when the answer does not parse.
        """
        value: dict[str, Any] = self._client.call(context, "check_token", server=server, deadline=deadline, token=token)
        try:
            return ConnectInfo.from_primitive(_share_texts(value))
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            LOG.error("RPC answer not understood", topic=TOPIC, method="check_token", error=exc)
            raise errors.RemoteFailure(TOPIC, "check_token") from exc

    def delete_tokens_for_instance(
        self,
        context: RequestContext,
        instance_uuid: str,
        compute_host: str | None = None,
        reason: RevocationReason = RevocationReason.ENDED,
        server: str | None = None,
    ) -> int:
        """Revoke the instance's tokens, publish the revocation, and return how many there were.

        With ``compute_host`` only the tokens for a console on that host; all of them where ``[upgrade_levels]`` says
        that consoleauth may be of a version that knows no hosts.

        :raises TokenStoreUnavailable: when the store did not confirm it.
        """
        count: int
        if self._is_pinned:
            count = self._client.call(context, "delete_tokens_for_instance", server=server, instance_uuid=instance_uuid)
            return count
        count = self._revoking.call(
            context,
            "delete_tokens_for_instance",
            server=server,
            instance_uuid=instance_uuid,
            compute_host=compute_host,
            reason=str(reason),
        )
        return count

    def describe_store(self, context: RequestContext, server: str) -> StoreDescription:
        """Return the description of that consoleauth and its store.

        :raises RemoteFailure: also when the version of that consoleauth has no description.
        """
        value: dict[str, Any] = self._describing.call(context, "describe_store", server=server)
        return StoreDescription.from_primitive(value)

    def record_events(self, context: RequestContext, events: Sequence[HistoryEvent]) -> int:
        """Have the events stored, MAX_EVENTS at most; return how many were understood. The caller logs a failure.

        :raises HistoryUnavailable: when they are not stored, also where ``[upgrade_levels]`` says that consoleauth may
            be of a version that has no history.
        """
        if not self._may_send_history:
            raise errors.HistoryUnavailable("[upgrade_levels] consoleauth does not allow it yet")
        primitives = [event.to_primitive() for event in events]
        count: int = self._history.call(context, "record_events", log_failures=False, events=primitives)
        return count

    def list_events(
        self, context: RequestContext, filters: dict[str, str], limit: int, marker: str | None = None
    ) -> tuple[list[HistoryEvent], bool]:
        """Return a page of events, newest first, and whether there are more.

        For the arguments see :meth:`porthole_consoleauth.history.endpoint.HistoryEndpoint.list_events`.

        :raises RequestInvalid: when a filter, the limit or the marker is not valid.
        :raises HistoryUnavailable: when the history cannot be read now.
        """
        value: dict[str, Any] = self._history.call(context, "list_events", filters=filters, limit=limit, marker=marker)
        return [HistoryEvent.from_primitive(item) for item in value["events"]], bool(value["has_more"])


@functools.lru_cache(maxsize=4096)
def _share(text: str) -> str:
    """Return the one object for an equal text. Thousands of open consoles have the same hosts, users and guests."""
    return text


def _share_texts(value: Any) -> Any:
    """Return an answer with shared texts, those within it too. It has no token: an access URL is without its query."""
    if isinstance(value, dict):
        return {name: _share_texts(item) for name, item in value.items()}
    return _share(value) if isinstance(value, str) else value

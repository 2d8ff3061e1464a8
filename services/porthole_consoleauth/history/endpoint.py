# SPDX-License-Identifier: Apache-2.0
"""The RPC methods about history; :mod:`porthole_consoleauth.rpcapi` is the client.

Why an endpoint of its own beside that of the tokens: what it does may take seconds, and none of it is needed to open a
console. Called by oslo.messaging's threads.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.history.event import HistoryEvent
from porthole_common.log import get_logger
from porthole_common.rpc import RpcTarget, expected_exceptions
from porthole_consoleauth.history.reading import MAX_LIMIT, Filters
from porthole_consoleauth.rpcapi import MAX_EVENTS, VERSION

LOG = get_logger(__name__)


class Store(Protocol):
    """The part of :class:`porthole_consoleauth.history.store.HistoryStore` that is used here."""

    def find_events(self, filters: Filters, limit: int, marker: str | None) -> tuple[list[HistoryEvent], bool]: ...  # noqa: D102


class HistoryEndpoint:
    """Methods of topic ``consoleauth``. ``record`` stores events, once each."""

    target = RpcTarget(version=VERSION)

    def __init__(self, store: Store, record: Callable[[Sequence[HistoryEvent]], None]) -> None:
        self._store = store
        self._record = record

    @expected_exceptions(errors.PortholeError)
    def record_events(self, context: RequestContext, events: list[dict[str, Any]]) -> int:
        """Store each event (``HistoryEvent.to_primitive``) that is not stored yet; return how many were understood.

        One that is not understood is logged and left out: refusing it would hold up those behind it for ever.

        :raises RequestInvalid: when there are too many events.
        :raises HistoryUnavailable: when they are not stored; all of them may be sent again.
        """
        if not isinstance(events, list) or len(events) > MAX_EVENTS:
            raise errors.RequestInvalid(f"events is not a list of at most {MAX_EVENTS}")
        known = []
        for value in events:
            try:
                known.append(HistoryEvent.from_primitive(value))
            except ValueError as exc:
                LOG.error("History event not understood", reason=exc)
        self._record(known)
        return len(known)

    @expected_exceptions(errors.PortholeError)
    def list_events(
        self, context: RequestContext, filters: dict[str, str], limit: int, marker: str | None = None
    ) -> dict[str, Any]:
        """Return ``{events: [HistoryEvent.to_primitive()], has_more}``, newest first.

        ``filters``: ``server``, ``project_id``, ``user_id``, ``host``, ``client``, ``kind``, ``session``, and ``since``
        and ``until`` in ISO 8601 with offset. ``marker``: the id of the last event of the page before.

        :raises RequestInvalid: when a filter, the limit or the marker is not valid.
        :raises HistoryUnavailable: when the history cannot be read now.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
            raise errors.RequestInvalid(f"Invalid input for limit: it must be a number from 1 to {MAX_LIMIT}.")
        if not isinstance(filters, dict):
            raise errors.RequestInvalid("filters is not an object")
        events, has_more = self._store.find_events(Filters.from_primitive(filters), limit, marker)
        return {"events": [event.to_primitive() for event in events], "has_more": has_more}

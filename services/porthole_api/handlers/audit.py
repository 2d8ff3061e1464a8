# SPDX-License-Identifier: Apache-2.0
"""GET /porthole/v1/audit: what happened at the consoles, newest first.

Why through consoleauth: the database is its alone. Called through the URL table.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import webob

from porthole_api import paging
from porthole_api.policies import audit as rules
from porthole_api.policy import Policy
from porthole_api.request import Request, build_json
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.history.event import EventKind, HistoryEvent

PATH = "/porthole/v1/audit"
FILTERS = ("server", "project_id", "user_id", "host", "client", "kind", "session", "since", "until")
_KNOWN = {*FILTERS, "limit", "marker"}
_AWAY = "it cannot be read now"


class EventLister(Protocol):
    """The part of :class:`porthole_consoleauth.rpcapi.ConsoleAuthAPI` that is used here."""

    def list_events(  # noqa: D102
        self, context: RequestContext, filters: dict[str, str], limit: int, marker: str | None = None
    ) -> tuple[list[HistoryEvent], bool]: ...


@dataclass(frozen=True)
class AuditHandler:
    """Answers questions about the history, as far as the policy allows it."""

    consoleauth: EventLister
    policy: Policy

    def handle_list(self, request: Request) -> webob.Response:
        """Return ``{"audit": [event], "audit_links"?: [next]}``."""
        pairs = request.parse_query_pairs()
        query = dict(pairs)
        _check_names(query, len(pairs))
        filters = {name: query[name] for name in FILTERS if name in query}
        sees_all = self._restrict(request.context, filters)
        try:
            events, has_more = self.consoleauth.list_events(
                request.context, filters, paging.parse_limit(query.get("limit", "0")), query.get("marker")
            )
        except errors.HistoryUnavailable as exc:
            # The reason may quote the database, with its address.
            raise exc if sees_all else errors.HistoryUnavailable(_AWAY) from None
        body: dict[str, Any] = {"audit": [build_event(event, sees_all) for event in events]}
        if has_more:
            body["audit_links"] = paging.build_next(f"{request.root_url}{PATH}", pairs, events[-1].id)
        return build_json(body)

    def _restrict(self, context: RequestContext, filters: dict[str, str]) -> bool:
        """Restrict the filters to the user's project; return whether the user sees all projects.

        :raises PolicyForbidden: when the user may see no history, or asks for another project's or for a host's.
        """
        if self.policy.allows(context, rules.INDEX_ALL_PROJECTS):
            return True
        self.policy.authorize(context, rules.INDEX)
        is_foreign = filters.get("project_id", context.project_id) != context.project_id
        if is_foreign or "host" in filters or context.project_id is None:
            raise errors.PolicyForbidden(rules.INDEX_ALL_PROJECTS)
        filters["project_id"] = context.project_id
        return False


def build_event(event: HistoryEvent, sees_all: bool) -> dict[str, Any]:
    """Return an event as the API shows it; proxies and compute hosts are for administrators."""
    shown: dict[str, Any] = {
        "id": event.id,
        "at": event.at.isoformat(),
        "kind": str(event.kind),
        "server": {"id": event.instance_uuid} if event.instance_uuid else None,
        "session": {"id": event.session_id} if event.session_id else None,
        "type": event.console_type,
        "mode": event.mode,
        "user_id": event.user_id,
        "project_id": event.project_id,
        "client": {"address": event.client} if event.client else None,
        "by": event.by,
        "code": event.code,
        "reason": event.reason,
        "bytes_to_client": event.bytes_to_client,
        "bytes_from_client": event.bytes_from_client,
        "opened_at": event.opened_at.isoformat() if event.opened_at else None,
        "request_id": event.request_id,
    }
    return shown | ({"proxy": event.proxy, "compute_host": event.compute_host} if sees_all else {})


def _check_names(query: dict[str, str], count: int) -> None:
    unknown = sorted(query.keys() - _KNOWN)
    if unknown:
        raise errors.RequestInvalid(f"There is no query parameter {unknown[0][:64]!r}.")
    if count != len(query):
        raise errors.RequestInvalid("A query parameter is given twice.")
    if "kind" in query and query["kind"] not in set(EventKind):
        raise errors.RequestInvalid(f"Invalid input for kind: it must be one of {', '.join(sorted(EventKind))}.")

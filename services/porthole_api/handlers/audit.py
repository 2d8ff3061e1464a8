# SPDX-License-Identifier: Apache-2.0
"""GET /porthole/v1/audit: what happened at the consoles, newest first.

Why through consoleauth: the database is its alone. Called through the URL table.
"""

from dataclasses import dataclass
from typing import Any

import webob

from porthole_api import paging
from porthole_api.handlers.project_lists import EventLister, ListRules, list_events, read_query
from porthole_api.policies import audit as rules
from porthole_api.policy import Policy
from porthole_api.request import Request, build_json
from porthole_common import errors
from porthole_common.history.event import EventKind, HistoryEvent

PATH = "/porthole/v1/audit"
FILTERS = ("server", "project_id", "user_id", "host", "client", "kind", "session", "since", "until")
_KNOWN = {*FILTERS, "limit", "marker"}


_RULES = ListRules(rules.INDEX, rules.INDEX_ALL_PROJECTS)


@dataclass(frozen=True)
class AuditHandler:
    """Answers questions about the history, as far as the policy allows it."""

    consoleauth: EventLister
    policy: Policy

    def handle_list(self, request: Request) -> webob.Response:
        """Return ``{"audit": [event], "audit_links"?: [next]}``."""
        pairs, query = read_query(request, _KNOWN)
        if "kind" in query and query["kind"] not in set(EventKind):
            raise errors.RequestInvalid(f"Invalid input for kind: it must be one of {', '.join(sorted(EventKind))}.")
        filters = {name: query[name] for name in FILTERS if name in query}
        sees_all = _RULES.restrict(self.policy, request.context, filters)
        limit = paging.parse_limit(query.get("limit", "0"))
        events, has_more = list_events(self.consoleauth, request.context, filters, limit, query.get("marker"), sees_all)
        body: dict[str, Any] = {"audit": [build_event(event, sees_all) for event in events]}
        if has_more:
            body["audit_links"] = paging.build_next(f"{request.root_url}{PATH}", pairs, events[-1].id)
        return build_json(body)


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

# SPDX-License-Identifier: Apache-2.0
"""Console sessions: which are open, which have ended, and how a user ends one.

Open sessions are gathered from the proxies at each request; ended ones are read from the history. Called through the
URL table.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import webob

from porthole_api import paging
from porthole_api.bodies import read_json, validate
from porthole_api.directory import Directory
from porthole_api.handlers.project_lists import EventLister, ListRules, list_events, read_query
from porthole_api.policies import sessions as rules
from porthole_api.policy import Policy
from porthole_api.request import Request, build_json
from porthole_api.schemas import load_validator
from porthole_api.servers import get_server
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.history.event import MAX_REASON_CHARS, EventKind, HistoryEvent, clean_text
from porthole_common.model import is_uuid
from porthole_common.open_session import OpenSession, SessionFilter, check_marker

PATH = "/porthole/v1/sessions"
STATES = ("active", "ended")
FILTERS = ("server", "project_id", "user_id", "host", "client", "since", "until")
_KNOWN = {*FILTERS, "state", "limit", "marker"}
_RULES = ListRules(rules.INDEX, rules.INDEX_ALL_PROJECTS)
_END_SESSION = load_validator("end_session")
# The word for a proxy that does not answer, for users who may not see the names of proxies.
_HIDDEN = "a console proxy"


class SessionGatherer(Protocol):
    """The part of :class:`porthole_api.proxies.ProxySessions` that is used here."""

    def list_sessions(  # noqa: D102
        self, context: RequestContext, asked: SessionFilter, limit: int, marker: str | None = None
    ) -> tuple[list[OpenSession], bool, list[str]]: ...

    def end_sessions(  # noqa: D102
        self, context: RequestContext, asked: SessionFilter, reason: str, proxy: str | None = None
    ) -> tuple[int, list[str]]: ...


class ConsoleAuth(EventLister, Protocol):
    """The part of :class:`porthole_consoleauth.rpcapi.ConsoleAuthAPI` that is used here."""

    def delete_tokens_for_instance(self, context: RequestContext, instance_uuid: str) -> int: ...  # noqa: D102


@dataclass(frozen=True)
class SessionsHandler:
    """Answers questions about sessions and ends them, as far as the policy allows it."""

    sessions: SessionGatherer
    consoleauth: ConsoleAuth
    directory: Directory
    policy: Policy

    def handle_list(self, request: Request) -> webob.Response:
        """GET: ``{"sessions": [session], "unreachable": [proxy], "sessions_links"?: [next]}``, newest first.

        ``unreachable``: the processes of the proxy that did not answer; their sessions are missing.
        """
        pairs, query = read_query(request, _KNOWN)
        state = query.get("state", STATES[0])
        if state not in STATES:
            raise errors.RequestInvalid(f"Invalid input for state: it must be one of {', '.join(STATES)}.")
        filters = {name: query[name] for name in FILTERS if name in query}
        sees_all = _RULES.restrict(self.policy, request.context, filters)
        limit = paging.parse_limit(query.get("limit", "0"))
        list_page = self._list_ended if state == "ended" else self._list_active
        sessions, marker, unreachable = list_page(request.context, filters, limit, query.get("marker"), sees_all)
        body: dict[str, Any] = {"sessions": sessions, "unreachable": unreachable}
        if marker is not None:
            body["sessions_links"] = paging.build_next(f"{request.root_url}{PATH}", pairs, marker)
        return build_json(body)

    def handle_show(self, request: Request) -> webob.Response:
        """GET of one: ``{"session": session}``, while it is open."""
        session = self._find(request.context, request.url_arguments["id"], rules.SHOW)
        sees_all = self.policy.allows(request.context, rules.INDEX_ALL_PROJECTS)
        return build_json({"session": self._build_active(session, sees_all)})

    def handle_end(self, request: Request) -> webob.Response:
        """DELETE of one, with ``{"reason"}`` or without a body: 204. Its client is told who ended it, and why."""
        reason = _read_reason(request)
        session = self._find(request.context, request.url_arguments["id"], rules.END)
        count, unreachable = self.sessions.end_sessions(
            request.context, SessionFilter({"session": session.id}), reason, session.proxy
        )
        if not count and unreachable:
            # Its proxy has answered a moment ago, and is silent now.
            raise errors.RpcUnavailable("novncproxy", "end_sessions")
        return webob.Response(status=204, content_type=None)

    def handle_end_all(self, request: Request) -> webob.Response:
        """DELETE of a server's sessions: ``{"ended", "revoked", "unreachable"}``; its URLs open nothing any more.

        Sessions at a proxy that did not answer end too, by the revocation of their URLs.
        """
        reason = _read_reason(request)
        located = get_server(self.directory, request.context, request.url_arguments["id"])
        self.policy.authorize(request.context, rules.END_ALL, located.instance)
        uuid = located.instance.uuid
        try:
            ended, unreachable = self.sessions.end_sessions(request.context, SessionFilter({"server": uuid}), reason)
        finally:
            # The clients see the words of the first step. The revocation ends what that step did not reach.
            revoked = self.consoleauth.delete_tokens_for_instance(request.context, uuid)
        sees_all = self.policy.allows(request.context, rules.INDEX_ALL_PROJECTS)
        return build_json({"ended": ended, "revoked": revoked, "unreachable": _name(unreachable, sees_all)})

    def _list_active(
        self, context: RequestContext, filters: dict[str, str], limit: int, marker: str | None, sees_all: bool
    ) -> tuple[list[dict[str, Any]], str | None, list[str]]:
        """Return a page, the marker of the next one if there is one, and the proxies that did not answer."""
        # Checked here, since without a proxy nobody else would check them.
        asked = SessionFilter.from_primitive(filters)
        after = None if marker is None else check_marker(marker)
        found, has_more, unreachable = self.sessions.list_sessions(context, asked, limit, after)
        shown = [self._build_active(session, sees_all) for session in found]
        return shown, found[-1].id if has_more else None, _name(unreachable, sees_all)

    def _list_ended(
        self, context: RequestContext, filters: dict[str, str], limit: int, marker: str | None, sees_all: bool
    ) -> tuple[list[dict[str, Any]], str | None, list[str]]:
        wanted = {**filters, "kind": str(EventKind.SESSION_CLOSED)}
        events, has_more = list_events(self.consoleauth, context, wanted, limit, marker, sees_all)
        shown = [self._build_ended(event, sees_all) for event in events]
        return shown, events[-1].id if has_more else None, []

    def _find(self, context: RequestContext, session_id: str, rule: str) -> OpenSession:
        """Return the open session.

        :raises SessionNotFound: when it is not open, or belongs to another project.
        :raises PolicyForbidden: when the user may see it, but not do this.
        :raises RpcUnavailable: when it is not found, and a proxy does not answer.
        """
        sees_all = self.policy.allows(context, rules.INDEX_ALL_PROJECTS)
        if not sees_all:
            # Before anybody is asked: of another project the user sees no session.
            self.policy.authorize(context, rule)
        if not is_uuid(session_id):
            raise errors.SessionNotFound(session_id[:36])
        found, _has_more, unreachable = self.sessions.list_sessions(context, SessionFilter({"session": session_id}), 1)
        if not found and unreachable:
            raise errors.RpcUnavailable("novncproxy", "list_sessions")
        is_own = bool(found) and context.project_id is not None and found[0].project_id == context.project_id
        if not found or found[0].id != session_id or not (sees_all or is_own):
            raise errors.SessionNotFound(session_id)
        # Whoever sees all sessions may not end all of them.
        self.policy.authorize(context, rule, found[0])
        return found[0]

    def _build_active(self, session: OpenSession, sees_all: bool) -> dict[str, Any]:
        return self._build(session, session.id, sees_all) | {
            "client": {"address": session.client, "user_agent": session.user_agent},
            "opened_at": session.opened_at.isoformat(),
            "last_input_at": session.last_input_at.isoformat() if session.last_input_at else None,
            "ended_at": None,
            "end": None,
        }

    def _build_ended(self, event: HistoryEvent, sees_all: bool) -> dict[str, Any]:
        return self._build(event, event.session_id, sees_all) | {
            "client": {"address": event.client, "user_agent": None},
            "opened_at": event.opened_at.isoformat() if event.opened_at else None,
            "last_input_at": None,
            "ended_at": event.at.isoformat(),
            "end": {"code": event.code, "reason": event.reason, "by": event.by},
        }

    def _find_name(self, source: OpenSession | HistoryEvent, sees_all: bool) -> str | None:
        """Return the name of the server, for display; None when it is not known now, or is another project's now."""
        try:
            located = self.directory.get(source.instance_uuid) if source.instance_uuid else None
        except (errors.NotFound, errors.Unavailable):
            return None
        if located is None or not (sees_all or located.instance.project_id == source.project_id):
            return None
        return located.instance.name

    def _build(self, source: OpenSession | HistoryEvent, session_id: str | None, sees_all: bool) -> dict[str, Any]:
        """Return what open and ended sessions have in common; proxies and compute hosts are for administrators."""
        shown = {
            "id": session_id,
            "server": {"id": source.instance_uuid, "name": self._find_name(source, sees_all)},
            "type": source.console_type,
            "mode": source.mode,
            "user_id": source.user_id,
            "project_id": source.project_id,
            "bytes_to_client": source.bytes_to_client,
            "bytes_from_client": source.bytes_from_client,
        }
        return shown | ({"proxy": source.proxy, "compute_host": source.compute_host} if sees_all else {})


def _read_reason(request: Request) -> str:
    if not request.content_length and "HTTP_TRANSFER_ENCODING" not in request.environ:
        return ""
    body = read_json(request)
    validate(body, _END_SESSION)
    return clean_text(body.get("reason", ""), MAX_REASON_CHARS)


def _name(unreachable: list[str], sees_all: bool) -> list[str]:
    return unreachable if sees_all else [_HIDDEN] * len(unreachable)

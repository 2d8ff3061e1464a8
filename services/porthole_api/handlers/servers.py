# SPDX-License-Identifier: Apache-2.0
"""GET servers: the list, with and without details, and one server.

Why: clients find a server by name or id before they ask for its console. Called through the URL table.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import zip_longest

import webob
from oslo_utils import strutils

from porthole_api import paging
from porthole_api.directory import Directory, Located
from porthole_api.policies import servers as rules
from porthole_api.policy import Policy
from porthole_api.request import Request, build_json, build_json_text
from porthole_api.server_body import View
from porthole_api.servers import HOST_SORT_KEYS, SORT_KEYS, Filters, get_server, list_servers
from porthole_common import errors

_DESCENDING = {"asc": False, "desc": True}


@dataclass(frozen=True)
class ServersHandler:
    """Answers requests for servers from the directory, as far as the policy allows it."""

    directory: Directory
    policy: Policy

    def handle_list(self, request: Request) -> webob.Response:
        """GET /servers: ``{"servers": [{id, name, links}], "servers_links"?: [next]}``."""
        filters = self._get_filters(request, rules.INDEX, rules.INDEX_ALL_TENANTS)
        return self._list(request, filters, "/servers", _get_view(request).encode_brief)

    def handle_list_details(self, request: Request) -> webob.Response:
        """GET /servers/detail: the same with all keys."""
        filters = self._get_filters(request, rules.DETAIL, rules.DETAIL_ALL_TENANTS)
        return self._list(request, filters, "/servers/detail", _get_view(request).encode_detail)

    def handle_show(self, request: Request) -> webob.Response:
        """GET /servers/{id}: ``{"server": {...}}``."""
        located = get_server(self.directory, request.context, request.url_arguments["id"])
        self.policy.authorize(request.context, rules.SHOW, located.instance)
        return build_json({"server": _get_view(request).build_shown(located)})

    def _get_filters(self, request: Request, rule: str, all_tenants_rule: str) -> Filters:
        """Return the filters of the query, as far as the user may use them.

        :raises PolicyForbidden: when the user may not have this list, the list of all projects, or this order.
        """
        context = request.context
        self.policy.authorize(context, rule)
        filters = parse_filters(request.parse_query_pairs())
        if HOST_SORT_KEYS & {key for key, _is_descending in filters.sort}:
            # As in Nova, which refuses this order to all but administrators; here the rule is that of the host filter.
            self.policy.authorize(context, rules.ALLOW_ALL_FILTERS)
        # A user without a project can only list all projects.
        if filters.all_projects or context.project_id is None:
            self.policy.authorize(context, all_tenants_rule)
            filters = replace(filters, all_projects=True)
        else:
            # As in Nova: project_id counts only together with all_tenants.
            filters = replace(filters, project_id=None)
        return filters if self.policy.allows(context, rules.ALLOW_ALL_FILTERS) else replace(filters, host=None)

    def _list(self, request: Request, filters: Filters, path: str, encode: Callable[[Located], str]) -> webob.Response:
        page, has_more = list_servers(self.directory, request.context, filters)
        parts = [f'"servers": [{",".join(map(encode, page))}]']
        if has_more:
            url = f"{request.base_url}{path}"
            links = paging.build_next(url, request.parse_query_pairs(), page[-1].instance.uuid)
            parts.append(f'"servers_links": {json.dumps(links)}')
        return build_json_text(f"{{{', '.join(parts)}}}")


def parse_filters(pairs: paging.Query) -> Filters:
    """Return the filters that the query asks for.

    ``name``, ``status``, ``host``, ``all_tenants``, ``project_id`` or ``tenant_id``, ``marker``, ``limit``, and any
    number of ``sort_key`` and ``sort_dir``: Nova's names (compute API reference, "List Servers"). Other parameters are
    ignored, as in Nova before 2.75.

    :raises RequestInvalid: when the limit is not a number from 0 up, or another value is unknown.
    """
    query = dict(pairs)
    limit = paging.parse_limit(query.get("limit", "0"))
    return Filters(
        name=query.get("name"),
        status=query["status"].upper() if query.get("status") else None,
        host=query.get("host"),
        project_id=query.get("project_id", query.get("tenant_id")),
        all_projects=_parse_all_tenants(query.get("all_tenants")),
        marker=query.get("marker"),
        limit=limit,
        sort=_parse_sort(pairs),
    )


def _parse_all_tenants(text: str | None) -> bool:
    try:
        # A parameter without a value counts as true.
        return text == "" or (text is not None and bool(strutils.bool_from_string(text, strict=True)))
    except ValueError:
        raise _refuse("all_tenants", "it must be true or false") from None


def _parse_sort(pairs: paging.Query) -> tuple[tuple[str, bool], ...]:
    """Return pairs of (key, whether descending). As in Nova, the default key is created_at, the default way down."""
    keys = [value for name, value in pairs if name == "sort_key"]
    directions = [value for name, value in pairs if name == "sort_dir"]
    if not set(keys) <= SORT_KEYS:
        raise _refuse("sort_key", f"it must be one of {', '.join(sorted(SORT_KEYS))}")
    if not set(directions) <= _DESCENDING.keys():
        raise _refuse("sort_dir", "it must be asc or desc")
    if len(directions) > max(len(keys), 1):
        raise _refuse("sort_dir", "it is given more often than sort_key")
    if directions and not keys:
        keys = ["created_at"]
    return tuple((key, _DESCENDING[way]) for key, way in zip_longest(keys, directions, fillvalue="desc"))


def _refuse(parameter: str, reason: str) -> errors.RequestInvalid:
    return errors.RequestInvalid(f"Invalid input for query parameter {parameter}: {reason}.")


def _get_view(request: Request) -> View:
    return View(request.microversion, bool(request.context.is_admin), request.base_url, request.bookmark_url)

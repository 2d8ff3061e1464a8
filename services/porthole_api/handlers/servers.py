# SPDX-License-Identifier: Apache-2.0
"""GET servers: the list, with and without details, and one server.

Why: clients look a server up by name or id before they ask for its console. Called through the URL table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import webob

from porthole_api.directory import Directory, Located
from porthole_api.microversions import Version
from porthole_api.request import Request, build_json
from porthole_api.server_body import build_brief, build_detail, build_shown
from porthole_api.servers import MAX_LIMIT, Filters, get_server, list_servers
from porthole_common import errors

_MAX_LIMIT_DIGITS = 9


@dataclass(frozen=True)
class ServersHandler:
    """Answers for servers out of the directory."""

    directory: Directory

    def handle_list(self, request: Request) -> webob.Response:
        """GET /servers: ``{"servers": [{id, name, links}], "servers_links"?: [next]}``."""
        urls = request.base_url, request.bookmark_url
        return self._list(request, "/servers", lambda located: build_brief(located, *urls))

    def handle_list_details(self, request: Request) -> webob.Response:
        """GET /servers/detail: the same with all keys."""
        view = _get_view(request)
        return self._list(request, "/servers/detail", lambda located: build_detail(located, *view))

    def handle_show(self, request: Request) -> webob.Response:
        """GET /servers/{id}: ``{"server": {...}}``."""
        located = get_server(self.directory, request.context, request.url_arguments["id"])
        return build_json({"server": build_shown(located, *_get_view(request))})

    def _list(self, request: Request, path: str, build: Callable[[Located], dict[str, Any]]) -> webob.Response:
        query = request.parse_query()
        page, has_more = list_servers(self.directory, request.context, parse_filters(query))
        body: dict[str, Any] = {"servers": [build(located) for located in page]}
        if has_more:
            after = urlencode({**query, "marker": page[-1].instance.uuid})
            body["servers_links"] = [{"rel": "next", "href": f"{request.base_url}{path}?{after}"}]
        return build_json(body)


def parse_filters(query: dict[str, str]) -> Filters:
    """Return the filters that the query asks for: ``name``, ``status``, ``marker``, ``limit``.

    Nova's names (compute API reference, "List Servers"); others are passed over, as Nova does it below 2.75.

    A limit of 0, or above MAX_LIMIT, is MAX_LIMIT.

    :raises RequestInvalid: when the limit is not a number from 0 up.
    """
    limit = query.get("limit", "0")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= _MAX_LIMIT_DIGITS):
        raise errors.RequestInvalid("Invalid input for query parameter limit: it must be a number from 0 up.")
    return Filters(
        name=query.get("name"),
        status=query["status"].upper() if query.get("status") else None,
        marker=query.get("marker"),
        limit=min(int(limit) or MAX_LIMIT, MAX_LIMIT),
    )


def _get_view(request: Request) -> tuple[Version, bool, str, str]:
    """Return what a body depends on besides the server: the last arguments of :func:`build_detail`."""
    return request.microversion, bool(request.context.is_admin), request.base_url, request.bookmark_url

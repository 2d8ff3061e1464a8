# SPDX-License-Identifier: Apache-2.0
"""A request as the handlers see it, its query, and JSON answers.

Why: the results of the middleware (user, microversion, parts of the URL) travel in the WSGI environment, so that other
WSGI middleware can stand in between; here they get names and types. Called by the middleware, the URL table and every
handler.
"""

import json
from typing import Any
from urllib.parse import parse_qsl

import webob

from porthole_api.microversions import MIN_VERSION, Version
from porthole_common import errors
from porthole_common.context import RequestContext

CONTEXT = "porthole.context"
MICROVERSION = "porthole.microversion"
URL_ARGUMENTS = "porthole.url_arguments"
ROUTE = "porthole.route"
# [api] public_endpoint; without it, links use the request's Host and the headers of trusted proxies.
PUBLIC_ENDPOINT = "porthole.public_endpoint"
# Far more than any client sends; it guards the time to parse.
_MAX_QUERY_FIELDS = 100


class Request(webob.Request):  # type: ignore[misc]
    """webob's request, with the values that the middleware put into the environment."""

    @property
    def context(self) -> RequestContext:
        """The user and the request id."""
        context: RequestContext = self.environ[CONTEXT]
        return context

    @property
    def microversion(self) -> Version:
        """The microversion of the answer."""
        version: Version = self.environ.get(MICROVERSION, MIN_VERSION)
        return version

    @property
    def url_arguments(self) -> dict[str, str]:
        """The variable parts of the path, by their names in the URL table."""
        arguments: dict[str, str] = self.environ.get(URL_ARGUMENTS, {})
        return arguments

    @property
    def root_url(self) -> str:
        """The URL of the whole API, as the client sees it; without a final slash."""
        url: str = self.environ.get(PUBLIC_ENDPOINT) or self.application_url
        return url.rstrip("/")

    @property
    def base_url(self) -> str:
        """The URL of the versioned API for this request; without a final slash."""
        project_id = self.url_arguments.get("project_id")
        return f"{self.root_url}/v2.1/{project_id}" if project_id else f"{self.root_url}/v2.1"

    @property
    def bookmark_url(self) -> str:
        """``base_url`` without the version: where Nova's "bookmark" links point."""
        project_id = self.url_arguments.get("project_id")
        return f"{self.root_url}/{project_id}" if project_id else self.root_url

    def parse_query_pairs(self) -> list[tuple[str, str]]:
        """Return the query's parameters in their order.

        :raises RequestInvalid: when the query is not UTF-8, or has too many parameters.
        """
        try:
            return parse_qsl(
                self.environ.get("QUERY_STRING", ""),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_MAX_QUERY_FIELDS,
            )
        except ValueError:
            raise errors.RequestInvalid("Malformed query: not UTF-8, or too many parameters.") from None


def build_json(value: Any) -> webob.Response:
    """Return ``value`` as an answer of status 200."""
    return build_json_text(json.dumps(value))


def build_json_text(text: str) -> webob.Response:
    """Return ``text``, which is JSON, as an answer of status 200."""
    return webob.Response(body=text.encode(), content_type="application/json", charset=None)

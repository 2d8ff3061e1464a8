# SPDX-License-Identifier: Apache-2.0
"""The version documents, from which clients learn the microversions, and the API's OpenAPI document.

Why: version discovery reads exactly these fields; without ``id``, ``status`` or ``links`` openstacksdk fails, and
without ``min_version`` novaclient fails. Called through the URL table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import webob

from porthole_api.microversions import MAX_VERSION, MIN_VERSION, format_version
from porthole_api.openapi import build_document
from porthole_api.request import Request, build_json
from porthole_api.routes import Route

# The date of the latest change to what MAX_VERSION means here.
UPDATED = "2026-01-01T00:00:00Z"


def handle_list_versions(request: Request) -> webob.Response:
    """GET /: ``{"versions": [version]}``."""
    return build_json({"versions": [_build_version(request)]})


def handle_show_version(request: Request) -> webob.Response:
    """GET /v2.1 and /v2.1/: ``{"version": version}``."""
    return build_json({"version": _build_version(request)})


@dataclass(frozen=True)
class DocumentHandler:
    """Answers with the document of ``routes``; routes may be added until the first request."""

    routes: Sequence[Route]
    auth_strategy: str

    def handle_show_document(self, request: Request) -> webob.Response:
        """GET /v2.1/openapi.json: OpenAPI 3.1, of the request's microversion."""
        url = request.root_url
        return build_json(build_document(self.routes, request.microversion, url, self.auth_strategy))


def _build_version(request: Request) -> dict[str, Any]:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": format_version(MAX_VERSION),
        "min_version": format_version(MIN_VERSION),
        "updated": UPDATED,
        "links": [{"rel": "self", "href": f"{request.base_url}/"}],
    }

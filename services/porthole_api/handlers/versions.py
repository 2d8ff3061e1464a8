# SPDX-License-Identifier: Apache-2.0
"""The version documents, by which clients find out what they can ask for.

Why: discovery reads these fields and no others; without ``id``, ``status`` or ``links`` openstacksdk fails, and
without ``min_version`` novaclient does. Called through the URL table.
"""

from typing import Any

import webob

from porthole_api.microversions import MAX_VERSION, MIN_VERSION, format_version
from porthole_api.request import Request, build_json

# The date of the latest change to what MAX_VERSION means here.
UPDATED = "2026-01-01T00:00:00Z"


def handle_list_versions(request: Request) -> webob.Response:
    """GET /: ``{"versions": [version]}``."""
    return build_json({"versions": [_build_version(request)]})


def handle_show_version(request: Request) -> webob.Response:
    """GET /v2.1 and /v2.1/: ``{"version": version}``."""
    return build_json({"version": _build_version(request)})


def _build_version(request: Request) -> dict[str, Any]:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": format_version(MAX_VERSION),
        "min_version": format_version(MIN_VERSION),
        "updated": UPDATED,
        "links": [{"rel": "self", "href": f"{request.base_url}/"}],
    }

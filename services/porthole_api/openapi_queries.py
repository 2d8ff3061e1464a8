# SPDX-License-Identifier: Apache-2.0
"""The query parameters of the lists, for the OpenAPI document (:mod:`porthole_api.openapi`). Pure."""

from typing import Any

from porthole_api.handlers import sessions
from porthole_api.paging import LARGEST_LIMIT, MAX_LIMIT
from porthole_api.schemas import answers
from porthole_api.schemas.answers import Schema
from porthole_api.servers import MAX_NAME_LENGTH, SORT_KEYS
from porthole_common.history.event import EventKind

_TEXT: Schema = {"type": "string"}
_ID: Schema = {"type": "string", "pattern": answers.UUID_PATTERN}


def _build_parameter(name: str, schema: Schema, description: str, **more: Any) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description, **more}


_LIMIT = _build_parameter("limit", {"type": "integer", "minimum": 0, "maximum": LARGEST_LIMIT}, f"At most {MAX_LIMIT}.")
LIST_SERVERS = (
    _build_parameter(
        "name", {"type": "string", "maxLength": MAX_NAME_LENGTH}, "Text, or a regular expression of RE2's dialect."
    ),
    _build_parameter("status", _TEXT, "Such as ACTIVE; in capitals or not."),
    _build_parameter("host", _TEXT, "The compute host. For administrators; ignored for other users."),
    _build_parameter("all_tenants", {"enum": ["0", "1", "false", "true"]}, "The servers of all projects."),
    _build_parameter("project_id", _TEXT, "With all_tenants: the servers of this project."),
    _build_parameter("tenant_id", _TEXT, "The same, by its old name."),
    _LIMIT,
    _build_parameter("marker", _ID, "The last server of the page before."),
    _build_parameter(
        "sort_key",
        {"type": "array", "items": {"enum": sorted(SORT_KEYS)}},
        "May be repeated. host and node are for administrators.",
        style="form",
        explode=True,
    ),
    _build_parameter(
        "sort_dir",
        {"type": "array", "items": {"enum": ["asc", "desc"]}},
        "One for each sort_key, in their order; desc if one is missing.",
        style="form",
        explode=True,
    ),
)
_SHORT_TEXT: Schema = {"type": "string", "maxLength": 255}
_MOMENT: Schema = {"type": "string", "format": "date-time"}
LIST_AUDIT = (
    _build_parameter("server", _SHORT_TEXT, "The id of a server."),
    _build_parameter("project_id", _SHORT_TEXT, "Another than the user's own is for administrators."),
    _build_parameter("user_id", _SHORT_TEXT, "The user of the token."),
    _build_parameter("host", _SHORT_TEXT, "The compute host; for administrators."),
    _build_parameter("client", _SHORT_TEXT, "The address of the client."),
    _build_parameter("kind", {"enum": sorted(map(str, EventKind))}, "What happened."),
    _build_parameter("session", _SHORT_TEXT, "The id of a session."),
    _build_parameter("since", _MOMENT, "With its offset; included."),
    _build_parameter("until", _MOMENT, "With its offset; not included."),
    _LIMIT,
    _build_parameter("marker", _ID, "The last event of the page before."),
)
LIST_SESSIONS = (
    _build_parameter("state", {"enum": list(sessions.STATES)}, "active, the default: open now; ended: in the history."),
    _build_parameter("server", _SHORT_TEXT, "The id of a server."),
    _build_parameter("project_id", _SHORT_TEXT, "Another than the user's own is for administrators."),
    _build_parameter("user_id", _SHORT_TEXT, "The user of the token."),
    _build_parameter("host", _SHORT_TEXT, "The compute host; for administrators."),
    _build_parameter("client", _SHORT_TEXT, "The address of the client."),
    _build_parameter("since", _MOMENT, "With its offset; included. Of the opening, or of the end."),
    _build_parameter("until", _MOMENT, "With its offset; not included."),
    _LIMIT,
    _build_parameter("marker", _ID, "What the link to this page says."),
)

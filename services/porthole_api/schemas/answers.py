# SPDX-License-Identifier: Apache-2.0
"""The JSON schemas of answers, at every microversion: what :mod:`porthole_api.openapi` publishes.

Why: clients for Nova refuse keys of a later microversion, and need all keys of their own. With ``additionalProperties``
false a schema lists exactly these keys (compute API reference and its microversion history). Tests check the answers
against the schemas. Pure.
"""

from typing import Any

from porthole_api.microversions import MAX_VERSION, MIN_VERSION, Version, format_version

Schema = dict[str, Any]

# The header that says when the URL of an answer expires: ISO 8601, with the offset.
EXPIRES_AT = "Porthole-Expires-At"
UUID_PATTERN = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_TIME_PATTERN = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$"
_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_NULL: Schema = {"type": "null"}
_UUID: Schema = {"type": "string", "pattern": UUID_PATTERN}
_TIME: Schema = {"type": "string", "pattern": _TIME_PATTERN}
_URL: Schema = {"type": "string", "pattern": "^https?://"}
_EMPTY_TEXT: Schema = {"const": ""}
_EMPTY_OBJECT: Schema = {"type": "object", "maxProperties": 0}
_SIZE: Schema = {"type": "integer", "minimum": 0}
_SIZE_OR_NULL: Schema = {"type": ["integer", "null"], "minimum": 0}
_STATUSES = ["ACTIVE", "BUILD", "ERROR", "MIGRATING", "PAUSED", "SHUTOFF", "SUSPENDED", "UNKNOWN"]
# What each microversion added to a server.
_SERVER_ADDED: tuple[tuple[Version, str, Schema], ...] = (
    ((2, 9), "locked", {"const": False}),
    ((2, 19), "description", _NULL),
    ((2, 26), "tags", {"type": "array", "maxItems": 0}),
    ((2, 63), "trusted_image_certificates", _NULL),
    ((2, 73), "locked_reason", _NULL),
    ((2, 96), "pinned_availability_zone", _NULL),
)


def build_object(properties: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """Return the schema of an object with exactly these properties; those of ``optional`` may be missing."""
    return {
        "type": "object",
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
        "additionalProperties": False,
    }


def build_version() -> Schema:
    """Return the schema of the version document's ``version``."""
    return build_object(
        {
            "id": {"const": "v2.1"},
            "status": {"const": "CURRENT"},
            "version": {"const": format_version(MAX_VERSION)},
            "min_version": {"const": format_version(MIN_VERSION)},
            "updated": _TIME,
            "links": _build_links("self"),
        }
    )


def build_brief_server() -> Schema:
    """Return the schema of a server in a list without details."""
    return build_object(_build_brief())


def build_server(version: Version, is_shown: bool = False) -> Schema:
    """Return the schema of a server with details; a single server (``is_shown``) has ``server_groups`` since 2.71."""
    properties = {
        **_build_brief(),
        "status": {"enum": _STATUSES},
        "tenant_id": _TEXT,
        "user_id": _TEXT,
        "metadata": _EMPTY_OBJECT,
        "hostId": _EMPTY_TEXT,
        "image": _EMPTY_TEXT,
        "flavor": _build_flavor(version),
        "created": _TIME,
        "updated": _TIME,
        "addresses": _EMPTY_OBJECT,
        "OS-EXT-STS:task_state": {"enum": [None, "spawning", "migrating", "deleting"]},
        **{key: schema for since, key, schema in _SERVER_ADDED if version >= since},
    }
    if is_shown and version >= (2, 71):
        properties["server_groups"] = {"type": "array", "maxItems": 0}
    # A server whose host is silent has no states.
    optional: dict[str, Schema] = {
        "OS-EXT-STS:vm_state": {"enum": ["active", "building", "error", "paused", "stopped", "suspended"]},
        "OS-EXT-STS:power_state": {"enum": [0, 1, 3, 4, 6, 7]},
    }
    # Only administrators see hosts.
    optional |= dict.fromkeys(
        [f"OS-EXT-SRV-ATTR:{key}" for key in ("host", "hypervisor_hostname", "instance_name")], _TEXT
    )
    if version >= (2, 16):
        optional["host_status"] = {"enum": ["UP", "UNKNOWN"]}
    return build_object(properties, optional)


def build_server_list(server: Schema) -> Schema:
    """Return the schema of a page of servers."""
    return build_object(
        {"servers": {"type": "array", "items": server}}, optional={"servers_links": _build_links("next")}
    )


def build_console(types: list[str]) -> Schema:
    """Return the schema of the answer of os-getVNCConsole."""
    return build_object({"console": build_object({"type": {"enum": types}, "url": _URL})})


def build_remote_console(types: list[str]) -> Schema:
    """Return the schema of the answer of remote-consoles."""
    console = build_object({"protocol": {"const": "vnc"}, "type": {"enum": types}, "url": _URL})
    return build_object({"remote_console": console})


def build_created_console(types: list[str]) -> Schema:
    """Return the schema of the answer of Porthole's own consoles route."""
    console = {
        "type": {"enum": types},
        "mode": {"enum": ["control", "view"]},
        "url": _URL,
        "uses": {"type": ["integer", "null"], "minimum": 1},
        "expires_at": _TEXT,
    }
    return build_object({"console": build_object(console)})


def build_audit(kinds: list[str]) -> Schema:
    """Return the schema of a page of the history."""
    event: dict[str, Schema] = {
        "id": _UUID,
        "at": _TEXT,
        "kind": {"enum": kinds},
        "server": {"oneOf": [_NULL, build_object({"id": _UUID})]},
        "session": {"oneOf": [_NULL, build_object({"id": _UUID})]},
        "client": {"oneOf": [_NULL, build_object({"address": _TEXT})]},
    }
    texts = ("type", "mode", "user_id", "project_id", "by", "reason", "opened_at", "request_id")
    event |= {name: {"type": ["string", "null"]} for name in texts}
    event |= dict.fromkeys(("code", "bytes_to_client", "bytes_from_client"), _SIZE_OR_NULL)
    # Only administrators see proxies and hosts.
    hosts: dict[str, Schema] = {name: {"type": ["string", "null"]} for name in ("proxy", "compute_host")}
    return build_object(
        {"audit": {"type": "array", "items": build_object(event, hosts)}},
        optional={"audit_links": _build_links("next")},
    )


def build_session(types: list[str]) -> Schema:
    """Return the schema of a console session, open or ended."""
    end = {"code": _SIZE_OR_NULL, "reason": _TEXT_OR_NULL, "by": _TEXT_OR_NULL}
    session: dict[str, Schema] = {
        "id": _UUID,
        "server": build_object({"id": _UUID, "name": _TEXT_OR_NULL}),
        # The history may have events of an older proxy.
        "type": {"enum": [*types, None]},
        "mode": {"enum": ["control", "view", None]},
        "client": build_object({"address": _TEXT_OR_NULL, "user_agent": _TEXT_OR_NULL}),
        "end": {"oneOf": [_NULL, build_object(end)]},
    }
    texts = ("user_id", "project_id", "opened_at", "last_input_at", "ended_at")
    session |= dict.fromkeys(texts, _TEXT_OR_NULL)
    session |= dict.fromkeys(("bytes_to_client", "bytes_from_client"), _SIZE_OR_NULL)
    # Only administrators see proxies and hosts.
    return build_object(session, dict.fromkeys(("proxy", "compute_host"), _TEXT_OR_NULL))


def build_session_list(types: list[str]) -> Schema:
    """Return the schema of a page of sessions."""
    return build_object(
        {"sessions": {"type": "array", "items": build_session(types)}, "unreachable": _TEXTS},
        optional={"sessions_links": _build_links("next")},
    )


def build_ended() -> Schema:
    """Return the schema of the answer to the end of all sessions of a server."""
    return build_object({"ended": _SIZE, "revoked": _SIZE, "unreachable": _TEXTS})


def build_connection() -> Schema:
    """Return the schema of the answer of os-console-auth-tokens."""
    connection = {
        "instance_uuid": _UUID,
        "host": _TEXT,
        "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "internal_access_path": {"type": ["string", "null"]},
    }
    return build_object({"console": build_object(connection)})


def build_fault(name: str, status: int) -> Schema:
    """Return the schema of a fault: ``{<name>: {code, message}}``."""
    return build_object({name: build_object({"code": {"const": status}, "message": _TEXT})})


def _build_brief() -> dict[str, Schema]:
    return {"id": _UUID, "name": _TEXT, "links": _build_links("self", "bookmark")}


def _build_links(*relations: str) -> Schema:
    """Return the schema of an array of one link for each of ``relations``."""
    link = build_object({"rel": {"enum": list(relations)}, "href": _URL})
    return {"type": "array", "items": link, "minItems": len(relations), "maxItems": len(relations), "uniqueItems": True}


def _build_flavor(version: Version) -> Schema:
    if version < (2, 47):
        return build_object({"id": _TEXT, "links": _build_links("bookmark")})
    sizes = dict.fromkeys(("ram", "vcpus", "disk", "ephemeral", "swap"), _SIZE)
    return build_object({"original_name": _TEXT, **sizes, "extra_specs": _EMPTY_OBJECT})

# SPDX-License-Identifier: Apache-2.0
"""The API's OpenAPI 3.1 document, built from the URL table and the schemas that check the requests.

Why it is built and not written: a route without a description is an error here, and the document always has the schemas
that are enforced. A document is for one microversion, since OpenAPI cannot describe a header that changes every body.
That header is not a parameter either: for another value, another document applies. Called by
:mod:`porthole_api.handlers.versions`. Pure.
"""

import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from porthole_api import openapi_queries as queries
from porthole_api.faults import NAMES
from porthole_api.handlers import audit, sessions
from porthole_api.microversions import HEADER, LEGACY_HEADER, MIN_VERSION, REMOTE_CONSOLES_MKS, Version, format_version
from porthole_api.routes import Route
from porthole_api.schemas import TYPES_OF_PROTOCOL, answers, load_validator
from porthole_api.schemas.answers import Schema
from porthole_common.history.event import EventKind

PATH = "/v2.1/openapi.json"
_PROJECT = "/v2.1/{project_id}/"
_CONSOLE_TYPES = list(TYPES_OF_PROTOCOL["vnc"])
_VARIABLES: dict[str, Schema] = {
    "id": {"type": "string", "pattern": answers.UUID_PATTERN},
    "token": {"type": "string", "pattern": answers.UUID_PATTERN},
    "project_id": {"type": "string", "minLength": 1},
}
_SECURITY: dict[str, Schema] = {
    "noauth": {},
    "http_basic": {"http_basic": {"type": "http", "scheme": "basic"}},
    "keystone": {"keystone": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
}


@dataclass(frozen=True)
class _Operation:
    """The description of a route. ``answer`` and ``body`` build the schemas of a microversion.

    ``answer`` is None where the answer has no body.

    ``links``: the id of a server in the answer leads to other operations.
    """

    name: str
    summary: str
    answer: Callable[[Version], Schema] | None
    faults: tuple[int, ...] = ()
    body: Callable[[Version], Schema] | None = None
    query: tuple[Schema, ...] = ()
    links: bool = False
    gives_console: bool = False
    status: int = 200
    needs_body: bool = True


def _load_schema(name: str) -> Schema:
    return deepcopy(dict(load_validator(name).schema))


def _build_remote_console_body(version: Version) -> Schema:
    """Return the schema of the request, with the types of each protocol."""
    schema = _load_schema("remote_console_2_8" if version >= REMOTE_CONSOLES_MKS else "remote_console_2_6")
    console = schema["properties"]["remote_console"]
    known = console["properties"]["protocol"]["enum"]
    console["oneOf"] = [
        {"properties": {"protocol": {"const": protocol}, "type": {"enum": list(TYPES_OF_PROTOCOL[protocol])}}}
        for protocol in known
    ]
    return schema


_TEXT: Schema = {"type": "string"}
_SECONDS = {"required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}}
_EXPIRES_AT: Schema = {
    "description": "When the URL expires.",
    "required": True,
    "schema": {"type": "string", "format": "date-time"},
}
# By method and path; the same applies below a project's id.
_OPERATIONS: dict[tuple[str, str], _Operation] = {
    ("GET", "/"): _Operation(
        "listVersions",
        "The versions of the API.",
        lambda _: answers.build_object({"versions": {"type": "array", "items": answers.build_version()}}),
    ),
    ("GET", "/v2.1"): _Operation(
        "showVersion", "The version.", lambda _: answers.build_object({"version": answers.build_version()})
    ),
    ("GET", PATH): _Operation("showDocument", "This document.", lambda _: {"type": "object"}),
    ("GET", "/v2.1/servers"): _Operation(
        "listServers",
        "A page of servers: id, name and links.",
        lambda _: answers.build_server_list(answers.build_brief_server()),
        (400, 403, 503),
        query=queries.LIST_SERVERS,
        links=True,
    ),
    ("GET", "/v2.1/servers/detail"): _Operation(
        "listServersDetail",
        "A page of servers.",
        lambda version: answers.build_server_list(answers.build_server(version)),
        (400, 403, 503),
        query=queries.LIST_SERVERS,
        links=True,
    ),
    ("GET", "/v2.1/servers/{id}"): _Operation(
        "showServer",
        "A server.",
        lambda version: answers.build_object({"server": answers.build_server(version, is_shown=True)}),
        (403, 404, 503),
    ),
    ("POST", "/v2.1/servers/{id}/action"): _Operation(
        "getVncConsole",
        "The URL of a console; at every microversion.",
        lambda _: answers.build_console(_CONSOLE_TYPES),
        (400, 403, 404, 408, 409, 429, 503),
        body=lambda _: _load_schema("get_vnc_console"),
        gives_console=True,
    ),
    ("POST", "/v2.1/servers/{id}/remote-consoles"): _Operation(
        "createRemoteConsole",
        "The URL of a console.",
        lambda _: answers.build_remote_console(_CONSOLE_TYPES),
        (400, 403, 404, 408, 409, 429, 503),
        body=_build_remote_console_body,
        gives_console=True,
    ),
    ("POST", "/porthole/v1/servers/{id}/consoles"): _Operation(
        "createConsole",
        "The URL of a console, which may be for watching only, and for a number of sessions; null is any number. "
        "Without uses and expires_in, the options of the service apply.",
        lambda _: answers.build_created_console(_CONSOLE_TYPES),
        (400, 403, 404, 408, 409, 429, 503),
        body=lambda _: _load_schema("create_console"),
        gives_console=True,
        status=201,
    ),
    ("GET", "/v2.1/os-console-auth-tokens/{token}"): _Operation(
        "showConsoleAuthToken",
        "Where the console of a token is; for administrators.",
        lambda _: answers.build_connection(),
        (403, 404, 503),
    ),
    ("GET", audit.PATH): _Operation(
        "listAudit",
        "A page of what happened at the consoles, newest first.",
        lambda _: answers.build_audit(sorted(map(str, EventKind))),
        (400, 403, 503),
        query=queries.LIST_AUDIT,
    ),
    ("GET", sessions.PATH): _Operation(
        "listSessions",
        "A page of console sessions, newest first, and the proxies that did not answer.",
        lambda _: answers.build_session_list(_CONSOLE_TYPES),
        (400, 403, 429, 503),
        query=queries.LIST_SESSIONS,
    ),
    ("GET", f"{sessions.PATH}/{{id}}"): _Operation(
        "showSession",
        "An open console session.",
        lambda _: answers.build_object({"session": answers.build_session(_CONSOLE_TYPES)}),
        (403, 404, 429, 503),
    ),
    ("DELETE", f"{sessions.PATH}/{{id}}"): _Operation(
        "endSession",
        "End a console session; its page says who did it, and why.",
        None,
        (400, 403, 404, 408, 429, 503),
        body=lambda _: _load_schema("end_session"),
        needs_body=False,
        status=204,
    ),
    ("DELETE", "/porthole/v1/servers/{id}/sessions"): _Operation(
        "endSessions",
        "End all console sessions of a server, and revoke its console URLs.",
        lambda _: answers.build_ended(),
        (400, 403, 404, 408, 429, 503),
        body=lambda _: _load_schema("end_session"),
        needs_body=False,
    ),
}


def build_document(routes: Iterable[Route], version: Version, url: str, auth_strategy: str) -> dict[str, Any]:
    """Return the document of ``version``; ``url`` is the URL of the API, as the client sees it.

    ``{openapi, info, servers, security, paths: {path: {method: operation}}, components}``.

    :raises KeyError: when one of ``routes`` has no description here.
    """
    paths: dict[str, Any] = {}
    text = format_version(version)
    for route in routes:
        # The path with the slash is the same document.
        if route.since <= version and route.path != "/v2.1/":
            paths.setdefault(route.path, {})[route.method.lower()] = _build_operation(route, version, auth_strategy)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Porthole, as microversion {text} of Nova's compute API",
            "version": text,
            "description": f"Send '{HEADER}: compute {text}' with each request; without it, answers are those of "
            f"{format_version(MIN_VERSION)}, which has a document of its own.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": url}],
        "paths": paths,
        "components": {"securitySchemes": _SECURITY[auth_strategy]},
    }


def _build_operation(route: Route, version: Version, auth_strategy: str) -> Schema:
    below_project = route.path.startswith(_PROJECT)
    said = _OPERATIONS[route.method, route.path.replace(_PROJECT, "/v2.1/", 1)]
    suffix = "OfProject" if below_project else ""
    operation: Schema = {
        "operationId": said.name + suffix,
        "summary": said.summary,
        "parameters": [*_build_variables(route), *said.query],
        "responses": _build_responses(route, said, version, auth_strategy),
        "security": [] if route.public else [{name: []} for name in _SECURITY[auth_strategy]],
    }
    if said.body:
        operation["requestBody"] = {"required": said.needs_body, "content": _build_content(said.body(version))}
    if said.links and not below_project:
        operation["responses"]["200"]["links"] = _build_links(version)
    return operation


def _build_variables(route: Route) -> list[Schema]:
    names = re.findall(r"\{(\w+)\}", route.path)
    return [{"name": name, "in": "path", "required": True, "schema": _VARIABLES[name]} for name in names]


def _build_responses(route: Route, said: _Operation, version: Version, auth_strategy: str) -> Schema:
    is_versioned = route.path.startswith("/v2.1")
    headers = _build_headers(version) if is_versioned else {}
    answer: Schema = {"description": said.summary, "headers": headers}
    if said.answer is not None:
        answer["content"] = _build_content(said.answer(version))
    if said.gives_console:
        answer["headers"] = headers | {answers.EXPIRES_AT: _EXPIRES_AT}
    faults = set(said.faults)
    if is_versioned:
        faults |= {400, 406}
    if not route.public:
        faults |= {401, 503} if auth_strategy != "noauth" else {403}
        faults |= {429} if auth_strategy == "http_basic" else set()
    if "{project_id}" in route.path:
        faults.add(400)
    return {str(said.status): answer} | {str(status): _build_fault(status, headers) for status in sorted(faults)}


def _build_fault(status: int, headers: Schema) -> Schema:
    name = NAMES.get(status, "computeFault")
    more: Schema = {
        401: {"WWW-Authenticate": {"required": True, "schema": _TEXT}},
        429: {"Retry-After": _SECONDS},
        503: {"Retry-After": _SECONDS},
    }.get(status, {})
    if status in (400, 406):
        # The answer to a refused microversion is in the oldest one.
        headers = {name: header for name, header in headers.items() if name not in (HEADER, LEGACY_HEADER)}
    return {
        "description": name,
        "headers": {**headers, **more},
        "content": _build_content(answers.build_fault(name, status)),
    }


def _build_headers(version: Version) -> Schema:
    text = format_version(version)
    values = {
        HEADER: {"const": f"compute {text}"},
        LEGACY_HEADER: {"type": "string", "pattern": f"^{re.escape(text)}$"},
        "Vary": {"const": f"{HEADER}, {LEGACY_HEADER}"},
        "x-openstack-request-id": {"type": "string", "pattern": "^req-[0-9a-f-]{36}$"},
    }
    return {name: {"required": True, "schema": schema} for name, schema in values.items()}


def _build_content(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _build_links(version: Version) -> Schema:
    """Return the operations that the id of a page's first server leads to."""
    names = [said.name for (_, path), said in _OPERATIONS.items() if "/servers/{id}" in path]
    if version < (2, 6):
        names.remove("createRemoteConsole")
    return {name: {"operationId": name, "parameters": {"id": "$response.body#/servers/0/id"}} for name in names}

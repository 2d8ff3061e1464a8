# SPDX-License-Identifier: Apache-2.0
"""The WSGI application: the URL table, and the layers around it.

From the outside in: :mod:`porthole_api.proxy_headers`, request id (oslo.middleware), ``/healthcheck``
(oslo.middleware), :class:`porthole_api.middleware.RequestLog`, the URL table, authentication, the handler. Version
documents need no authentication and skip that step. Called by :mod:`porthole_api.main`.

The parts of oslo.middleware are called one after the other. If they wrapped each other, each would build a request and
an answer of its own.
"""

from collections.abc import Iterable
from typing import Any

import webob
from oslo_config import cfg
from oslo_context import context as oslo_context
from oslo_middleware import healthcheck, request_id

from porthole_api import openapi
from porthole_api import request as request_keys
from porthole_api.auth import REQUEST_ID, WsgiApplication
from porthole_api.auth_strategy import build_authenticator
from porthole_api.consoles import ConsoleOpener
from porthole_api.handlers import versions
from porthole_api.handlers.audit import PATH as AUDIT
from porthole_api.handlers.audit import AuditHandler
from porthole_api.handlers.consoles import ConsolesHandler
from porthole_api.handlers.servers import ServersHandler
from porthole_api.handlers.sessions import PATH as SESSIONS
from porthole_api.handlers.sessions import SessionGatherer, SessionsHandler
from porthole_api.microversions import CONSOLE_AUTH_TOKENS, REMOTE_CONSOLES
from porthole_api.middleware import RequestLog, run_handler
from porthole_api.proxy_headers import ProxyHeaders
from porthole_api.request import Request
from porthole_api.routes import Route, UrlTable

HEALTHCHECK = "/healthcheck"


def build_routes(opener: ConsoleOpener, gatherer: SessionGatherer, auth_strategy: str) -> list[Route]:
    """Return all routes of the API.

    Each of Nova's routes but the version documents also exists below a project's id, as in old catalogs.
    """
    servers = ServersHandler(opener.directory, opener.policy)
    consoles = ConsolesHandler(opener)
    routes = [
        Route("GET", "/", versions.handle_list_versions, public=True),
        Route("GET", "/v2.1", versions.handle_show_version, public=True),
        Route("GET", "/v2.1/", versions.handle_show_version, public=True),
    ]
    document = versions.DocumentHandler(routes, auth_strategy)
    routes.append(Route("GET", openapi.PATH, document.handle_show_document, public=True))
    routes.append(Route("POST", "/porthole/v1/servers/{id}/consoles", consoles.handle_create))
    for base in ("/v2.1", "/v2.1/{project_id}"):
        routes += [
            Route("GET", f"{base}/servers", servers.handle_list),
            Route("GET", f"{base}/servers/detail", servers.handle_list_details),
            Route("GET", f"{base}/servers/{{id}}", servers.handle_show),
            Route("POST", f"{base}/servers/{{id}}/action", consoles.handle_action),
            Route(
                "POST",
                f"{base}/servers/{{id}}/remote-consoles",
                consoles.handle_remote_console,
                since=REMOTE_CONSOLES,
            ),
            Route(
                "GET",
                f"{base}/os-console-auth-tokens/{{token}}",
                consoles.handle_show_token,
                since=CONSOLE_AUTH_TOKENS,
            ),
        ]
    audit = AuditHandler(opener.consoleauth, opener.policy)
    sessions = SessionsHandler(gatherer, opener.consoleauth, opener.directory, opener.policy)
    routes += [
        Route("GET", AUDIT, audit.handle_list),
        Route("GET", SESSIONS, sessions.handle_list),
        Route("GET", f"{SESSIONS}/{{id}}", sessions.handle_show),
        Route("DELETE", f"{SESSIONS}/{{id}}", sessions.handle_end),
        Route("DELETE", "/porthole/v1/servers/{id}/sessions", sessions.handle_end_all),
    ]
    return routes


def build_app(conf: cfg.ConfigOpts, opener: ConsoleOpener, gatherer: SessionGatherer) -> WsgiApplication:
    """Return the whole application.

    :raises ConfigInvalid: when ``[api] auth_strategy``, or an option that it needs, is wrong.
    """
    table = UrlTable(build_routes(opener, gatherer, conf.api.auth_strategy))
    authenticate = build_authenticator(conf)

    def dispatch(request: Request) -> webob.Response:
        route = table.match(request)
        if not route.public:
            context = authenticate(request.environ)
            context.is_admin = opener.policy.is_admin(context)
            request.environ[request_keys.CONTEXT] = context
        return run_handler(request)

    return _Application(conf, RequestLog(dispatch))


class _Application:
    """The outermost layer: what every request and every answer has, also ``/healthcheck``."""

    def __init__(self, conf: cfg.ConfigOpts, request_log: RequestLog) -> None:
        self._conf = conf
        self._request_log = request_log
        self._proxy_headers = ProxyHeaders(conf)
        self._request_ids = request_id.RequestId(None)
        self._health = healthcheck.Healthcheck(None, conf)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        request = Request(environ)
        self._proxy_headers.apply(environ)
        self._request_ids.set_global_req_id(request)
        environ[REQUEST_ID] = oslo_context.generate_request_id()
        environ[request_keys.PUBLIC_ENDPOINT] = self._conf.api.public_endpoint
        is_health = environ.get("PATH_INFO") == HEALTHCHECK
        response = self._health.process_request(request) if is_health else self._request_log(request)
        response.headers[request_id.HTTP_RESP_HEADER_REQUEST_ID] = environ[REQUEST_ID]
        answer: Iterable[bytes] = response(environ, start_response)
        return answer

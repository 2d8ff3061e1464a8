# SPDX-License-Identifier: Apache-2.0
"""POST of a console request, on Nova's two routes and on Porthole's own; GET of a token.

Why Nova's two, the action, and remote-consoles since 2.6: old and new clients each know one of them. Porthole's own
route has what Nova has no words for. All end in :class:`porthole_api.consoles.ConsoleOpener`. Called through the URL
table.
"""

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

import webob

from porthole_api.bodies import read_json, validate
from porthole_api.consoles import ConsoleOpener
from porthole_api.microversions import REMOTE_CONSOLES_MKS
from porthole_api.request import Request, build_json
from porthole_api.schemas import TYPES_OF_PROTOCOL, load_validator
from porthole_api.schemas.answers import EXPIRES_AT
from porthole_common import errors
from porthole_common.model import ConsoleMode, ConsoleType
from porthole_consoleauth.rpcapi import ANY_NUMBER, TokenWish

_GET_VNC_CONSOLE = load_validator("get_vnc_console")
_CREATE_CONSOLE = load_validator("create_console")
_REMOTE_CONSOLE = load_validator("remote_console_2_6")
_REMOTE_CONSOLE_MKS = load_validator("remote_console_2_8")


@dataclass(frozen=True)
class ConsolesHandler:
    """Answers console requests."""

    opener: ConsoleOpener

    def handle_action(self, request: Request) -> webob.Response:
        """POST /servers/{id}/action, os-getVNCConsole: ``{"console": {type, url}}``, at any microversion."""
        body = read_json(request)
        if not isinstance(body, dict) or len(body) != 1:
            raise errors.RequestInvalid("Malformed request body: it must be an object with one action.")
        (action,) = body
        if action != "os-getVNCConsole":
            raise errors.RequestInvalid(f"There is no such action: {action[:64]}")
        validate(body, _GET_VNC_CONSOLE)
        console_type = body["os-getVNCConsole"]["type"]
        info = self.opener.open_console(request.context, request.url_arguments["id"], console_type)
        return _build_answer({"console": {"type": console_type, "url": info.access_url}}, info.expires_at)

    def handle_remote_console(self, request: Request) -> webob.Response:
        """POST /servers/{id}/remote-consoles: ``{"remote_console": {protocol, type, url}}``."""
        body = read_json(request)
        validate(body, _REMOTE_CONSOLE_MKS if request.microversion >= REMOTE_CONSOLES_MKS else _REMOTE_CONSOLE)
        protocol, console_type = body["remote_console"]["protocol"], body["remote_console"]["type"]
        if console_type not in TYPES_OF_PROTOCOL[protocol]:
            raise errors.RequestInvalid(
                f"Invalid input for remote_console.type: {console_type!r} is not a console of protocol {protocol!r}"
            )
        info = self.opener.open_console(request.context, request.url_arguments["id"], console_type)
        console = {"protocol": protocol, "type": console_type, "url": info.access_url}
        return _build_answer({"remote_console": console}, info.expires_at)

    def handle_create(self, request: Request) -> webob.Response:
        """POST /porthole/v1/servers/{id}/consoles: 201, ``{"console": {type, mode, url, uses, expires_at}}``."""
        body = read_json(request)
        validate(body, _CREATE_CONSOLE)
        wanted = body["console"]
        console_type = wanted.get("type", ConsoleType.NOVNC)
        uses = wanted.get("uses")
        if "uses" in wanted and uses is None:
            uses = ANY_NUMBER
        wish = TokenWish(ConsoleMode(wanted.get("mode", ConsoleMode.CONTROL)), uses, wanted.get("expires_in"))
        info = self.opener.create_console(request.context, request.url_arguments["id"], console_type, wish)
        console = {
            "type": console_type,
            "mode": info.mode,
            "url": info.access_url,
            "uses": info.uses,
            "expires_at": info.expires_at.isoformat(timespec="seconds") if info.expires_at else None,
        }
        answer = _build_answer({"console": console}, info.expires_at)
        answer.status = HTTPStatus.CREATED
        return answer

    def handle_show_token(self, request: Request) -> webob.Response:
        """GET /os-console-auth-tokens/{token}: ``{"console": {instance_uuid, host, port, internal_access_path}}``."""
        info = self.opener.show_token(request.context, request.url_arguments["token"])
        keys = ("instance_uuid", "host", "port", "internal_access_path")
        return _build_answer({"console": {key: getattr(info, key) for key in keys}})


def _build_answer(value: dict[str, dict[str, Any]], expires_at: datetime | None = None) -> webob.Response:
    response = build_json(value)
    if expires_at is not None:
        # In a header and not in the body, where Nova's clients refuse an unknown key (O13).
        response.headers[EXPIRES_AT] = expires_at.isoformat(timespec="seconds")
    # The answer opens a screen, or says where it is: no cache on the way may keep it.
    response.headers["Cache-Control"] = "no-store"
    return response

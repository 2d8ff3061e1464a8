# SPDX-License-Identifier: Apache-2.0
"""POST of a console request, on Nova's two routes: the action, and remote-consoles since 2.6; GET of a token.

Why two routes: old and new clients each know one of them; both end in :class:`porthole_api.consoles.ConsoleOpener`.
Called through the URL table.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import webob

from porthole_api.bodies import read_json, validate
from porthole_api.consoles import ConsoleOpener
from porthole_api.microversions import REMOTE_CONSOLES_MKS
from porthole_api.request import Request, build_json
from porthole_api.schemas import TYPES_OF_PROTOCOL, load_validator
from porthole_api.schemas.answers import EXPIRES_AT
from porthole_common import errors

_GET_VNC_CONSOLE = load_validator("get_vnc_console")
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

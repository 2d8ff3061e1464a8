# SPDX-License-Identifier: Apache-2.0
"""The CONNECT doors: ``CONNECT /console?token=<uuid> HTTP/1.0``, then the raw stream.

Why: this is what lets a native viewer (TigerVNC, virt-viewer, vncdotool) in without a WebSocket, through the same
:mod:`porthole_novncproxy.admission` as a browser.
Called by :mod:`porthole_novncproxy.server`, in a thread for consoles.
"""

from http import HTTPStatus

from porthole_common import errors
from porthole_common.deadline import Deadline
from porthole_novncproxy.admission import access
from porthole_novncproxy.admission.gate import Gate
from porthole_novncproxy.doors import Door
from porthole_novncproxy.front.request import Request
from porthole_novncproxy.front.responses import Answer, Response, Upgrade, build_bare


def parse_console_request(request: Request, door: Door, source: str) -> access.ConsoleRequest:
    """Return which console a native viewer asks for.

    :raises RequestInvalid: when the request is not a CONNECT with a token in its query.
    """
    if request.method != "CONNECT":
        raise errors.RequestInvalid("This port takes CONNECT with a token and nothing else.")
    token = access.parse_token(request.target, ())
    if not token:
        raise errors.RequestInvalid("The request has no token.")
    return access.ConsoleRequest(door, token, source)


def answer_console(request: Request, door: Door, source: str, gate: Gate, deadline: Deadline) -> Answer:
    """Let a native viewer in, or refuse it."""
    try:
        admission = gate.admit(parse_console_request(request, door, source), deadline)
    except errors.PortholeError as exc:
        return build_bare(gate.log_refusal(exc, door, source))
    return Upgrade(Response(HTTPStatus.OK, is_bare=True), admission)

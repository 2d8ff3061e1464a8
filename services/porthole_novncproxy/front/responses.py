# SPDX-License-Identifier: Apache-2.0
"""Answers as values: what a client is sent, and whether its connection becomes a console.

Why values: the thread that finds an answer never touches the client's socket. The answer goes back to the event loop,
which sends it, or drops it where the request has been answered already because it was late.
Made by :mod:`porthole_novncproxy.front.handler`, :mod:`porthole_novncproxy.front.connect` and
:mod:`porthole_novncproxy.front.pages`; sent by :mod:`porthole_novncproxy.front.sender`.
"""

import email.utils
import functools
import json
import pathlib
import time
from dataclasses import dataclass
from http import HTTPStatus

from porthole_novncproxy.admission.gate import Admission

Headers = tuple[tuple[str, str], ...]
# The header has no version: a version helps only attackers. The command ``porthole`` knows the proxy by this name.
SERVER = "Porthole"


@dataclass(frozen=True)
class Response:
    """A status, headers, and either ``body`` or the content of ``file``.

    ``headers``: (name, value) pairs, Content-Length among them where there is content. ``is_last``: the connection ends
    behind it. ``is_bare``: neither Server nor Date are added, as native viewers expect.
    """

    status: HTTPStatus
    headers: Headers = ()
    body: bytes = b""
    file: pathlib.Path | None = None
    is_last: bool = False
    is_bare: bool = False


@dataclass(frozen=True)
class Upgrade:
    """``response`` is the 101 or 200 behind which the connection is the console of ``admission``."""

    response: Response
    admission: Admission


Answer = Response | Upgrade


def discard(answer: Answer) -> None:
    """Close the console of an answer that is not sent."""
    if isinstance(answer, Upgrade):
        answer.admission.close()


def build_head(response: Response) -> bytes:
    """Return the status line, the headers and the blank line."""
    own: Headers = () if response.is_bare else (("Server", SERVER), ("Date", _format_date(int(time.time()))))
    closing: Headers = (("Connection", "close"),) if response.is_last else ()
    lines = [f"HTTP/1.1 {int(response.status)} {response.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in (*own, *response.headers, *closing)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@functools.lru_cache(maxsize=1)
def _format_date(timestamp: int) -> str:
    """Return the HTTP date of a POSIX time. A second has many answers."""
    return email.utils.formatdate(timestamp, usegmt=True)


def build_bare(status: HTTPStatus, *headers: tuple[str, str]) -> Response:
    """Return a refusal without a body, behind which the connection ends."""
    return Response(status, (*headers, ("Content-Length", "0")), is_last=True, is_bare=True)


def build_refused_upgrade(status: HTTPStatus, request_id: str, *headers: tuple[str, str]) -> Response:
    """Return a refusal without a body: a WebSocket client would read a body as frames.

    ``request_id`` is what the log has; its header bears the name that the api's has.
    """
    own = (("Content-Length", "0"), ("X-OpenStack-Request-ID", request_id))
    return Response(status, (*own, *headers), is_last=True)


def build_error(status: HTTPStatus, reason: str) -> Response:
    """Return an error in words, behind which the connection ends."""
    body = f"{int(status)} {reason}\n".encode()
    return Response(status, (("Content-Type", "text/plain"), ("Content-Length", str(len(body)))), body, is_last=True)


def build_reason(status: HTTPStatus, reason: str, request_id: str, *further: tuple[str, str]) -> Response:
    """Return ``{"code": status, "reason": words}``: the answer to an upgrade of the same path, for a page to read."""
    body = json.dumps({"code": int(status), "reason": reason}).encode()
    headers = (
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Referrer-Policy", "no-referrer"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-OpenStack-Request-ID", request_id),
        *further,
    )
    return Response(status, headers, body)

# SPDX-License-Identifier: Apache-2.0
"""A request that the HTTP server refuses by itself: the answer's bytes, in the shape of all other faults.

Why: what is not HTTP, too long or too slow never reaches the application, and its client still gets Nova's fault with
a reason. Pure. Called by :mod:`porthole_api.http_parser`, :mod:`porthole_api.http_channel` and
:mod:`porthole_api.http_server`.
"""

from dataclasses import dataclass
from email.utils import formatdate

from oslo_middleware.request_id import HTTP_RESP_HEADER_REQUEST_ID

from porthole_api.faults import build_fault
from porthole_api.microversions import MIN_VERSION, build_headers

_VERSIONED = "/v2.1"


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused. ``message`` is for its client and the log: no text of the client's stands in it."""

    status: int
    message: str
    headers: tuple[tuple[str, str], ...] = ()


NOT_HTTP = Refusal(400, "The request is not valid HTTP/1.1.")
TLS = Refusal(400, "The client speaks TLS, and this port speaks plain HTTP.")
PROXY_PROTOCOL = Refusal(400, "This port does not speak the PROXY protocol.")
ENDED_EARLY = Refusal(400, "The connection ended before the whole request arrived.")
TOO_SLOW = Refusal(408, "The request did not arrive in time.")
BODY_TOO_SLOW = Refusal(408, "The request body did not arrive in time.")
CROWDED_SOURCE = Refusal(429, "Too many connections from this address are open.", (("Retry-After", "1"),))
CROWDED = Refusal(503, "The API has too many connections.")
STOPPING = Refusal(503, "The API is stopping.")


def build_answer(refusal: Refusal, request_id: str, method: str = "", path: str = "") -> bytes:
    """Return the whole answer; ``method`` and ``path`` are those of the request, as far as they are known."""
    fault = build_fault(refusal.status, refusal.message)
    headers = [*fault.headers.items(), *refusal.headers, ("Connection", "close"), ("Date", formatdate(usegmt=True))]
    headers.append((HTTP_RESP_HEADER_REQUEST_ID, request_id))
    if path == _VERSIONED or path.startswith(f"{_VERSIONED}/"):
        headers += build_headers(MIN_VERSION)
    head = [f"HTTP/1.1 {fault.status}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(head).encode("latin-1") + (b"" if method == "HEAD" else fault.body)

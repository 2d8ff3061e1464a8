# SPDX-License-Identifier: Apache-2.0
"""The port to the base URLs: requests one page and one WebSocket, as a browser would.

Why a WebSocket: only there do Origin, scheme, token and the path through a reverse proxy meet. The token is for an
instance that does not exist, so a proxy that is in order answers 401; 403 means that it refuses every browser. Called
by :mod:`live_checks`.
"""

import base64
import os
import re
import socket
import ssl
import time
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509

from porthole_cli.doctor.facts import UrlCheck
from porthole_common.deadline import get_remaining_s
from porthole_compute.access_url import build_novnc_url
from porthole_novncproxy.certificate import parse_certificate

STEP_TIMEOUT_S = 4.0
# The head of an answer; the body is not read.
MAX_HEAD_BYTES = 16384
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")


def check_url(base_url: str, token: str) -> UrlCheck:
    """Request the page at ``base_url``, and open a WebSocket with ``token`` as the page would; raises nothing."""
    certificate, mistrust = None, ""
    parts = urlsplit(base_url)
    try:
        if parts.scheme == "https":
            mistrust = _find_mistrust(base_url)
            der = _read_certificate(base_url)
            certificate = parse_certificate(x509.load_der_x509_certificate(der)) if der else None
        page_status = _ask(base_url, _build_page_request(base_url))
        upgrade_status = _ask(base_url, _build_upgrade(base_url, token))
    except (OSError, ValueError) as exc:
        reason = "no answer in time" if isinstance(exc, TimeoutError) else getattr(exc, "strerror", None) or str(exc)
        return UrlCheck(
            base_url, problem=str(reason).rstrip(".") or type(exc).__name__, certificate=certificate, mistrust=mistrust
        )
    return UrlCheck(base_url, "", certificate, mistrust, page_status, upgrade_status)


def _build_page_request(base_url: str) -> bytes:
    parts = urlsplit(base_url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode("ascii")


def _build_upgrade(base_url: str, token: str) -> bytes:
    parts = urlsplit(base_url)
    # As noVNC does with the URL that a user gets: a WebSocket at its "path", on the host of the page.
    query = dict(parse_qsl(urlsplit(build_novnc_url(base_url, token)).query))
    lines = [
        f"GET /{query['path'].lstrip('/')} HTTP/1.1",
        f"Host: {parts.netloc}",
        f"Origin: {parts.scheme}://{parts.netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Protocol: binary",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _ask(base_url: str, request: bytes) -> int | None:
    """Send ``request`` and return the status of the answer, None when the answer is not HTTP.

    :raises OSError: when the connection fails; TimeoutError when it takes too long.
    """
    deadline = time.monotonic() + STEP_TIMEOUT_S
    with _connect(base_url, verify=False) as sock:
        sock.sendall(request)
        head = b""
        while b"\r\n" not in head and len(head) < MAX_HEAD_BYTES:
            sock.settimeout(get_remaining_s(deadline))
            chunk = sock.recv(MAX_HEAD_BYTES - len(head))
            if not chunk:
                raise ConnectionError("the connection was closed without an answer")
            head += chunk
    found = _STATUS_LINE.match(head)
    return int(found[1]) if found else None


def _find_mistrust(base_url: str) -> str:
    """Return why this host does not trust the certificate, or "".

    :raises OSError: when the server does not speak TLS.
    """
    try:
        with _connect(base_url, verify=True):
            return ""
    except ssl.SSLCertVerificationError as exc:
        return exc.verify_message or "it does not verify"


def _read_certificate(base_url: str) -> bytes | None:
    with _connect(base_url, verify=False) as sock:
        return sock.getpeercert(binary_form=True) if isinstance(sock, ssl.SSLSocket) else None


def _connect(base_url: str, verify: bool) -> socket.socket:
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    is_https = parts.scheme == "https"
    sock = socket.create_connection((host, parts.port or (443 if is_https else 80)), STEP_TIMEOUT_S)
    if not is_https:
        return sock
    context = ssl.create_default_context()
    if not verify:
        # The token opens nothing, so an untrusted server may see it; the missing trust is reported separately.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return context.wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise

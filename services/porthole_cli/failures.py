# SPDX-License-Identifier: Apache-2.0
"""Turns keystoneauth's exceptions into :mod:`porthole_cli.errors` that a user understands.

Why apart from the client: keystoneauth has one class for every failed connection and quotes urllib3's repr. A user must
read which of these it was: nothing listens, the name is wrong, the port speaks TLS, it is another server. The cause is
in the chain of exceptions. Called by :mod:`porthole_cli.client`.
"""

import http.client
import socket
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import requests
from keystoneauth1 import exceptions
from urllib3.exceptions import LocationParseError, ProxySchemeUnknown

from porthole_cli.errors import AnswerInvalid, ApiRefused, ApiUnavailable
from porthole_cli.forward_proxy import ForwardProxy, find_proxy

PROXY_PORTS = frozenset({6080, 6081})
# The header Server of Porthole's proxy (porthole_novncproxy.front.handler).
_PROXY = "Porthole"
# Any server in front of an API may answer with these statuses; other ones below 500 come from a server without an API.
_FROM_THE_FRONT = frozenset({401, 403, 407, 429})
# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH (openssl/x509_vfy.h).
_NAME_MISMATCHES = frozenset({62, 64})
# A proxy whose URL cannot be parsed, or whose scheme needs a library that is missing.
_PROXY_MALFORMED = (
    requests.exceptions.InvalidProxyURL,
    requests.exceptions.InvalidSchema,
    LocationParseError,
    ProxySchemeUnknown,
)
_AUTH_URL_HINT = "OS_AUTH_URL or --os-auth-url must be the URL of Keystone, like http://127.0.0.1:5000/v3."


def map_failure(exc: exceptions.ClientException, url: str = "") -> ApiRefused | ApiUnavailable | AnswerInvalid:
    """Return the error for the user. ``url`` is the compute API's, or empty if it is not known yet."""
    if isinstance(exc, exceptions.HttpError):
        return _map_status(exc, url)
    if not url:
        return ApiUnavailable(str(exc))
    if isinstance(exc, exceptions.ConnectTimeout):
        return build_timeout(url)
    return ApiUnavailable(_explain_connection(exc, url) or str(exc))


def map_keystone_failure(exc: exceptions.ClientException, auth_url: str) -> ApiRefused | ApiUnavailable | AnswerInvalid:
    """Return the error for a failed login. ``auth_url`` is Keystone's URL as the user gave it."""
    if isinstance(exc, exceptions.HttpError):
        return _map_keystone_status(exc, auth_url)
    chain = list(_list_causes(exc))
    if any(isinstance(cause, exceptions.ConnectTimeout) for cause in chain):
        return ApiUnavailable(f"Keystone at {auth_url} does not answer in time.{_build_way(auth_url)} {_AUTH_URL_HINT}")
    reason = _explain_connection(exc, auth_url, "Keystone")
    if reason is not None:
        return ApiUnavailable(f"{reason} {_AUTH_URL_HINT}")
    answers = (cause.response for cause in chain if isinstance(cause, exceptions.HttpError))
    return _build_keystone_invalid(auth_url, next(answers, None))


def _map_keystone_status(exc: exceptions.HttpError, auth_url: str) -> ApiRefused | AnswerInvalid:
    message = _read_fault(exc, "error")
    if message is not None and exc.http_status != HTTPStatus.NOT_FOUND:
        return ApiRefused(exc.http_status, message)
    if exc.http_status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return _build_keystone_invalid(auth_url, exc.response)
    return _build_status(exc, f"Keystone at {auth_url}")


def _build_keystone_invalid(auth_url: str, response: Any) -> AnswerInvalid:
    status = response.status_code if response is not None and response.status_code >= HTTPStatus.BAD_REQUEST else None
    proxy = _find_proxy(auth_url, response)
    hint = f"{proxy}. {_AUTH_URL_HINT}" if proxy else _AUTH_URL_HINT
    return AnswerInvalid(auth_url, status, f"{hint}{_build_way(auth_url)}", "Keystone")


def build_timeout(url: str) -> ApiUnavailable:
    """Return the error for an API that accepts the connection and does not answer."""
    return ApiUnavailable(f"The API at {url} does not answer in time.{_build_way(url)}")


def build_answer_invalid(url: str, response: Any = None) -> AnswerInvalid:
    """Return the error for a server at ``url`` that is not a compute API; ``response`` is its answer, if known.

    An answer with a status of success adds no status to the text.
    """
    status = response.status_code if response is not None and response.status_code >= 400 else None
    port = urlsplit(url).port
    proxy = _find_proxy(url, response)
    if proxy is not None:
        hint = f"{proxy}; the API has another port, usually 8774."
    elif response is not None and status == 400 and b"HTTPS" in response.content:
        hint = "The port speaks TLS: write https://."
    elif response is not None and _is_xvp_listener(response):
        hint = f"{port} looks like the port for VNC viewers (xvpvnc); the API has another port, usually 8774."
    elif urlsplit(url).path.rstrip("/") == "/v2.1":
        hint = "Correct the host or the port of the URL."
    elif urlsplit(url).path.rstrip("/").endswith("/v2.1"):
        hint = "Correct the host, the port or the path of the URL."
    else:
        hint = "The URL of an API is like http://127.0.0.1:8774/v2.1."
    return AnswerInvalid(url, status, f"{hint}{_build_way(url)}")


def _is_xvp_listener(response: Any) -> bool:
    """Return True for the bare 400 with which porthole_novncproxy.front.connect answers an HTTP request."""
    bare = {name.lower() for name in response.headers} == {"content-length", "connection"}
    return response.status_code == HTTPStatus.BAD_REQUEST and bare and not response.content


def _build_way(url: str) -> str:
    """Return a sentence that names the forward proxy on the way to ``url``: the answer may come from it."""
    proxy = find_proxy(url)
    return f" The request went through {proxy}." if proxy else ""


def _find_proxy(url: str, response: Any) -> str | None:
    """Return the text that the port of ``url`` belongs to Porthole's proxy, if that is likely."""
    port = urlsplit(url).port
    if find_proxy(url) is not None:
        # The answer may come from the forward proxy.
        return None
    if response is not None and response.headers.get("Server") == _PROXY:
        return f"{port} is the port of Porthole's proxy"
    return f"{port} is usually the port of Porthole's proxy" if port in PROXY_PORTS else None


def _map_status(exc: exceptions.HttpError, url: str) -> ApiRefused | AnswerInvalid:
    message = _read_fault(exc)
    if message is not None:
        return ApiRefused(exc.http_status, message)
    if url and exc.http_status < 500 and exc.http_status not in _FROM_THE_FRONT:
        return build_answer_invalid(url, exc.response)
    return _build_status(exc, url or exc.url or "Keystone")


def _build_status(exc: exceptions.HttpError, service: str) -> ApiRefused:
    reason = " ".join(str(exc.message).split()).rstrip(" .")
    return ApiRefused(exc.http_status, f"{service} answers: {reason}.{_build_way(exc.url or '')}")


def _read_fault(exc: exceptions.HttpError, name: str | None = None) -> str | None:
    """Return the message of a fault in Nova's or Keystone's shape, ``{"<fault>": {"code", "message"}}``, else None.

    With ``name``, only the fault of that name counts; Keystone's faults are named ``error``.
    """
    try:
        body = exc.response.json() if exc.response is not None else None
        message = body[name or next(iter(body))]["message"] if isinstance(body, dict) else None
    except (ValueError, StopIteration, TypeError, KeyError):
        return None
    return " ".join(str(message).split()) if message else None


def _explain_connection(exc: exceptions.ClientException, url: str, service: str = "The API") -> str | None:
    """Return why no answer came from ``url``; None when the chain holds no known cause."""
    chain = list(_list_causes(exc))
    proxy = find_proxy(url)
    if proxy is not None and (reason := _explain_proxy(chain, proxy)) is not None:
        return reason
    return next(filter(None, (_explain(cause, url, service) for cause in chain)), None)


def _explain_proxy(chain: list[BaseException], proxy: ForwardProxy) -> str | None:
    """Return what is wrong with the forward proxy; None when the proxy is not at fault."""
    remedy = "Correct the variable, or name the API's host in no_proxy."
    if any(isinstance(cause, _PROXY_MALFORMED) for cause in chain):
        return f"The variable {proxy.variable} does not hold a usable proxy: '{proxy.url}'. {remedy}"
    if any(isinstance(cause, requests.exceptions.ProxyError) for cause in chain):
        reasons = (cause.strerror or str(cause) for cause in chain if isinstance(cause, OSError))
        return f"No connection through {proxy}: {next(reasons, 'it failed').rstrip('.')}. {remedy}"
    return None


def _explain(cause: BaseException, url: str, service: str) -> str | None:
    text = None
    kind = "no compute API" if service == "The API" else f"no {service}"
    match cause:
        case ssl.SSLCertVerificationError(verify_code=code) if code in _NAME_MISMATCHES:
            reason = cause.verify_message.rstrip(".")
            text = (
                f"The certificate at {url} is for another name: {reason}. Write a name of the certificate in the URL."
            )
        case ssl.SSLCertVerificationError():
            reason = cause.verify_message.rstrip(".")
            text = f"The certificate at {url} is not trusted: {reason}. Give the authority's file by --os-cacert."
        case ssl.SSLError():
            text = f"The TLS handshake with {url} failed ({cause.reason}). If it is plain HTTP, write http://."
        case socket.gaierror():
            text = f"The host name '{urlsplit(url).hostname}' of {url} cannot be resolved."
        case http.client.RemoteDisconnected() | ConnectionResetError():
            hint = " If it speaks TLS, write https://." if url.startswith("http://") else ""
            text = f"{url} closed the connection without an answer.{hint}"
        case http.client.HTTPException():
            text = f"The server at {url} does not speak HTTP, so it is {kind}."
        case ConnectionRefusedError():
            text = f"Nothing listens at {url}: start {service.replace('The', 'the')}, or correct the URL."
        case OSError() if cause.strerror:
            text = f"{service} at {url} cannot be reached: {cause.strerror}."
    return text


def _list_causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield the innermost cause first: the outer exceptions only repeat the inner ones."""
    chain: list[BaseException] = []
    cause: BaseException | None = exc
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    yield from reversed(chain)

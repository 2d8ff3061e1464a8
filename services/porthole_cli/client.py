# SPDX-License-Identifier: Apache-2.0
"""The compute API over a keystoneauth adapter: servers and their consoles.

Why: the commands need three requests of Nova's API, and some of Porthole's own; only this module knows their shapes.
:mod:`porthole_cli.failures` turns a failure into one line for the user. Works against Porthole, and the first three
against Nova. Called by :mod:`porthole_cli.servers`, :mod:`porthole_cli.consoles`, :mod:`porthole_cli.sessions` and
:mod:`porthole_cli.audit`.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from keystoneauth1 import adapter, discover, exceptions

from porthole_cli.cloud_session import CloudSession
from porthole_cli.errors import ApiRefused, CloudInvalid, ServerAmbiguous, ServerNotFound
from porthole_cli.failures import build_answer_invalid, build_timeout, map_failure, map_keystone_failure
from porthole_common.errors import PortholeError
from porthole_common.model import ConsoleMode, is_uuid

# Nova's API reference, "Server Consoles": remote-consoles came with 2.6 and replaced os-getVNCConsole.
REMOTE_CONSOLES_SINCE = (2, 6)
PAGE_SIZE = 500
# Porthole's own header of the answer with a console's URL (porthole_api.schemas.answers).
EXPIRES_AT = "Porthole-Expires-At"
# Special characters of a regular expression, in every dialect of Nova's databases.
_REGEX_SPECIAL = re.compile(r"[\\.^$*+?()\[\]{}|]")
# What keystoneauth replaces in an endpoint (keystoneauth1.session, endpoint_override).
_SUBSTITUTIONS = re.compile(r"%\((project_id|user_id)\)s|%%")


@dataclass(frozen=True)
class Console:
    """A console as the API returns it; ``url`` holds the token, so only the user may see it.

    ``expires_at`` is when the URL expires, or None: Nova does not say so. ``mode`` is "control" or "view"; ``uses`` is
    how many sessions the URL may open, None for any number.
    """

    type: str
    url: str
    expires_at: datetime | None = None
    mode: str = str(ConsoleMode.CONTROL)
    uses: int | None = None

    def __repr__(self) -> str:
        return f"Console({self.type})"


@dataclass(frozen=True)
class _Base:
    """The URL of the API and the microversions that it offers (None: it has none)."""

    url: str
    min_microversion: tuple[int | float, ...] | None = None
    max_microversion: tuple[int | float, ...] | None = None


class ComputeClient:
    """Asks one compute API, as one user. Makes no request before the first method is called.

    Every method raises CloudInvalid when the cloud has no compute API, ApiUnavailable when the API does not answer,
    ApiRefused when it answers an error, and AnswerInvalid when the answer is not what Nova's API reference says.
    """

    def __init__(self, session: adapter.Adapter) -> None:
        self._adapter = session

    def list_servers(self, name: str | None = None, details: bool = False) -> Iterator[dict[str, Any]]:
        """Yield the servers, page by page: ``{id, name, links}``, or all their keys with ``details``.

        ``name`` is the API's filter: Nova reads it as a regular expression that matches anywhere.
        """
        query: dict[str, Any] = {"limit": PAGE_SIZE} | ({"name": name} if name is not None else {})
        path = "/servers/detail" if details else "/servers"
        return self._list_pages("servers", query, lambda asked: self._get_page(path, asked))

    def get_server(self, server_id: str) -> dict[str, Any]:
        """Return the server whose ID is ``server_id`` (a UUID), with all its keys."""
        server: dict[str, Any] = self._pick(self._request("GET", f"/servers/{server_id}"), "server", dict)
        return server

    def find_server(self, name_or_id: str) -> dict[str, Any]:
        """Return the server with that ID or else that very name, with all its keys.

        :raises ServerNotFound: when no server has it.
        :raises ServerAmbiguous: when several have the name.
        """
        try:
            # Under a locale that is not UTF-8, Python passes the bytes of the name as surrogates.
            name = name_or_id.encode("utf-8", "surrogateescape").decode("utf-8")
        except ValueError as exc:
            raise ServerNotFound(name_or_id) from exc
        if is_uuid(name_or_id.lower()):
            try:
                return self.get_server(name_or_id.lower())
            except ApiRefused as exc:
                if exc.status != 404:
                    raise
        named = self.list_servers(_REGEX_SPECIAL.sub(r"\\\g<0>", name))
        ids = tuple(server["id"] for server in named if server["name"] == name)
        if not ids:
            raise ServerNotFound(name_or_id)
        if len(ids) > 1:
            raise ServerAmbiguous(name_or_id, ids)
        try:
            return self.get_server(ids[0])
        except ApiRefused as exc:
            # The server may have been deleted a moment ago.
            raise exc.about(ids[0], name_or_id) from exc

    def list_audit(self, filters: Mapping[str, str], limit: int) -> Iterator[dict[str, Any]]:
        """Yield events of the history, newest first, page by page; ``limit`` is how many the caller wants at most.

        The events are Porthole's alone; for their keys see :func:`porthole_api.handlers.audit.build_event`.
        """
        query: dict[str, Any] = {**filters, "limit": min(limit, PAGE_SIZE)}
        return self._list_pages(
            "audit", query, lambda asked: self._request("GET", "/porthole/v1/audit", base=self._root, params=asked)
        )

    def list_sessions(self, filters: Mapping[str, str], limit: int, unreachable: list[str]) -> Iterator[dict[str, Any]]:
        """Yield console sessions, newest first, page by page; ``limit`` is how many the caller wants at most.

        The names of proxies that did not answer are added to ``unreachable``. For the keys of a session see
        :mod:`porthole_api.handlers.sessions`.
        """
        query: dict[str, Any] = {**filters, "limit": min(limit, PAGE_SIZE)}

        def get_page(asked: dict[str, Any]) -> dict[str, Any]:
            page = self._request("GET", "/porthole/v1/sessions", base=self._root, params=asked)
            unreachable.extend(map(str, page.get("unreachable", ())))
            return page

        return self._list_pages("sessions", query, get_page)

    def get_session(self, session_id: str) -> dict[str, Any]:
        """Return an open session."""
        answer = self._request("GET", f"/porthole/v1/sessions/{quote(session_id, safe='')}", base=self._root)
        session: dict[str, Any] = self._pick(answer, "session", dict)
        return session

    def end_session(self, session_id: str, reason: str) -> None:
        """End a session; its page shows ``reason``."""
        path = f"/porthole/v1/sessions/{quote(session_id, safe='')}"
        self._send("DELETE", path, self._root, json={"reason": reason})

    def end_sessions(self, server_id: str, reason: str) -> dict[str, Any]:
        """End all sessions of a server and revoke its URLs; return ``{ended, revoked, unreachable}``."""
        path = f"/porthole/v1/servers/{server_id}/sessions"
        answer = self._request("DELETE", path, base=self._root, json={"reason": reason})
        self._pick(answer, "ended", int)
        self._pick(answer, "revoked", int)
        return answer

    def create_console(self, server_id: str, console_type: str) -> Console:
        """Ask for a new console of the server: ``console_type`` is ``novnc`` or ``xvpvnc``."""
        microversion = self._find_console_microversion()
        if microversion is not None and _is_since(microversion, REMOTE_CONSOLES_SINCE):
            body = {"remote_console": {"protocol": "vnc", "type": console_type}}
            path, key = f"/servers/{server_id}/remote-consoles", "remote_console"
        else:
            body = {"os-getVNCConsole": {"type": console_type}}
            path, key = f"/servers/{server_id}/action", "console"
        answer, headers = self._exchange("POST", path, json=body, microversion=microversion)
        console = self._pick(answer, key, dict)
        if not isinstance(console.get("url"), str):
            raise build_answer_invalid(self._base.url)
        expires_at = _parse_time(headers.get(EXPIRES_AT))
        return Console(str(console.get("type", console_type)), console["url"], expires_at)

    def create_console_as_wished(self, server_id: str, wish: Mapping[str, Any]) -> Console:
        """Ask Porthole's own route, which Nova has not, for a console with ``wish``: its type, mode, uses, expires_in.

        :raises CloudInvalid: when the API has no such route.
        """
        path = f"/porthole/v1/servers/{server_id}/consoles"
        try:
            answer = self._request("POST", path, base=self._root, json={"console": dict(wish)})
        except ApiRefused as exc:
            if exc.status == HTTPStatus.NOT_FOUND and self.get_server(server_id):
                raise CloudInvalid(
                    f"The API at {self._root} cannot make such a URL: it is Nova's, or a Porthole of an older release."
                ) from exc
            raise
        console = self._pick(answer, "console", dict)
        if not isinstance(console.get("url"), str):
            raise build_answer_invalid(self._root)
        expires_at = _parse_time(console.get("expires_at"))
        return Console(str(console["type"]), console["url"], expires_at, str(console["mode"]), console.get("uses"))

    def _find_console_microversion(self) -> str | None:
        """Return the user's choice, else the oldest with remote-consoles that the server offers, else None."""
        if self._adapter.default_microversion:
            return str(self._adapter.default_microversion)
        base = self._base
        if base.max_microversion is None or base.max_microversion < REMOTE_CONSOLES_SINCE:
            return None
        return discover.version_to_string(max(REMOTE_CONSOLES_SINCE, base.min_microversion or REMOTE_CONSOLES_SINCE))

    @cached_property
    def _base(self) -> _Base:
        """The versioned API at the endpoint, which may be the server's root URL."""
        try:
            url = self._adapter.get_endpoint()
        except exceptions.ClientException as exc:
            raise self._map(exc) from exc
        if not url:
            raise CloudInvalid("The cloud has no compute API: set its URL with --os-endpoint.")
        if not _is_url(url):
            # One cause is a password with a slash, which no pattern of the redaction finds.
            shown = f"***@{url.rpartition('@')[2]}" if "@" in url else url
            raise CloudInvalid(f"The endpoint {shown!r} is not a URL: http://127.0.0.1:8774/v2.1 would be one.")
        self._check_substitutions(url)
        started = time.monotonic()
        try:
            data = self._adapter.get_endpoint_data()
            data = data and data.get_versioned_data(
                self._adapter.session, min_version=(2, 1), max_version=(2, discover.LATEST)
            )
        except exceptions.ClientException as exc:
            if self._auth_url is not None:
                raise self._map(exc) from exc
            # There is no version document, or no server: the next request tells the user which.
            data = None
            timeout_s = self._adapter.session.timeout
            if timeout_s and time.monotonic() - started >= timeout_s:
                # keystoneauth hides that its request timed out; the next request would wait as long again.
                raise build_timeout(url) from None
        if data is None or not data.url:
            return _Base(url.rstrip("/"))
        return _Base(data.url.rstrip("/"), data.min_microversion, data.max_microversion)

    @property
    def _root(self) -> str:
        """The server's root URL, which Porthole's own routes are below."""
        return self._base.url.partition("/v2.1")[0]

    def _check_substitutions(self, url: str) -> None:
        """Check that keystoneauth can replace each placeholder of ``url``.

        :raises CloudInvalid: when it cannot.
        """
        if "%" in _SUBSTITUTIONS.sub("", url):
            hint = "write '%%' for the character '%', and '%(project_id)s' for the project"
            raise CloudInvalid(f"The endpoint '{url}' has a '%' that cannot be replaced: {hint}.")
        try:
            values = {"project_id": self._adapter.get_project_id, "user_id": self._adapter.get_user_id}
            missing = [name for name in _SUBSTITUTIONS.findall(url) if name and not values[name]()]
        except exceptions.ClientException as exc:
            raise self._map(exc, url) from exc
        if missing:
            raise CloudInvalid(f"This login has no {missing[0]} for the endpoint '{url}'.")

    def _list_pages(
        self, key: str, query: dict[str, Any], get_page: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """Yield what the pages have under ``key``; ``get_page`` asks for one, by ``query`` and then a marker too."""
        while True:
            page = get_page(query)
            items = self._pick(page, key, list)
            yield from items
            link = next((link for link in page.get(f"{key}_links", ()) if link.get("rel") == "next"), None)
            if not items or link is None:
                return
            named = dict(parse_qsl(urlsplit(str(link.get("href"))).query))
            query = {**query, "marker": named.get("marker", items[-1]["id"])}

    def _get_page(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._request("GET", path, params=query)
        except ApiRefused as exc:
            # Every compute API has a list of servers; with a marker, 404 may mean that the marker is gone.
            if exc.status == 404 and "marker" not in query:
                raise build_answer_invalid(self._base.url) from exc
            raise

    def _request(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        return self._exchange(method, path, **arguments)[0]

    def _exchange(
        self, method: str, path: str, base: str | None = None, **arguments: Any
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        """Send a request below ``base``, by default the versioned API's URL; return the answer's body and headers."""
        base = base or self._base.url
        response = self._send(method, path, base, **arguments)
        try:
            answer = response.json()
        except ValueError as exc:
            raise build_answer_invalid(base, response) from exc
        if not isinstance(answer, dict):
            raise build_answer_invalid(base, response)
        return answer, response.headers

    def _send(self, method: str, path: str, base: str, **arguments: Any) -> Any:
        try:
            return self._adapter.request(path, method, endpoint_override=base, **arguments)
        except exceptions.ClientException as exc:
            raise self._map(exc, base) from exc

    @property
    def _auth_url(self) -> str | None:
        """Keystone's URL until Keystone has issued a token, else None."""
        session = self._adapter.session
        return session.auth_url if isinstance(session, CloudSession) and session.is_logging_in else None

    def _map(self, exc: exceptions.ClientException, url: str = "") -> PortholeError:
        auth_url = self._auth_url
        return map_failure(exc, url) if auth_url is None else map_keystone_failure(exc, auth_url)

    def _pick(self, answer: dict[str, Any], key: str, kind: type) -> Any:
        if not isinstance(answer.get(key), kind):
            raise build_answer_invalid(self._base.url)
        return answer[key]


def _is_url(text: str) -> bool:
    if " " in text or not text.isprintable():
        return False
    try:
        parts = urlsplit(text)
        # urlsplit raises ValueError for a port out of range.
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _parse_time(text: str | None) -> datetime | None:
    """Return the UTC time of an ISO 8601 text with an offset; None for any other text."""
    try:
        parsed = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return parsed.astimezone(UTC) if parsed.tzinfo else None


def _is_since(microversion: str, since: tuple[int, int]) -> bool:
    version = discover.normalize_version_number(microversion)
    return discover.version_match(since, version) or discover.LATEST in version

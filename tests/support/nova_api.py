# SPDX-License-Identifier: Apache-2.0
"""A compute API and a Keystone that answer from memory, on a loopback port.

Why: the command speaks to Nova as well as to Porthole, with and without microversions, behind every kind of
authentication; no one real server can be all of these. Shapes as in Nova's and Keystone's API references.
"""

import base64
import json
import re
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from support.deadlines import join_within

TOKEN = "5f3c1a52-6f0e-4c1c-9d2f-3f1f0f0c9a11"
CONSOLE_URL = f"http://127.0.0.1:6080/console.html?path=%3Ftoken%3D{TOKEN}"
KEYSTONE_TOKEN = "gAAAAkeystone"


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class NovaApi:
    """Start it as a context manager. ``answers`` maps "METHOD path" to (status, body) and wins over what it knows.

    ``expires_at`` is what it says of a console's end, as Porthole does and Nova does not.
    """

    servers: list[dict[str, Any]] = field(default_factory=list)
    max_microversion: str | None = "2.96"
    min_microversion: str = "2.1"
    page_size: int = 1000
    basic: tuple[str, str] | None = None
    keystone: bool = False
    expires_at: str | None = None
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                return

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                url = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(url.query).items()}
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, url.path, query, headers, json.loads(body) if body else None)
                api.requests.append(request)
                status, answer = api.answer(request)
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                content = b"" if status == HTTPStatus.NO_CONTENT else content
                self.send_response(status)
                kind = "text/html" if isinstance(answer, bytes) else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                if url.path == "/v3/auth/tokens":
                    self.send_header("X-Subject-Token", KEYSTONE_TOKEN)
                if api.expires_at is not None and self.command == "POST":
                    self.send_header("Porthole-Expires-At", api.expires_at)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._httpd.shutdown()
        join_within(30, self._thread)
        self._httpd.server_close()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._httpd.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.root}/v2.1"

    def sent(self, method: str) -> list[Request]:
        """The requests of that method so far."""
        return [request for request in self.requests if request.method == method]

    def add_server(self, uuid: str, name: str, **keys: Any) -> None:
        self.servers.append({"id": uuid, "name": name, "status": "ACTIVE", "links": [], **keys})

    def answer(self, request: Request) -> tuple[int, Any]:
        given = self.answers.get(f"{request.method} {request.path}")
        if given is not None:
            return given
        path = request.path.rstrip("/")
        if path.startswith("/v3") and self.keystone:
            return self._answer_keystone(path)
        if path == "":
            return 300, {"versions": [self._version()]}
        if path == "/v2.1":
            return 200, {"version": self._version()}
        if not self._is_authenticated(request):
            return 401, {"unauthorized": {"code": 401, "message": "The request you have made requires authentication."}}
        return self._answer_compute(request, path.removeprefix("/v2.1").strip("/").split("/"))

    def _version(self) -> dict[str, Any]:
        numbers = {"version": self.max_microversion, "min_version": self.min_microversion}
        links = [{"rel": "self", "href": f"{self.url}/"}]
        return {"id": "v2.1", "status": "CURRENT", "links": links} | (numbers if self.max_microversion else {})

    def _is_authenticated(self, request: Request) -> bool:
        if self.basic:
            expected = base64.b64encode(":".join(self.basic).encode()).decode()
            return request.headers.get("authorization") == f"Basic {expected}"
        return not self.keystone or request.headers.get("x-auth-token") == KEYSTONE_TOKEN

    def _answer_compute(self, request: Request, parts: list[str]) -> tuple[int, Any]:
        known = {server["id"]: server for server in self.servers}
        match [request.method, *parts]:
            case ["GET", "servers"] | ["GET", "servers", "detail"]:
                return 200, self._page(request)
            case ["GET", "servers", uuid] if uuid in known:
                return 200, {"server": known[uuid]}
            case ["POST", "servers", uuid, "remote-consoles"] if uuid in known:
                console = request.body["remote_console"]
                return 200, {"remote_console": {**console, "url": CONSOLE_URL}}
            case ["POST", "servers", uuid, "action"] if uuid in known:
                return 200, {"console": {"type": request.body["os-getVNCConsole"]["type"], "url": CONSOLE_URL}}
        return 404, {"itemNotFound": {"code": 404, "message": f"{request.path} could not be found."}}

    def _page(self, request: Request) -> dict[str, Any]:
        found = [server for server in self.servers if re.search(request.query.get("name", ""), server["name"])]
        ids = [server["id"] for server in found]
        start = ids.index(request.query["marker"]) + 1 if "marker" in request.query else 0
        size = min(self.page_size, int(request.query.get("limit", self.page_size)))
        page = {"servers": found[start : start + size]}
        marker = page["servers"][-1]["id"] if page["servers"] else ""
        more = {"servers_links": [{"rel": "next", "href": f"{self.url}/servers?marker={marker}"}]}
        return page | (more if len(found) > start + size else {})

    def _answer_keystone(self, path: str) -> tuple[int, Any]:
        if path == "/v3":
            links = [{"rel": "self", "href": f"{self.root}/v3/"}]
            return 200, {"version": {"id": "v3.14", "status": "stable", "links": links, "media-types": []}}
        endpoint = {"id": "e", "interface": "public", "region": "R", "region_id": "R", "url": self.url}
        catalog = [{"type": "compute", "name": "nova", "id": "c", "endpoints": [endpoint]}]
        return 201, {
            "token": {
                "methods": ["password"],
                "user": {"id": "u", "name": "demo", "domain": {"id": "d", "name": "Default"}},
                "project": {"id": "p", "name": "demo", "domain": {"id": "d", "name": "Default"}},
                "expires_at": "2099-01-01T00:00:00.000000Z",
                "issued_at": "2020-01-01T00:00:00.000000Z",
                "roles": [],
                "catalog": catalog,
            }
        }

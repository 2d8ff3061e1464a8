# SPDX-License-Identifier: Apache-2.0
"""The HTTP server of porthole-api in this process, and clients that send exactly what a test says."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator

from porthole_api.auth import WsgiApplication
from porthole_api.http_server import HttpServer
from support.api import build_uuid

PATH = f"/v2.1/servers/{build_uuid(1)}/action"
BODY = json.dumps({"os-getVNCConsole": {"type": "novnc"}}).encode()
GET = b"GET /v2.1/servers HTTP/1.1\r\nHost: localhost\r\n\r\n"
THREADS = 3


@contextlib.contextmanager
def serving(application: WsgiApplication) -> Iterator[HttpServer]:
    """Serve a WSGI application on a port of loopback, with ``THREADS`` threads."""
    server = HttpServer(application, "127.0.0.1", 0, THREADS)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Client:
    """One connection, on which bytes are sent as they are."""

    def __init__(self, server: HttpServer, host: str = "127.0.0.1", send_buffer_bytes: int = 0) -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if send_buffer_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        self.sock.settimeout(30)
        self.sock.connect((host, server.port))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read_answer(self) -> tuple[int, http.client.HTTPResponse, bytes]:
        response = http.client.HTTPResponse(self.sock)
        response.begin()
        return response.status, response, response.read()

    def is_at_end(self) -> bool:
        """Whether the server has closed in order: an end, not a reset."""
        return self.sock.recv(1) == b""


def build_post(body: bytes, path: str = PATH, length: object = None, **headers: str) -> bytes:
    length = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", f"Content-Length: {length}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_all(client: Client) -> bytes:
    data = b""
    while block := client.sock.recv(1 << 16):
        data += block
    return data

# SPDX-License-Identifier: Apache-2.0
"""What a user does with a console: asks the api for a URL, and opens it on the proxy.

Why: the tests of the whole path read as the path; the WebSocket side is the ``websockets`` library, a peer that
nobody here wrote.
"""

import contextlib
import http.client
import json
import socket
import time
import urllib.parse
from datetime import datetime
from typing import Any

import websockets.exceptions
import websockets.sync.client
from websockets.sync.connection import Connection

from support.daemons import Porthole
from support.processes import wait_until

GREETING = b"RFB 003.008\n"


def ask_console(porthole: Porthole, instance_uuid: str, console_type: str = "novnc") -> tuple[int, dict[str, Any]]:
    """Ask for a console by the action; return status and body."""
    body = json.dumps({"os-getVNCConsole": {"type": console_type}}).encode()
    status, answer = porthole.request(f"/v2.1/servers/{instance_uuid}/action", body)
    return status, json.loads(answer)


def ask_remote_console(
    porthole: Porthole, instance_uuid: str, console_type: str = "novnc"
) -> tuple[int, dict[str, Any]]:
    """Ask for a console by the remote-consoles route; return status and body."""
    body = json.dumps({"remote_console": {"protocol": "vnc", "type": console_type}}).encode()
    headers = {"OpenStack-API-Version": "compute 2.96"}
    status, answer = porthole.request(f"/v2.1/servers/{instance_uuid}/remote-consoles", body, headers)
    return status, json.loads(answer)


def get_console(porthole: Porthole, instance_uuid: str, console_type: str = "novnc") -> str:
    """Return the URL of a new console."""
    status, body = ask_console(porthole, instance_uuid, console_type)
    assert status == 200, body
    url: str = body["console"]["url"]
    return url


def get_console_and_end(porthole: Porthole, instance_uuid: str) -> tuple[str, datetime]:
    """Return the URL of a new console, and until when it opens one."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", porthole.api_port, timeout=60)) as client:
        body = json.dumps({"os-getVNCConsole": {"type": "novnc"}})
        client.request("POST", f"/v2.1/servers/{instance_uuid}/action", body, {"Content-Type": "application/json"})
        answer = client.getresponse()
        said = json.loads(answer.read())
    assert answer.status == 200, said
    return said["console"]["url"], datetime.fromisoformat(answer.headers["Porthole-Expires-At"])


def token_of(url: str) -> str:
    """Return the token in a console URL, novnc's or xvpvnc's."""
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    if "path" in query:
        query = urllib.parse.parse_qs(query["path"][0].lstrip("?"))
    return query["token"][0]


def wait_for_instances(porthole: Porthole, *uuids: str) -> None:
    """Return once the api knows the instances."""

    def known() -> bool:
        status, body = porthole.request("/v2.1/servers")
        return status == 200 and set(uuids) <= {server["id"] for server in json.loads(body)["servers"]}

    wait_until(known, 30, "the api to know the instances")


def wait_for_status(porthole: Porthole, instance_uuid: str, status: str) -> None:
    """Return once the api shows the instance with ``status`` (ACTIVE, SHUTOFF, ...)."""

    def shown() -> bool:
        code, body = porthole.request(f"/v2.1/servers/{instance_uuid}")
        return code == 200 and json.loads(body)["server"]["status"] == status

    wait_until(shown, 30, f"the api to show {status}")


def open_console(port: int, token: str, origin: str | None = None) -> Connection:
    """Upgrade on the proxy and return the WebSocket; its first message is not read yet."""
    return websockets.sync.client.connect(
        f"ws://127.0.0.1:{port}/?token={token}",
        subprotocols=[websockets.Subprotocol("binary")],
        origin=None if origin is None else websockets.Origin(origin),
        proxy=None,
        max_size=None,
        # Longer than a broker takes to start on a busy machine, while a test holds the proxy.
        open_timeout=60,
    )


def refusal(port: int, token: str, origin: str | None = None) -> int:
    """Return the status the proxy refuses an upgrade with, having made sure that it sent no body; 101 if it did not."""
    try:
        with open_console(port, token, origin):
            return 101
    except websockets.exceptions.InvalidStatus as exc:
        response = exc.response
    assert response.headers["Content-Length"] == "0"
    assert not response.body
    return response.status_code


def read_greeting(connection: Connection) -> bytes:
    """Return the first 12 bytes, a VNC server's version, however they are framed."""
    received = b""
    while len(received) < len(GREETING):
        message = connection.recv(timeout=20)
        assert isinstance(message, bytes)
        received += message
    return received


def is_alive(connection: Connection) -> bool:
    """Whether the console still leads to its :class:`support.vnc_servers.EchoVnc`."""
    try:
        connection.send(b"?")
        return connection.recv(timeout=20) == b"?"
    except websockets.exceptions.ConnectionClosed:
        return False


def exchange_rfb(connection: Connection) -> str:
    """Go through RFB's handshake without authentication (RFC 6143 section 7.1 to 7.3); return the desktop's name."""
    buffer = bytearray(read_greeting(connection))

    def take(size: int) -> bytes:
        while len(buffer) < size:
            message = connection.recv(timeout=20)
            assert isinstance(message, bytes)
            buffer.extend(message)
        taken = bytes(buffer[:size])
        del buffer[:size]
        return taken

    assert take(12) == GREETING
    connection.send(GREETING)
    types = take(take(1)[0])
    assert 1 in types
    connection.send(b"\x01")
    assert take(4) == b"\0\0\0\0"
    connection.send(b"\x01")
    header = take(24)
    return take(int.from_bytes(header[20:24], "big")).decode()


def connect_xvp(port: int, token: str) -> tuple[bytes, socket.socket]:
    """Send CONNECT as a native viewer does; return the status line, and the socket read up to the blank line."""
    sock = socket.create_connection(("127.0.0.1", port), 30)
    sock.sendall(f"CONNECT /console?token={token} HTTP/1.0\r\n\r\n".encode())
    reply = b""
    deadline = time.monotonic() + 30
    while not reply.endswith(b"\r\n\r\n"):
        assert time.monotonic() < deadline
        byte = sock.recv(1)
        assert byte, reply
        reply += byte
    return reply.split(b"\r\n")[0], sock

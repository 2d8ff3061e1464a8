# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the proxy that does what a test says: refuse with any status, speak a little RFB, close with any code.

Why: the console page has words for a dozen ends of a session, of which the real proxy gives some only once in a while.
The pages come from the real :class:`porthole_novncproxy.front.pages.Pages`.
"""

import http
import json
import queue
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, cast

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from porthole_novncproxy.front.pages import Pages
from support.deadlines import join_within

WIDTH, HEIGHT = 320, 200
COLOUR = (30, 90, 160)
WAIT_S = 30


@dataclass
class Session:
    """A WebSocket that was let in; ``keys``: (keysym, is down) of each RFB KeyEvent (RFC 6143 section 7.5.4)."""

    connection: ServerConnection
    path: str
    keys: "queue.Queue[tuple[int, bool]]" = field(default_factory=queue.Queue)

    def close(self, code: int, reason: str = "") -> None:
        """End it as the proxy would."""
        self.connection.close(code, reason)

    def cut(self) -> None:
        """End it as a broken network would."""
        self.connection.socket.close()

    def next_keys(self, count: int) -> list[tuple[int, bool]]:
        """Return the next ``count`` key events, as they come."""
        return [self.keys.get(timeout=WAIT_S) for _ in range(count)]


class ConsoleServer:
    """Pages and a screen of one colour at ``url``.

    ``refuse_upgrade``: the status a WebSocket gets, or None to let it in. ``probe``: the status and JSON reason a plain
    GET gets. ``asks_password``: the VNC server wants VNC authentication, and then says yes or no to any answer
    (``accepts_password``). ``first_words``: what it says first. ``prefix``: a sub-path below which the pages lie.
    """

    def __init__(self, web_root: str = "/usr/share/novnc") -> None:
        self._pages = Pages(web_root, ["'self'"])
        self.refuse_upgrade: int | None = None
        self.probe: tuple[int, str] = (200, "")
        self.asks_password = False
        self.accepts_password = True
        self.first_words = b"RFB 003.008\n"
        self.desktop_name = "QEMU (vm1)"
        self.prefix = ""
        self.sessions: queue.Queue[Session] = queue.Queue()
        self.probes: list[Request] = []
        self.requests: list[Request] = []
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """The page's folder, without a slash at the end."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def start(self) -> None:
        """Serve on a free port of loopback."""
        self._server = serve(
            self._run_session,
            "127.0.0.1",
            0,
            process_request=self._answer,
            select_subprotocol=lambda _connection, offered: Subprotocol("binary") if "binary" in offered else None,
            compression=None,
            # A page that is gone answers no close frame.
            close_timeout=1,
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="console-server")
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; open sessions are cut."""
        if self._server is None:
            return
        self._server.shutdown()
        join_within(WAIT_S, self._thread)
        self._server = None

    def stop_listening(self) -> None:
        """Refuse every further connection; those that are open stay."""
        assert self._server is not None
        self._server.socket.close()

    def next_session(self) -> Session:
        """Return the next WebSocket that was let in."""
        return self.sessions.get(timeout=WAIT_S)

    def _answer(self, _connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if "Upgrade" in request.headers:
            return _response(self.refuse_upgrade, {}, b"") if self.refuse_upgrade else None
        if "application/json" in request.headers.get("Accept", ""):
            self.probes.append(request)
            code, reason = self.probe
            body = json.dumps({"code": code, "reason": reason}).encode()
            return _response(code, {"Content-Type": "application/json"}, body)
        page = self._pages.respond(request.path.removeprefix(self.prefix), request.headers.get("If-Modified-Since"))
        return _response(page.status, dict(page.headers), page.file.read_bytes() if page.file else page.body)

    def _run_session(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        session = Session(connection, connection.request.path)
        try:
            self.sessions.put(session)
            self._speak(session, _Stream(connection))
        except (ConnectionClosed, OSError):
            return

    def _speak(self, session: Session, stream: "_Stream") -> None:
        """Be a VNC server: RFC 6143 sections 7.1 to 7.5, one raw rectangle per update."""
        connection = session.connection
        connection.send(self.first_words)
        stream.read(12)
        connection.send(bytes([1, 2 if self.asks_password else 1]))
        stream.read(1)
        if self.asks_password:
            connection.send(bytes(16))
            stream.read(16)
        if self.asks_password and not self.accepts_password:
            reason = b"Authentication failure"
            connection.send(struct.pack(">II", 1, len(reason)) + reason)
            return
        connection.send(struct.pack(">I", 0))
        stream.read(1)
        name = self.desktop_name.encode()
        pixel_format = struct.pack(">BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
        connection.send(struct.pack(">HH", WIDTH, HEIGHT) + pixel_format + struct.pack(">I", len(name)) + name)
        self._serve_screen(session, stream)

    def _serve_screen(self, session: Session, stream: "_Stream") -> None:
        drawn = False
        while True:
            kind = stream.read(1)[0]
            if kind == 0:
                stream.read(19)
            elif kind == 2:
                stream.read(4 * struct.unpack(">xH", stream.read(3))[0])
            elif kind == 3:
                stream.read(9)
                if not drawn:
                    session.connection.send(struct.pack(">BxH4Hi", 0, 1, 0, 0, WIDTH, HEIGHT, 0) + _screen())
                drawn = True
            elif kind == 4:
                is_down, keysym = struct.unpack(">BxxI", stream.read(7))
                session.keys.put((keysym, bool(is_down)))
            elif kind == 5:
                stream.read(5)
            else:
                stream.read(struct.unpack(">xxxI", stream.read(7))[0])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Stream:
    """The bytes of a WebSocket's messages, whatever their frames."""

    def __init__(self, connection: ServerConnection) -> None:
        self._messages = cast("Iterator[bytes]", iter(connection))
        self._held = b""

    def read(self, size: int) -> bytes:
        while len(self._held) < size:
            message = next(self._messages, None)
            if message is None:
                raise OSError("the WebSocket has ended")
            self._held += message
        data, self._held = self._held[:size], self._held[size:]
        return data


def _screen() -> bytes:
    """One colour, in the pixel format that noVNC sets: red in the lowest byte.

    The fourth byte is not part of a colour, but noVNC 1.3 lets the last few through to the canvas as they are.
    """
    return bytes([*COLOUR, 255]) * (WIDTH * HEIGHT)


def _response(status: int, headers: dict[str, str], body: bytes) -> Response:
    return Response(
        status, http.HTTPStatus(status).phrase, Headers({"Content-Length": str(len(body)), **headers}), body
    )

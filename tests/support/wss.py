# SPDX-License-Identifier: Apache-2.0
"""``websockets`` over TLS, for tests that are not asynchronous.

Why not ``websockets.sync``: its two threads read and write one TLS connection at once, which Python's ssl module bears
from 3.13 on; before, a connection in a few hundred stands still. asyncio does all of it in one thread.
"""

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import websockets
from websockets.asyncio.client import connect

Result = TypeVar("Result")
TIMEOUT_S = 30.0


class WssClient:
    """One open WebSocket over TLS to localhost, with an event loop of its own."""

    def __init__(self, port: int, token: str, context: ssl.SSLContext) -> None:
        """Upgrade as a browser does.

        :raises ssl.SSLError: when TLS fails.
        :raises websockets.exceptions.InvalidStatus: when the upgrade is refused.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wss-client", daemon=True)
        self._thread.start()
        try:
            self._client = self._run(self._connect(f"wss://localhost:{port}/?token={token}", context))
        except BaseException:
            self._end()
            raise

    def send(self, payload: bytes) -> None:
        """Send one binary message; waits while the other side takes nothing."""
        self._run(self._client.send(payload))

    def receive(self, timeout_s: float = TIMEOUT_S) -> bytes:
        """Return the next message.

        :raises TimeoutError: when none comes within ``timeout_s``.
        :raises websockets.exceptions.ConnectionClosed: when the connection has ended.
        """
        message = self._run(asyncio.wait_for(self._client.recv(), timeout_s))
        assert isinstance(message, bytes)
        return message

    def close(self) -> None:
        """Close with 1000, and end the thread."""
        try:
            self._run(self._client.close())
        finally:
            self._end()

    async def _connect(self, url: str, context: ssl.SSLContext) -> Any:
        return await connect(
            url,
            ssl=context,
            origin=websockets.Origin("https://localhost"),
            subprotocols=[websockets.Subprotocol("binary")],
            proxy=None,
            max_size=None,
            open_timeout=TIMEOUT_S,
        )

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * TIMEOUT_S)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

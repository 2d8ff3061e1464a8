# SPDX-License-Identifier: Apache-2.0
"""Clients that do their worst, each kind in a process of its own until it is stopped.

Why processes: what an attacker costs is then its own, and not the measuring client's. They come from another address of
loopback than everybody else, as a stranger does. Called by :mod:`benchmarks.hostile`.
"""

import asyncio
import base64
import contextlib
import multiprocessing
import ssl
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

from benchmarks import peers

ADDRESS = "127.0.0.66"
# A client that was turned away comes back after this pause: it is no race of its own processor.
_PAUSE_S = 0.01
# How long a client of a crowd waits for an answer, or holds what it has.
_PATIENCE_S = 60.0
# An attacker that is left behind ends by itself.
_LIFE_S = 600.0
_FRAMES_AT_ONCE = 10_000
_SPAWN = multiprocessing.get_context("spawn")


@contextlib.contextmanager
def going_on(attack: Callable[..., None], *arguments: object) -> Iterator[None]:
    """Run ``attack(*arguments)`` in a process while the block runs."""
    process = _SPAWN.Process(target=attack, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join(60)


def flood_consoles(port: int, tokens: Sequence[str], frame: bytes) -> None:
    """Send ``frame`` as fast as it goes in a console of each token; read nothing."""
    for token in tokens:
        threading.Thread(target=_flood, args=(port, token, frame), daemon=True).start()
    time.sleep(_LIFE_S)


def _flood(port: int, token: str, frame: bytes) -> None:
    block = frame * _FRAMES_AT_ONCE
    with peers.connect(port, token, source=ADDRESS) as sock:
        while True:
            sock.sendall(block)


def send_to_many(port: int, count: int, request: bytes) -> None:
    """Keep ``count`` connections on which ``request`` was sent, and read until the server ends them."""

    async def one() -> None:
        async with _connection(port) as (reader, writer):
            writer.write(request)
            while await reader.read(65536):
                pass

    asyncio.run(_crowd(count, one))


def guess_tokens(port: int, count: int) -> None:
    """Ask for consoles with tokens that nobody has, from ``count`` clients that come back at once."""

    async def one() -> None:
        await _ask(port, str(uuid.uuid4()))

    asyncio.run(_crowd(count, one))


def open_consoles(port: int, tokens: Sequence[str], count: int) -> None:
    """Ask for the consoles of ``tokens`` in turn, from ``count`` clients that come back at once."""
    turns = iter(range(1 << 62))

    async def one() -> None:
        await _ask(port, tokens[next(turns) % len(tokens)])

    asyncio.run(_crowd(count, one))


async def _ask(port: int, token: str) -> None:
    async with _connection(port) as (reader, writer):
        writer.write(peers.upgrade(token))
        await reader.read(4096)


def replay_hellos(port: int, rate: float) -> None:
    """Send a recorded ClientHello on ``rate`` new connections a second, and leave when the server has answered."""
    hello = record_hello()

    async def one() -> None:
        async with _connection(port) as (reader, writer):
            writer.write(hello)
            await reader.read(65536)

    asyncio.run(_at_rate(rate, one))


def guess_passwords(port: int, user: str, rate: float) -> None:
    """Ask the api for its servers with ``rate`` wrong passwords a second."""

    async def one() -> None:
        login = base64.b64encode(f"{user}:{uuid.uuid4()}".encode()).decode()
        async with _connection(port) as (reader, writer):
            writer.write(
                f"GET /v2.1/servers HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {login}\r\n\r\n".encode()
            )
            await reader.read(4096)

    asyncio.run(_at_rate(rate, one))


def record_hello() -> bytes:
    """Return the ClientHello of this Python's TLS (RFC 8446 section 4.1.2)."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


@contextlib.asynccontextmanager
async def _connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Yield a connection; it is cut at the end, or when nothing has come of it for a long time."""
    async with asyncio.timeout(_PATIENCE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0))
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def _crowd(count: int, one: Callable[[], Awaitable[None]]) -> None:
    """Let ``count`` clients do ``one`` again and again."""

    async def again() -> None:
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                await one()
            await asyncio.sleep(_PAUSE_S)

    await asyncio.gather(*(again() for _ in range(count)))


async def _at_rate(rate: float, one: Callable[[], Awaitable[None]]) -> None:
    """Begin ``one`` so many times a second, whether or not those before have ended."""

    async def once() -> None:
        with contextlib.suppress(OSError, TimeoutError):
            await one()

    begun, count = time.monotonic(), 0
    running: set[asyncio.Task[None]] = set()
    while True:
        task = asyncio.create_task(once())
        running.add(task)
        task.add_done_callback(running.discard)
        count += 1
        await asyncio.sleep(max(0.0, begun + count / rate - time.monotonic()))

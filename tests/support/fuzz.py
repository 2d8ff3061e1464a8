# SPDX-License-Identifier: Apache-2.0
"""Hostile bytes for the three doors that strangers reach: the proxy's two ports and the API.

Why beside the property tests: those know one function each. Here everything that stands behind a port gets valid
requests that were damaged, requests that were put together out of bad parts, and noise; a seed makes it the same again.
"""

import contextlib
import itertools
import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from support.deadlines import join_within
from support.websocket import build_frame, build_upgrade

NOVNC, XVPVNC, API = "novnc", "xvpvnc", "api"
# Of the daemons' own deadlines the longest is 10 s for a request; whoever is silent for longer hangs.
ANSWER_S = 20.0
_METHODS = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PRI", "get", "", "G\0T", "A" * 9000]
_VERSIONS = ["HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.1 x", "HTTP/11111111111", "", "ICAP/1.0"]
_PATHS = [
    "/",
    "//host/%2F..",
    "/../../etc/passwd",
    "/%2e%2e/",
    "/%00",
    "/\\\\host",
    "*",
    "http://host/",
    "/?token=",
    "/?token=%ff",
    "/?token=a&token=b",
    "/console.html",
    "/console.html?path=%3Ftoken%3Dx",
    "/core/rfb.js",
    "/console",
    "/v2.1/servers",
    "/v2.1/servers/detail?name=(((&limit=-1",
    "/v2.1/servers?marker=%F0%28%8C%28",
    "/v2.1",
    "/healthcheck",
    "/v2.1/os-console-auth-tokens/x",
    "/v2.1/servers?limit=99999999999999999999",
    "/" + "a/" * 4000,
    "/?" + "a=b&" * 2000,
]
_HEADERS = [
    "Host: localhost",
    "Host: ",
    "Host: [::1",
    "Host: a\r\nHost: b",
    "Origin: null",
    "Origin: http://[",
    "Cookie: ?=!; token=x",
    "Cookie: " + "a=b; " * 800,
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Content-Length: 1, 1",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked, gzip",
    "Upgrade: websocket",
    "Connection: Upgrade, close",
    "Sec-WebSocket-Key: x",
    "Sec-WebSocket-Version: 8",
    "Sec-WebSocket-Protocol: binary",
    "Content-Type: application/json",
    "Content-Type: \xff",
    "X-Forwarded-Proto: https",
    "OpenStack-API-Version: compute 2.96",
    "OpenStack-API-Version: compute 99999999999.1",
    "X-OpenStack-Nova-API-Version: latest",
    "Expect: 100-continue",
    "X-Auth-Token: \x80",
    "Range: bytes=0-0,1-1",
    "Accept: application/json",
    ": empty",
    "no colon",
    " folded",
    "A" * 70000 + ": b",
]
_VALUES: list[object] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    "",
    "novnc",
    "xvpvnc",
    "\ud800",
    "\0",
    "a" * 70000,
    [],
    {},
    [[]] * 50,
    {"type": "novnc"},
]


@dataclass(frozen=True)
class Targets:
    """The doors' ports, an instance, and a token that opens it at each of the proxy's doors."""

    ports: Mapping[str, int]
    instance: str
    tokens: Mapping[str, str]


@dataclass
class Outcome:
    """What came of it all: answers by door and status, and those who waited in vain."""

    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def build_input(seed: int, targets: Targets) -> tuple[str, list[bytes]]:
    """Return the door and the segments that input number ``seed`` consists of."""
    chance = random.Random(seed)
    door = chance.choice([NOVNC, XVPVNC, API])
    kind = chance.randrange(10)
    if kind == 0:
        return door, [chance.randbytes(chance.randrange(1, 3000))]
    if kind <= 3:
        return door, [_compose(chance)]
    if kind <= 6 and door == NOVNC:
        upgrade = build_upgrade(f"/?token={targets.tokens[door]}", [("Sec-WebSocket-Protocol", "binary")])
        return door, [upgrade, _damage(chance, b"".join(_build_frames(chance)))]
    whole = _build_valid(chance, door, targets)
    return door, [_damage(chance, whole)]


def _compose(chance: random.Random) -> bytes:
    lines = [f"{chance.choice(_METHODS)} {chance.choice(_PATHS)} {chance.choice(_VERSIONS)}"]
    lines += chance.sample(_HEADERS, chance.randrange(6))
    end = chance.choice(["\r\n", "\n", "\r", "\r\n\0"])
    return (end.join(lines) + end * 2).encode("latin-1", "replace") + chance.randbytes(chance.randrange(50))


def _build_valid(chance: random.Random, door: str, targets: Targets) -> bytes:
    """Return a request that would do, or whose one fault lies in its body."""
    if door == NOVNC:
        return build_upgrade(f"/?token={targets.tokens[door]}", [("Origin", "http://localhost"), ("Cookie", "a=b")])
    if door == XVPVNC:
        return f"CONNECT /console?token={targets.tokens[door]} HTTP/1.0\r\n\r\n".encode() + chance.randbytes(30)
    value = chance.choice(_VALUES)
    route, document = chance.choice(
        [
            ("action", {"os-getVNCConsole": value}),
            ("action", {"os-getVNCConsole": {"type": value}}),
            ("action", {str(value)[:40]: value}),
            ("remote-consoles", {"remote_console": {"protocol": value, "type": value}}),
            ("remote-consoles", {"remote_console": {"protocol": "vnc", "type": "novnc"}}),
        ]
    )
    body = json.dumps(document).encode()
    head = (
        f"POST /v2.1/servers/{targets.instance}/{route} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        "OpenStack-API-Version: compute 2.96\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _build_frames(chance: random.Random) -> Iterator[bytes]:
    for _ in range(chance.randrange(1, 6)):
        payload = chance.randbytes(chance.choice([0, 1, 125, 126, 127, 2000]))
        yield build_frame(chance.randrange(16), payload, first=chance.choice([0x80, 0x80, 0x00, 0xC0, 0xF0]))


def _damage(chance: random.Random, data: bytes) -> bytes:
    """Return ``data`` with up to three bytes changed, cut out, repeated or put in; now and then as it was."""
    damaged = bytearray(data)
    for _ in range(chance.randrange(4)):
        at, size = chance.randrange(len(damaged) + 1), chance.randrange(1, 9)
        change = chance.randrange(4)
        if change == 0:
            damaged[at : at + size] = chance.randbytes(size)
        elif change == 1:
            del damaged[at : at + size]
        elif change == 2:
            damaged[at:at] = damaged[at : at + size] * chance.choice([1, 2, 300])
        else:
            damaged[at:at] = chance.choice([b"\r\n", b"\0", b"\xff" * 8, b"%", b"\r\n\r\n", b"{" * 2000, b" "])
    return bytes(damaged)


def send(port: int, segments: Sequence[bytes]) -> str:
    """Send everything, end the stream, and read to the end; return the status that was answered, or what else.

    :raises TimeoutError: when neither an end nor anything else comes.
    """
    received = b""
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), ANSWER_S) as sock:
        for segment in segments:
            sock.sendall(segment)
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(65536):
            # The status is all that is looked at.
            received = (received + data)[:4096]
    words = received.split(b" ", 2)
    if not received:
        return "nothing"
    return words[1].decode("latin-1") if len(words) > 2 and words[0].startswith(b"HTTP/") else "other bytes"


def fuzz(targets: Targets, seeds: range, threads: int = 8) -> Outcome:
    """Send the inputs of ``seeds``; a fault is an answer 500, or none in time."""
    outcome = Outcome()
    lock = threading.Lock()
    numbers = iter(seeds)

    def work() -> None:
        while True:
            with lock:
                seed = next(numbers, None)
            if seed is None:
                return
            door, segments = build_input(seed, targets)
            try:
                status = send(targets.ports[door], segments)
            except TimeoutError:
                status = "timeout"
            with lock:
                outcome.answers[f"{door} {status}"] += 1
                if status in {"500", "timeout"}:
                    outcome.faults.append(f"seed {seed} at {door}: {status}")

    workers = [threading.Thread(target=work, name=f"fuzz-{number}") for number in range(threads)]
    for worker in workers:
        worker.start()
    join_within(len(seeds) * ANSWER_S, *workers)
    return outcome


def batches(total: int, count: int) -> list[range]:
    """Cut ``total`` seeds into ``count`` ranges, between which memory can be looked at."""
    edges = [total * number // count for number in range(count + 1)]
    return [range(*pair) for pair in itertools.pairwise(edges)]

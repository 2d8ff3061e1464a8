# SPDX-License-Identifier: Apache-2.0
"""What others notice while somebody does their worst: each attack's row beside a quiet one of the same run.

The attackers come from one address (:mod:`benchmarks.attacks`); the clients that are measured come from another.
"""

import base64
import concurrent.futures
import contextlib
import http.client
import math
import os
import resource
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

import bcrypt

from benchmarks import attacks, peers
from benchmarks.attacks import going_on
from benchmarks.bed import Bed, make_bed
from benchmarks.cpu import tree
from benchmarks.latency import echo
from benchmarks.table import Row, percentile
from support.certificates import make_certificate
from support.ports import free_port

QUIET_S = 5.0
ATTACK_S = 10.0
# An attack gets so long to reach its full weight before anything is measured.
_WARM_UP_S = 1.0
# Longer than the proxy and the api keep a connection that says nothing.
_SETTLE_S = 40.0
_ECHO_PAUSE_S = 0.005
_PAUSE_S = 0.1
_PATIENCE_S = 60.0
_SILENT_INSTANCES = 4
_FEW_DESCRIPTORS = 512
_RSA_BITS = 4096
_USER = "rita"
_HALF_POST = b"POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n"
_EMPTY_FRAME = peers.frame(b"")
_PING = b"\x89\x80\1\2\3\4"
# FramebufferUpdateRequest (RFC 6143 section 7.5.3).
_UPDATE_REQUEST = peers.frame(b"\x03\1\0\0\0\0\4\0\3\0")
# What is noticed, and what is asked of it.
_FIGURES = (
    ("echo, p99", "at most 50 ms"),
    ("opening, longest", "at most 2000 ms"),
    ("the proxy's health check, longest", "at most 500 ms"),
    ("the api's health check, longest", "at most 500 ms"),
)


def run() -> list[Row]:
    """Return, for each attack, what an open console, a new one and the health checks take, beside a quiet run."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        certificate = make_certificate(directory, rsa_bits=_RSA_BITS)
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        held = {str(uuid.uuid4()): silent.getsockname()[1] for _ in range(_SILENT_INSTANCES)}
        bed = stack.enter_context(
            make_bed({"DEFAULT": {"cert": certificate.cert, "key": certificate.key}}, others=held)
        )
        before = _count(bed)
        rows = _rows(bed, list(held))
        # What the attackers left is let go with the proxy's own deadlines.
        time.sleep(_SETTLE_S)
        rows += [
            Row(f"{name} of proxy and api afterwards", now, "", "before", then, "as before")
            for name, now, then in zip(("descriptors", "threads"), _count(bed), before, strict=True)
        ]
        rows += _password_rows(bed, directory / "htpasswd")
        rows += _descriptor_rows(bed)
    return rows


def _rows(bed: Bed, silent: list[str]) -> list[Row]:
    proxy, api = bed.porthole.novnc_port, bed.porthole.api_port
    tokens = [bed.token(name) for name in bed.instances[1:6]]
    silent_tokens = [bed.token(name) for name in silent]
    chosen: list[tuple[str, Callable[..., None], tuple[object, ...]]] = [
        ("empty frames, 1 console", attacks.flood_consoles, (proxy, tokens[:1], _EMPTY_FRAME)),
        ("empty frames, 5 consoles", attacks.flood_consoles, (proxy, tokens, _EMPTY_FRAME)),
        ("pings, 1 console", attacks.flood_consoles, (proxy, tokens[:1], _PING)),
        ("update requests, 1 console", attacks.flood_consoles, (proxy, tokens[:1], _UPDATE_REQUEST)),
        ("200 first bytes to the api", attacks.send_to_many, (api, 200, b"G")),
        ("200 POSTs without their body", attacks.send_to_many, (api, 200, _HALF_POST)),
        ("600 idle connections to the api", attacks.send_to_many, (api, 600, b"")),
        (f"200 ClientHellos a second, RSA-{_RSA_BITS}", attacks.replay_hellos, (proxy, 200.0)),
        ("400 clients with unknown tokens", attacks.guess_tokens, (proxy, 400)),
        ("1500 clients with unknown tokens", attacks.guess_tokens, (proxy, 1500)),
        ("200 clients of 4 silent VNC servers", attacks.open_consoles, (proxy, silent_tokens, 200)),
    ]
    rows = []
    for name, attack, arguments in chosen:
        rows += _compare(bed, name, attack, *arguments)
    return rows


def _descriptor_rows(bed: Bed) -> list[Row]:
    """One address keeps more silent connections than the proxy may have descriptors."""
    bed.porthole.novncproxy.stop()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FEW_DESCRIPTORS, hard))
    try:
        bed.porthole.start_daemon("novncproxy")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    name = f"700 silent connections, {_FEW_DESCRIPTORS} descriptors"
    return _compare(bed, name, attacks.send_to_many, bed.porthole.novnc_port, 700, b"")


def _password_rows(bed: Bed, users: Path) -> list[Row]:
    """The time of a right password in an api beside the first, while wrong ones come for the same user."""
    users.write_text(f"{_USER}:{bcrypt.hashpw(_USER.encode(), bcrypt.gensalt()).decode()}\n", encoding="utf-8")
    port = free_port()
    basic = {"bind_port": port, "auth_strategy": "http_basic", "http_basic_auth_user_file": users}
    bed.porthole.add("api", "basic-api", {"api": basic})
    bed.porthole.start_daemon("basic-api")
    login = base64.b64encode(f"{_USER}:{_USER}".encode()).decode()

    def ask() -> None:
        _get(port, "/v2.1/servers", {"Authorization": f"Basic {login}"})

    quiet = _Repeated(ask, _PAUSE_S).during(QUIET_S)
    with going_on(attacks.guess_passwords, port, _USER, 50.0):
        time.sleep(_WARM_UP_S)
        attacked = _Repeated(ask, _PAUSE_S).during(ATTACK_S)
    name = "50 wrong passwords a second: a right one"
    return [Row(name, max(attacked), "ms", "quiet", max(quiet), "at most 1000 ms")]


def _compare(bed: Bed, name: str, attack: Callable[..., None], *arguments: object) -> list[Row]:
    """Return an attack's rows: the same clients without it first, and then beside it."""
    token = bed.token(bed.instances[-1])
    with peers.connect(bed.porthole.novnc_port, token) as console:
        console.sendall(peers.frame(b"E"))
        quiet = _notice(bed, console, token, QUIET_S)
        with going_on(attack, *arguments):
            time.sleep(_WARM_UP_S)
            attacked = _notice(bed, console, token, ATTACK_S)
    peers.sleep_until_quiet()
    return [
        Row(f"{name}: {figure}", value, "ms", "quiet", peer, bar)
        for (figure, bar), value, peer in zip(_FIGURES, attacked, quiet, strict=True)
    ]


def _notice(bed: Bed, console: socket.socket, token: str, seconds: float) -> list[float]:
    """Return the values of :data:`_FIGURES`, in milliseconds; infinite where a client was refused."""
    proxy, api = bed.porthole.novnc_port, bed.porthole.api_port
    works = [
        _Repeated(lambda: echo(console), _ECHO_PAUSE_S),
        _Repeated(lambda: peers.connect(proxy, token).close(), _PAUSE_S),
        _Repeated(lambda: _get(proxy, "/healthcheck"), _PAUSE_S),
        _Repeated(lambda: _get(api, "/healthcheck"), _PAUSE_S),
    ]
    with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
        echoes, *others = pool.map(lambda work: work.during(seconds), works)
    return [percentile(echoes, 99), *map(max, others)]


def _get(port: int, path: str, headers: Mapping[str, str] | None = None) -> None:
    """Have a 200 from the proxy or the api, on a new connection."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)) as client:
        client.request("GET", path, headers=dict(headers or {}))
        answer = client.getresponse()
        answer.read()
        if answer.status != HTTPStatus.OK:
            raise ConnectionRefusedError(answer.status)


class _Repeated:
    """A call that a client makes again and again."""

    def __init__(self, call: Callable[[], object], pause_s: float) -> None:
        self._call = call
        self._pause_s = pause_s

    def during(self, seconds: float) -> list[float]:
        """Return how long each call took, in milliseconds; infinite for one that was refused."""
        times = []
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            begun = time.perf_counter()
            try:
                self._call()
            except (OSError, AssertionError, http.client.HTTPException):
                times.append(math.inf)
            else:
                times.append((time.perf_counter() - begun) * 1e3)
            time.sleep(self._pause_s)
        return times


def _count(bed: Bed) -> tuple[int, int]:
    """Return the descriptors and the threads of proxy and api together."""
    pids = [process for root in (bed.proxy_pid, bed.porthole.api.pid) for process in tree(root)]
    kinds = ("fd", "task")
    descriptors, threads = (sum(len(os.listdir(f"/proc/{pid}/{kind}")) for pid in pids) for kind in kinds)
    return descriptors, threads

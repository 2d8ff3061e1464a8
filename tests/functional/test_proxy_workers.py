# SPDX-License-Identifier: Apache-2.0
"""The proxy as several processes, and its end: a worker that is killed, a drain, a second SIGTERM, SIGHUP."""

import os
import signal
import time
import uuid as uuidlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import websockets.exceptions
import yaml
from websockets.sync.connection import Connection

from support.console import get_console, is_alive, open_console, read_greeting, refusal, token_of, wait_for_instances
from support.daemons import Porthole
from support.deadlines import REVOCATION_S, kept_within
from support.memcached import Memcached
from support.processes import wait_until
from support.rabbitmq import RabbitMQ
from support.vnc_servers import EchoVnc
from support.websocket import exchange

Start = Callable[..., tuple[Porthole, str]]
OpenSome = Callable[..., list[Connection]]
WORKERS = 2
SUCCESSOR = "successor"
CONSOLES = 12


@pytest.fixture(scope="module")
def vnc() -> Iterator[EchoVnc]:
    with EchoVnc() as server:
        yield server


@pytest.fixture(scope="module")
def others(
    tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitMQ, memcached: Memcached
) -> Iterator[tuple[Porthole, Path]]:
    """The daemons beside the proxy, and the file of compute's instances."""
    directory = tmp_path_factory.mktemp("workers")
    path = directory / "instances.yaml"
    path.write_text("instances: []\n", encoding="utf-8")
    daemons = ("consoleauth", "compute", "api")
    with Porthole(directory, rabbitmq, memcached, instances_file=path, daemons=daemons) as porthole:
        yield porthole, path


@pytest.fixture
def start(others: tuple[Porthole, Path], vnc: EchoVnc, request: pytest.FixtureRequest) -> Iterator[Start]:
    """A maker of a proxy, with two workers; it returns the daemons and a token of a new instance, their only one."""
    porthole, path = others

    def run(
        workers: int = WORKERS, novncproxy: dict[str, object] | None = None, **options: object
    ) -> tuple[Porthole, str]:
        uuid = str(uuidlib.uuid4())
        instance = {"uuid": uuid, "name": "echo", "host": "127.0.0.1", "port": vnc.port}
        path.write_text(yaml.safe_dump({"instances": [instance]}), encoding="utf-8")
        porthole.compute.signal(signal.SIGHUP)
        porthole.novncproxy = porthole.add(
            "novncproxy",
            request.node.name,
            {
                "DEFAULT": options,
                "novncproxy": {"workers": workers, "max_sessions_per_token": 50, **(novncproxy or {})},
            },
        )
        porthole.novncproxy.start()
        if workers > 1:
            for worker in range(workers):
                porthole.novncproxy.wait_for_line(f"Worker ready program=porthole-novncproxy worker={worker}")
        else:
            porthole.wait_ready(request.node.name)
        wait_for_instances(porthole, uuid)
        return porthole, token_of(get_console(porthole, uuid))

    yield run
    for name in (request.node.name, SUCCESSOR):
        if process := porthole.processes.pop(name, None):
            process.stop()


@pytest.fixture
def open_some() -> Iterator[OpenSome]:
    """Opens that many consoles, each past its greeting; they are closed after the test."""
    with ExitStack() as stack:

        def run(porthole: Porthole, token: str, count: int = CONSOLES) -> list[Connection]:
            connections = [stack.enter_context(open_console(porthole.novnc_port, token)) for _ in range(count)]
            for connection in connections:
                read_greeting(connection)
            return connections

        yield run


def close_code(connection: Connection) -> int | None:
    """Wait for the end and return the code the proxy sent; None when it sent none."""
    try:
        while True:
            connection.recv(timeout=30)
    except websockets.exceptions.ConnectionClosed as exc:
        return exc.rcvd.code if exc.rcvd else None


def test_a_killed_worker_takes_only_its_own_consoles_along(start: Start, open_some: OpenSome) -> None:
    porthole, token = start()
    before = porthole.novncproxy.children()
    assert len(before) == WORKERS
    connections = open_some(porthole, token)
    os.kill(min(before), signal.SIGKILL)
    alive = [is_alive(connection) for connection in connections]
    # Both had some: twelve connections that all fall to one of two workers are one chance in two thousand.
    assert 0 < sum(alive) < CONSOLES
    wait_until(lambda: len(porthole.novncproxy.children()) == WORKERS, 20, "the worker to be replaced")
    assert porthole.novncproxy.children() != before
    for _ in range(CONSOLES):
        assert refusal(porthole.novnc_port, token) == 101


def test_a_revocation_reaches_every_worker(start: Start, open_some: OpenSome, others: tuple[Porthole, Path]) -> None:
    porthole, token = start()
    connections = open_some(porthole, token)
    others[1].write_text("instances: []\n", encoding="utf-8")
    # The next inventory, which would end them too, is up to 30 s away.
    with kept_within(REVOCATION_S, "the revocation"):
        porthole.compute.signal(signal.SIGHUP)
        assert [close_code(connection) for connection in connections] == [4401] * CONSOLES
    assert refusal(porthole.novnc_port, token) == 401


@pytest.mark.parametrize(
    ("option", "code", "reason"),
    [
        ("idle_timeout", 4409, "The session was idle for too long"),
        ("max_session_time", 4408, "The time of this session is over"),
    ],
)
def test_an_option_ends_a_console(start: Start, open_some: OpenSome, option: str, code: int, reason: str) -> None:
    porthole, token = start(1, {option: 2})
    (connection,) = open_some(porthole, token, 1)
    with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
        connection.recv(timeout=20)
    received = caught.value.rcvd
    assert received
    assert (received.code, received.reason) == (code, reason)


def test_options_bound_a_request(start: Start) -> None:
    """Its size and its time."""
    porthole, _token = start(1, {"max_header_bytes": 1024, "request_timeout": 1})
    half = b"GET / HTTP/1.1\r\nHost: x\r\n"
    assert exchange(porthole.novnc_port, half + b"X: " + b"x" * 1024).status == 431
    assert exchange(porthole.novnc_port, half).status == 408
    log = porthole.novncproxy.log()
    for option in ("max_header_bytes", "request_timeout"):
        assert f'limit="[novncproxy] {option}"' in log


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_drain(start: Start, open_some: OpenSome, workers: int) -> None:
    """SIGTERM: the port is free at once, open consoles go on for their time, and then end with 1001 (O10)."""
    # Long enough for a look at open consoles on a busy machine, before they end.
    graceful_s = 8
    porthole, token = start(workers, graceful_shutdown_timeout=graceful_s)
    connections = open_some(porthole, token, 6)
    successor = porthole.add("novncproxy", SUCCESSOR)
    begun = time.monotonic()
    porthole.novncproxy.signal(signal.SIGTERM)
    wait_until(lambda: not listens(porthole), 30, "the doors to close")
    successor.start()
    assert all(is_alive(connection) for connection in connections)
    wait_until(lambda: listens(porthole), 30, "the successor to listen")
    assert [close_code(connection) for connection in connections] == [1001] * 6
    assert time.monotonic() - begun > graceful_s * 0.9
    assert porthole.novncproxy.wait(30) == 0
    wait_until(lambda: refusal(porthole.novnc_port, token) == 101, 20, "the successor to open consoles")


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_a_second_sigterm_ends_at_once(start: Start, open_some: OpenSome, workers: int) -> None:
    porthole, token = start(workers, graceful_shutdown_timeout=60)
    connections = open_some(porthole, token, 2)
    children = porthole.novncproxy.children()
    porthole.novncproxy.signal(signal.SIGTERM)
    wait_until(lambda: not listens(porthole), 30, "the doors to close")
    os.kill(porthole.novncproxy.pid, signal.SIGTERM)
    assert porthole.novncproxy.wait(10) != 0
    assert [close_code(connection) for connection in connections] == [None, None]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 30, "the workers to end")


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_sighup_rereads_limits_and_keeps_consoles(
    start: Start, open_some: OpenSome, workers: int, request: pytest.FixtureRequest
) -> None:
    porthole, token = start(workers)
    connections = open_some(porthole, token, 4)
    conf_path = porthole.directory / f"{request.node.name}.conf"
    text = conf_path.read_text(encoding="utf-8")
    conf_path.write_text(text.replace("max_sessions_per_token = 50", "max_sessions_per_token = 1"), "utf-8")
    porthole.novncproxy.signal(signal.SIGHUP)
    wait_for_count(porthole, "Configuration reread", workers)
    # Each worker counts for itself: one that has none of the four takes one more, and no worker takes a second.
    more = open_until_refused(open_some, porthole, token)
    assert len(more) < workers
    # What does not do leaves all as it was.
    for nonsense in ("max_sessions_per_token = 0", "max_sessions_per_token = many"):
        conf_path.write_text(text.replace("max_sessions_per_token = 50", nonsense), "utf-8")
        wanted = porthole.novncproxy.log().count("Configuration not reread") + workers
        porthole.novncproxy.signal(signal.SIGHUP)
        wait_for_count(porthole, "Configuration not reread", wanted)
        assert refusal(porthole.novnc_port, token) == 429
    assert all(is_alive(connection) for connection in [*connections, *more])


def open_until_refused(open_some: OpenSome, porthole: Porthole, token: str) -> list[Connection]:
    """Open consoles until the proxy has refused so many in a row that every worker was among those asked."""
    opened: list[Connection] = []
    refused = 0
    while refused < 32 and len(opened) < CONSOLES:
        try:
            opened += open_some(porthole, token, 1)
            refused = 0
        except websockets.exceptions.InvalidStatus as exc:
            if exc.response.status_code != 429:
                raise
            refused += 1
    return opened


def wait_for_count(porthole: Porthole, text: str, count: int) -> None:
    wait_until(lambda: porthole.novncproxy.log().count(text) >= count, 20, f"{count} times {text!r} in the log")


def listens(porthole: Porthole) -> bool:
    """Whether somebody listens on the noVNC port, without connecting to it."""
    wanted = f":{porthole.novnc_port:04X}"
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return any(fields[1].endswith(wanted) and fields[3] == "0A" for fields in map(str.split, lines))

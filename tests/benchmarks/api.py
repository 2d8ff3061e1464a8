# SPDX-License-Identifier: Apache-2.0
"""The api of a large cloud: 30 000 instances on 1 000 computes, which publish them on a real bus.

What a console costs is in :mod:`benchmarks.console`. Here it is lists, memory, the start of an api, and what is left
after ten thousand requests, a tenth of them bad.
"""

import contextlib
import http.client
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bare import time_ms
from benchmarks.cpu import allocated_kib, cpu_seconds, pss_kib, rss_kib
from benchmarks.table import Row, median
from support.daemons import Porthole
from support.fleet import Fleet, build_inventory, build_project_id
from support.memcached import Memcached
from support.ports import free_port
from support.processes import Process, wait_until
from support.rabbitmq import RabbitMQ

HOSTS = 1000
INSTANCES = 30
ROUNDS = 40
REQUESTS = 10_000
WARM_UP = 2_000
# How long the warm-up goes on: until every compute has published its inventory once more.
WARM_UP_S = 40
STARTS = 3
_CLIENTS = 8
_LATEST = {"OpenStack-API-Version": "compute 2.96"}
_TIMEOUT_S = 120
_STORM_TIMEOUT_S = 1800
# An instance in the middle of the order.
_WANTED = build_inventory(HOSTS // 2, INSTANCES).instances[0]
_LISTS = {
    "first page of detail": "/v2.1/servers/detail",
    "first page of the list": "/v2.1/servers",
    "a server by its name": f"/v2.1/servers/detail?name={_WANTED.name}",
    "the servers of a project": f"/v2.1/servers/detail?all_tenants=1&project_id={build_project_id(1)}",
    "ten servers from the end": "/v2.1/servers/detail?limit=10&sort_key=display_name&sort_dir=desc",
    "a server by its id": f"/v2.1/servers/{_WANTED.uuid}",
}


def run() -> list[Row]:
    """Return the rows of lists, start, and endurance."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        rabbitmq = stack.enter_context(RabbitMQ(directory / "rabbitmq"))
        memcached = stack.enter_context(Memcached())
        given = {"DEFAULT": {"debug": False}}
        porthole = Porthole(directory / "porthole", rabbitmq, memcached, daemons=["consoleauth"], options=given)
        stack.enter_context(porthole)
        stack.enter_context(Fleet(rabbitmq.transport_url, HOSTS, INSTANCES))
        elapsed_s, used_s, seen = zip(*(_start_cold(porthole) for _ in range(STARTS)), strict=True)
        rows = [
            Row("cold api, from its start to a whole inventory", median(elapsed_s), "s", bar="at most 5"),
            Row("cold api, CPU of the api up to there", median(used_s), "s"),
            Row("cold api, instances in its first answers", min(seen), "", bar=f"{HOSTS * INSTANCES}"),
        ]
        # However busy the machine was: what follows is measured with all of them.
        client = _Client(porthole.api_port)
        wait_until(lambda: client.count_servers() == HOSTS * INSTANCES, 120, "the whole inventory")
        # An api that nobody publishes to; a fanout knows no exchanges, so it has a broker of its own.
        empty = stack.enter_context(RabbitMQ(directory / "rabbitmq-empty"))
        rows += _list_rows(porthole, empty.transport_url)
        return rows + _endurance_rows(porthole, rabbitmq)


def _start_cold(porthole: Porthole) -> tuple[float, float, int]:
    """Start the api and list all servers at once; return the seconds until that is done, those of its processor, and
    how many there were.
    """
    if porthole.api.running:
        porthole.api.stop()
    begun = time.monotonic()
    porthole.api.start()
    porthole.wait_ready("api")
    client = _Client(porthole.api_port)
    # The first answers count: nobody asks again until they are whole.
    seen = client.count_servers()
    took = time.monotonic() - begun
    used = cpu_seconds([porthole.api.pid])
    return took, used, seen


def _list_rows(porthole: Porthole, empty_url: str) -> list[Row]:
    """Time lists, in turn with that of an api on the bus ``empty_url``; and what the processor does for them.

    The second of the two is what it is however busy the machine is.
    """
    empty_port = free_port()
    alone: dict[str, dict[str, object]] = {
        "api": {"bind_port": empty_port},
        "DEFAULT": {"host": "empty", "transport_url": empty_url},
    }
    empty = porthole.add("api", "empty", alone)
    porthole.start_daemon("empty")
    full_port, full = porthole.api_port, porthole.api
    lists = {name: _List(_Client(full_port), full, path) for name, path in _LISTS.items()}
    lists["an empty list"] = _List(_Client(empty_port), empty, "/v2.1/servers/detail")
    for _ in range(ROUNDS):
        for one in lists.values():
            one.measure()
    empty.stop()
    peer = lists.pop("an empty list")
    bars = {"first page of detail": "under 10"}
    rows = [
        Row(f"{name}, {what}", median(mine), "ms", "an empty list", median(theirs), bars.get(name, ""))
        for name, one in lists.items()
        for what, mine, theirs in (("p50", one.times_ms, peer.times_ms), ("CPU of the api", one.cpu_ms, peer.cpu_ms))
    ]
    name = f"api with {HOSTS * INSTANCES} instances"
    return [
        *rows,
        Row(f"{name}, PSS", pss_kib(full.pid) / 1024, "MiB", bar="under 250"),
        Row(f"{name}, RSS", rss_kib(full.pid) / 1024, "MiB", bar="under 250"),
    ]


class _List:
    """One request of an api, and what it took each time."""

    def __init__(self, client: "_Client", api: Process, path: str) -> None:
        self._client, self._api, self._path = client, api, path
        self.times_ms: list[float] = []
        self.cpu_ms: list[float] = []
        # An api answers 503 until it has joined the bus and heard of a compute.
        wait_until(lambda: self._client.send("GET", self._path)[0] == 200, 120, self._path)

    def measure(self) -> None:
        """Send it once more."""
        used = cpu_seconds([self._api.pid])
        self.times_ms.append(time_ms(self._send))
        self.cpu_ms.append((cpu_seconds([self._api.pid]) - used) * 1e3)

    def _send(self) -> None:
        status, text = self._client.send("GET", self._path)
        assert status == 200, text


def _endurance_rows(porthole: Porthole, rabbitmq: RabbitMQ) -> list[Row]:
    """Send the requests from several clients at once; compare with what the process was after the warm-up."""
    warm_at = time.monotonic() + WARM_UP_S
    while time.monotonic() < warm_at:
        _storm(porthole.api_port, WARM_UP)
    before, begun = _Footprint.of(porthole, rabbitmq), time.monotonic()
    _storm(porthole.api_port, REQUESTS)
    rate = REQUESTS / (time.monotonic() - begun)
    # Connections that the clients have closed are noticed when the server next looks.
    wait_until(lambda: _Footprint.of(porthole, rabbitmq).descriptors <= before.descriptors, 60, "connections to close")
    after = _Footprint.of(porthole, rabbitmq)
    name = f"{REQUESTS} requests, a tenth bad"
    return [
        Row(f"{name}, {_CLIENTS} clients", rate, "/s"),
        Row(f"{name}: memory after", after.memory_mib, "MiB", "after the warm-up", before.memory_mib, "no growth"),
        Row(f"{name}: threads", after.threads, "", "after the warm-up", before.threads, "as before"),
        Row(f"{name}: descriptors", after.descriptors, "", "after the warm-up", before.descriptors, "as before"),
        Row(f"{name}: broker connections", after.broker, "", "after the warm-up", before.broker, "as before"),
    ]


@dataclass(frozen=True)
class _Footprint:
    """What the api's process holds, and how many connections the broker has in all."""

    memory_mib: float
    threads: int
    descriptors: int
    broker: int

    @classmethod
    def of(cls, porthole: Porthole, rabbitmq: RabbitMQ) -> "_Footprint":
        pid = porthole.api.pid
        threads, descriptors = (len(os.listdir(f"/proc/{pid}/{kind}")) for kind in ("task", "fd"))
        return cls(allocated_kib(pid) / 1024, threads, descriptors, rabbitmq.connection_count())


def _storm(port: int, count: int) -> None:
    with ThreadPoolExecutor(_CLIENTS) as pool:
        for share in [pool.submit(_send_many, port, count // _CLIENTS) for _ in range(_CLIENTS)]:
            share.result(_STORM_TIMEOUT_S)


def _send_many(port: int, count: int) -> None:
    client = _Client(port)
    for number, (expected, method, path, body) in zip(range(count), _requests(), strict=False):
        status, _ = client.send(method, path, body)
        assert status == expected, (number, method, path, status)
    client.close()


def _requests() -> Iterator[tuple[int, str, str, bytes | None]]:
    """Yield requests for ever: of ten, nine that do and one that does not."""
    good: list[tuple[int, str, str, bytes | None]] = [
        (200, "GET", "/v2.1", None),
        (200, "GET", "/v2.1/servers?limit=10", None),
        (200, "GET", "/v2.1/servers/detail?limit=20", None),
        *((200, "GET", f"/v2.1/servers/{_WANTED.uuid}", None) for _ in range(6)),
    ]
    console = f"/v2.1/servers/{_WANTED.uuid}/action"
    bad: list[tuple[int, str, str, bytes | None]] = [
        (404, "GET", "/v2.1/flavors", None),
        (404, "GET", f"/v2.1/servers/{_WANTED.name}", None),
        (400, "GET", "/v2.1/servers?limit=x", None),
        (400, "POST", console, b"no json"),
        (400, "POST", console, json.dumps({"os-getVNCConsole": {"type": "x" * 20000}}).encode()),
        (405, "DELETE", f"/v2.1/servers/{_WANTED.uuid}", None),
    ]
    for one in itertools.cycle(bad):
        yield from good
        yield one


class _Client:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a request; return status and body."""
        headers = {**_LATEST, "Content-Type": "application/json"} if body is not None else _LATEST
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def count_servers(self) -> int:
        """Follow the links from the first page of the list to the last."""
        count, path = 0, "/v2.1/servers"
        while path:
            status, text = self.send("GET", path)
            assert status == 200, text
            page: dict[str, Any] = json.loads(text)
            count += len(page["servers"])
            path = next((link["href"].partition("://")[2] for link in page.get("servers_links", [])), "")
            path = path[path.index("/") :] if path else ""
        return count

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

# SPDX-License-Identifier: Apache-2.0
"""Getting a console and opening it, beside what they cannot do without: two calls of oslo.messaging each.

The bare call is answered by a process that does nothing else, on the same broker and with the same options. Opening is
also held against websockify, which checks nothing.
"""

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event

from oslo_config import cfg

from benchmarks import peers
from benchmarks.bed import Bed, make_bed
from benchmarks.table import Row, median
from porthole_common import conf as porthole_conf
from porthole_common.context import RequestContext, build_daemon_context
from porthole_common.rpc import Rpc, RpcClient, Target
from support.console import token_of

TOPIC = "bench"
VERSION = "1.0"
ROUNDS = 5
CALLS = 200
CLIENTS = 8
_SPAWN = multiprocessing.get_context("spawn")


class EchoEndpoint:
    """Answers at once."""

    target = Target(version=VERSION)

    def echo(self, context: RequestContext, text: str) -> str:
        """Return ``text``."""
        return text


def run() -> list[Row]:
    """Return p50 with one client and rates with eight, and their ratios to two bare calls."""
    with make_bed() as bed, _bare_calls(bed) as client, peers.websockify(bed.vnc.port) as (_pid, port):
        context = build_daemon_context()
        getter, opener = _Getter(bed), _Opener(bed)
        work: dict[str, Callable[[], object]] = {
            "bare": lambda: client.call(context, "echo", text="x" * 100),
            "open": opener.open,
            "get": getter.get,
            "websockify": lambda: peers.connect(port, "").close(),
        }
        for call in work.values():
            call()
        in_turn = _measure_in_turn(work)
        in_a_row = median([_time_ms(work["bare"]) for _ in range(ROUNDS * CALLS)])
        rates: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(ROUNDS):
            for name, call in work.items():
                rates[name].append(_rate(call))
    p50 = {name: median(values) for name, values in in_turn.items()}
    rate = {name: median(values) for name, values in rates.items()}
    turn, row, bare = "two bare calls in turn", "two bare calls in a row", "bare calls"
    return [
        Row("get-vnc-console, p50, one client", p50["get"], "ms", turn, 2 * p50["bare"], "at most 1.5 (1.4)"),
        Row("get-vnc-console, p50, one client", p50["get"], "ms", row, 2 * in_a_row),
        Row("check and connect, p50, one client", p50["open"], "ms", turn, 2 * p50["bare"], "at most 2"),
        Row("check and connect, p50, one client", p50["open"], "ms", row, 2 * in_a_row),
        Row("get-vnc-console, 8 clients", rate["get"], "/s", "two bare calls", rate["bare"] / 2, "at least 0.6"),
        Row("opening a console, 8 clients", rate["open"], "/s", bare, rate["bare"], "at least 0.3"),
        Row("opening a console, 8 clients", rate["open"], "/s", "websockify", rate["websockify"], "at least 0.5"),
        Row("bare calls, 8 clients", rate["bare"], "/s"),
    ]


def _measure_in_turn(work: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Time each in milliseconds, one after the other, again and again.

    In turn, since a daemon that oslo.messaging has had waiting for some milliseconds takes longer to notice a call than
    one that is called in a row: a bare call is to find its server as a console finds the daemons.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS * CALLS):
        for name, call in work.items():
            times[name].append(_time_ms(call))
    return times


class _Getter:
    """Asks the api for consoles over connections that stay open, one for each thread."""

    def __init__(self, bed: Bed) -> None:
        self._port = bed.porthole.api_port
        self._paths = itertools.cycle(f"/v2.1/servers/{uuid}/action" for uuid in bed.instances)
        self._body = json.dumps({"os-getVNCConsole": {"type": "novnc"}})
        self._connections: list[http.client.HTTPConnection] = []

    def get(self) -> str:
        """Return a token."""
        try:
            connection = self._connections.pop()
        except IndexError:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.request("POST", next(self._paths), self._body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == 200, body
        self._connections.append(connection)
        return token_of(body["console"]["url"])


class _Opener:
    """Opens consoles up to the VNC server's greeting, and closes them."""

    def __init__(self, bed: Bed) -> None:
        self._port, self.token = bed.porthole.novnc_port, bed.token()

    def open(self) -> None:
        """Open one."""
        peers.connect(self._port, self.token).close()


@contextlib.contextmanager
def _bare_calls(bed: Bed) -> Iterator[RpcClient]:
    """Yield a client of a process that echoes."""
    conf_path = str(bed.porthole.conf_path)
    ready = _SPAWN.Event()
    server = _SPAWN.Process(target=_serve_echo, args=(conf_path, ready), daemon=True)
    server.start()
    try:
        assert ready.wait(60), "the echo server did not start"
        rpc = _make_rpc(conf_path)
        yield rpc.get_client(TOPIC, VERSION)
        rpc.close()
    finally:
        server.kill()
        server.join()


def _serve_echo(conf_path: str, ready: Event) -> None:
    server = _make_rpc(conf_path).get_server(TOPIC, "bench", [EchoEndpoint()])
    server.start()
    ready.set()
    time.sleep(3600)


def _make_rpc(conf_path: str) -> Rpc:
    cfg.CONF.reset()
    porthole_conf.parse(cfg.CONF, "bench", ["--config-file", conf_path])
    return Rpc(cfg.CONF, 10)


def _time_ms(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


def _rate(call: Callable[[], object]) -> float:
    """Return how often a second ``CLIENTS`` threads together can."""
    total = CALLS * 2
    begun = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(call) for _ in range(total)]:
            done.result()
    return total / (time.perf_counter() - begun)

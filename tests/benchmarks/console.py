# SPDX-License-Identifier: Apache-2.0
"""Getting a console and opening it, beside what they cannot do without: two calls of oslo.messaging each.

The bare calls go over the same broker. Opening is also held against websockify, which checks nothing.
"""

import itertools
import json
import socket
from collections.abc import Callable

from benchmarks import bare, peers
from benchmarks.bed import Bed, make_bed
from benchmarks.table import Row, median
from support.console import token_of

ROUNDS = 5
CALLS = 200
# What a call of the consoles carries, about.
_VALUE = {"text": "x" * 200}


def run() -> list[Row]:
    """Return p50 with one client and rates with eight, and their ratios to two bare calls."""
    with (
        make_bed() as bed,
        bare.serve(bed.rabbitmq.transport_url),
        bare.client(bed.rabbitmq.transport_url) as call_bare,
        peers.websockify(bed.vnc.port) as (_pid, port),
    ):
        getter, opener = _Getter(bed), _Opener(bed)
        work: dict[str, Callable[[], object]] = {
            "bare": lambda: call_bare(_VALUE),
            "open": opener.open,
            "get": getter.get,
            "websockify": lambda: peers.connect(port, "").close(),
        }
        for call in work.values():
            call()
        in_turn = _measure_in_turn(work)
        in_a_row = median([bare.time_ms(work["bare"]) for _ in range(ROUNDS * CALLS)])
        rates: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(ROUNDS):
            for name, call in work.items():
                rates[name].append(bare.rate(call))
    p50 = {name: median(values) for name, values in in_turn.items()}
    rate = {name: median(values) for name, values in rates.items()}
    turn, row = "two bare calls in turn", "two bare calls in a row"
    return [
        Row("get-vnc-console, p50, one client", p50["get"], "ms", turn, 2 * p50["bare"], "at most 1.5 (1.4)"),
        Row("get-vnc-console, p50, one client", p50["get"], "ms", row, 2 * in_a_row),
        Row("check and connect, p50, one client", p50["open"], "ms", turn, 2 * p50["bare"], "at most 2"),
        Row("check and connect, p50, one client", p50["open"], "ms", row, 2 * in_a_row),
        Row("get-vnc-console, 8 clients", rate["get"], "/s", "two bare calls", rate["bare"] / 2, "at least 0.6"),
        Row("opening a console, 8 clients", rate["open"], "/s", "bare calls", rate["bare"], "at least 0.3"),
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
            times[name].append(bare.time_ms(call))
    return times


class _Getter:
    """Asks the api for consoles over connections that stay open, one for each thread.

    By hand and not by http.client, whose own work would be counted as the api's where all share two processors.
    """

    def __init__(self, bed: Bed) -> None:
        self._address = ("127.0.0.1", bed.porthole.api_port)
        body = json.dumps({"os-getVNCConsole": {"type": "novnc"}})
        requests = [
            f"POST /v2.1/servers/{uuid}/action HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            for uuid in bed.instances
        ]
        self._requests = itertools.cycle(requests)
        self._connections: list[socket.socket] = []

    def get(self) -> str:
        """Return a token."""
        try:
            connection = self._connections.pop()
        except IndexError:
            connection = socket.create_connection(self._address, 60)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(next(self._requests))
        answer = b""
        # Its body ends so, and nothing before does.
        while not answer.endswith(b"}}"):
            part = connection.recv(65536)
            assert part, answer
            answer += part
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        self._connections.append(connection)
        return token_of(json.loads(answer.partition(b"\r\n\r\n")[2])["console"]["url"])


class _Opener:
    """Opens consoles up to the VNC server's greeting, and closes them."""

    def __init__(self, bed: Bed) -> None:
        self._port, self.token = bed.porthole.novnc_port, bed.token()

    def open(self) -> None:
        """Open one."""
        peers.connect(self._port, self.token).close()

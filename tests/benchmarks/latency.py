# SPDX-License-Identifier: Apache-2.0
"""One key there and back: 8 bytes through the relay to an echoing VNC server, beside websockify.

The two connections take turns, a few echoes at a time: what else the machine does in a round then meets both alike.
"""

import socket
import time

from benchmarks import peers
from benchmarks.bed import make_bed
from benchmarks.table import Row, median, percentile

ROUNDS = 5
ECHOES = 3000
# Echoes of one connection until it is the other one's turn.
TURN = 100
KEY = peers.frame(b"12345678")


def run() -> list[Row]:
    """Return p50 and p99, in microseconds; each the median of the rounds."""
    rounds: list[tuple[list[float], list[float]]] = []
    with make_bed() as bed, peers.websockify(bed.vnc.port) as (_pid, port):
        for _ in range(ROUNDS):
            with peers.connect(bed.porthole.novnc_port, bed.token()) as porthole, peers.connect(port, "") as websockify:
                rounds.append(take_turns(porthole, websockify))
    rows = []
    for percent in (50, 99):
        ours, theirs = (median([percentile(times, percent) for times in side]) for side in zip(*rounds, strict=True))
        rows.append(Row(f"echo of 8 bytes, p{percent}", ours, "us", "websockify", theirs, "at most 1"))
    return rows


def alone(port: int, token: str) -> list[float]:
    """Return the times of :data:`ECHOES` echoes of one new connection, in microseconds."""
    with peers.connect(port, token) as sock:
        sock.sendall(peers.frame(b"E"))
        return [echo(sock) for _ in range(ECHOES)]


def take_turns(ours: socket.socket, theirs: socket.socket) -> tuple[list[float], list[float]]:
    """Return the times of :data:`ECHOES` echoes of each, in microseconds."""
    our_times: list[float] = []
    their_times: list[float] = []
    sides = [(ours, our_times), (theirs, their_times)]
    for sock, _times in sides:
        sock.sendall(peers.frame(b"E"))
    # The one that ended a pair of turns begins the next one.
    for _ in range(ECHOES // TURN):
        for sock, times in sides:
            times.extend(echo(sock) for _ in range(TURN))
        sides.reverse()
    return our_times, their_times


def echo(sock: socket.socket) -> float:
    """Return the time from a key to its echo, in microseconds."""
    begun = time.perf_counter()
    sock.sendall(KEY)
    received = 0
    # A frame of 8 bytes has a header of 2 on its way to the client.
    while received < 10:
        received += len(sock.recv(64))
    return (time.perf_counter() - begun) * 1e6

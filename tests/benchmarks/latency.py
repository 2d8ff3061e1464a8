# SPDX-License-Identifier: Apache-2.0
"""One key there and back: 8 bytes through the relay to an echoing VNC server, beside websockify."""

import time

from benchmarks import peers
from benchmarks.bed import make_bed
from benchmarks.table import Row, median, percentile

ROUNDS = 5
ECHOES = 3000


def run() -> list[Row]:
    """Return p50 and p99, in microseconds; each the median of the rounds."""
    figures: dict[str, list[list[float]]] = {"Porthole": [], "websockify": []}
    with make_bed() as bed, peers.websockify(bed.vnc.port) as (_pid, port):
        for _ in range(ROUNDS):
            figures["Porthole"].append(echo(bed.porthole.novnc_port, bed.token()))
            figures["websockify"].append(echo(port, ""))
    rows = []
    for percent in (50, 99):
        ours, theirs = (median([percentile(times, percent) for times in rounds]) for rounds in figures.values())
        rows.append(Row(f"echo of 8 bytes, p{percent}", ours, "us", "websockify", theirs, "at most 1"))
    return rows


def echo(port: int, token: str) -> list[float]:
    times = []
    key = peers.frame(b"12345678")
    with peers.connect(port, token) as sock:
        sock.sendall(peers.frame(b"E"))
        for _ in range(ECHOES):
            begun = time.perf_counter()
            sock.sendall(key)
            received = 0
            # A frame of 8 bytes has a header of 2 on its way to the client.
            while received < 10:
                received += len(sock.recv(64))
            times.append((time.perf_counter() - begun) * 1e6)
    return times

# SPDX-License-Identifier: Apache-2.0
"""Consoles that are open and silent: what each costs, how many fit, and a viewer that does not read."""

import contextlib
import resource
import socket
import threading
import time

from benchmarks import peers
from benchmarks.bed import Bed, make_bed
from benchmarks.cpu import allocated_kib, cpu_seconds, pss_kib, tree
from benchmarks.latency import alone
from benchmarks.table import Row, percentile
from benchmarks.throughput import discard
from support.deadlines import join_within

CONSOLES = 9500
# Opened first and not counted: what the first consoles allocate once for all.
WARM_UP = 100
WARM_UP_BYTES = 500_000_000
IDLE_S = 60
FLOOD_S = 60
_CLIENTS = 8
_PEER_CONSOLES = 40


def run() -> list[Row]:
    """Return memory and processor time of idle consoles, and what a viewer that does not read costs the others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with make_bed() as bed:
            rows = _idle_rows(bed)
        with make_bed() as bed:
            rows += _slow_viewer_rows(bed)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return rows


def _idle_rows(bed: Bed) -> list[Row]:
    with contextlib.ExitStack() as stack:
        open_consoles(stack, bed, WARM_UP)
        before = pss_kib(bed.proxy_pid)
        open_consoles(stack, bed, CONSOLES - WARM_UP)
        each = (pss_kib(bed.proxy_pid) - before) / (CONSOLES - WARM_UP)
        used, begun = cpu_seconds([bed.proxy_pid]), time.monotonic()
        time.sleep(IDLE_S)
        percent = (cpu_seconds([bed.proxy_pid]) - used) / (time.monotonic() - begun) * 100
    return [
        Row("idle consoles held by one worker", CONSOLES, "", bar="9500"),
        Row("PSS of an idle console", each, "KiB", "websockify", _websockify_kib(bed), "at most 8 KiB"),
        Row(f"CPU of {CONSOLES} idle consoles", percent, "%", bar="under 2 %"),
    ]


def _websockify_kib(bed: Bed) -> float:
    """Return what a console costs websockify: a process."""
    with peers.websockify(bed.vnc.port) as (pid, port), contextlib.ExitStack() as stack:
        before = sum(pss_kib(one) for one in tree(pid))
        for _ in range(_PEER_CONSOLES):
            stack.enter_context(peers.connect(port, ""))
        return (sum(pss_kib(one) for one in tree(pid)) - before) / _PEER_CONSOLES


def open_consoles(stack: contextlib.ExitStack, bed: Bed, count: int) -> None:
    """Open ``count`` consoles from several threads, each of which answers pings."""
    socks: list[socket.socket] = []

    def work(share: int) -> None:
        token = bed.token()
        for _ in range(share):
            socks.append(peers.connect(bed.porthole.novnc_port, token))

    shares = [count // _CLIENTS + (index < count % _CLIENTS) for index in range(_CLIENTS)]
    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    join_within(600, *threads)
    for sock in socks:
        stack.enter_context(sock)
    assert len(socks) == count, f"{len(socks)} of {count} consoles were opened"
    pongs = peers.Pongs(socks)
    stack.callback(pongs.stop)


def _slow_viewer_rows(bed: Bed) -> list[Row]:
    """Flood a viewer that does not read for a minute, and type in another console meanwhile."""
    quiet = percentile(alone(bed.porthole.novnc_port, bed.token()), 99)
    with peers.connect(bed.porthole.novnc_port, bed.token()) as reader:
        # The buffer that all consoles share is used whole before it counts, or it would be the slow viewer's.
        reader.sendall(peers.frame(b"F" + WARM_UP_BYTES.to_bytes(8, "big")))
        discard(reader, WARM_UP_BYTES)
    with peers.connect(bed.porthole.novnc_port, bed.token()) as viewer:
        # Nor is a second console beside it.
        alone(bed.porthole.novnc_port, bed.token())
        before = allocated_kib(bed.proxy_pid)
        viewer.sendall(peers.frame(b"F" + (1 << 40).to_bytes(8, "big")))
        most, flooded = 0, []
        ends_at = time.monotonic() + FLOOD_S
        while time.monotonic() < ends_at:
            flooded.append(percentile(alone(bed.porthole.novnc_port, bed.token()), 99))
            most = max(most, allocated_kib(bed.proxy_pid) - before)
            time.sleep(1)
    return [
        Row("memory for a viewer that does not read", most, "KiB", "the high mark", 256, "the mark and no more"),
        Row("echo p99 beside it", percentile(flooded, 50), "us", "alone", quiet, "at most 2"),
    ]

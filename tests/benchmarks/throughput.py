# SPDX-License-Identifier: Apache-2.0
"""Bytes through the relay: throughput and processor seconds per gigabyte, beside haproxy and websockify.

Each relay has the same two ends. The median of ``ROUNDS`` rounds counts; in each round the relays are taken in turn, so
that a machine that slows down slows all of them.
"""

import contextlib
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import peers
from benchmarks.bed import Bed, make_bed
from benchmarks.cpu import cpu_seconds, tree
from benchmarks.table import Row, median
from support.certificates import make_certificate
from support.deadlines import join_within

GB = 1e9
DOWN_BYTES = 2_000_000_000
UP_BYTES = 500_000_000
TLS_BYTES = 1_000_000_000
ROUNDS = 5
FRAME_BYTES = 65536


@dataclass
class Relay:
    """One program under test. ``connect`` returns a stream to the VNC server through it."""

    name: str
    pid: int
    connect: Callable[[], socket.socket]
    frames: bool
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    def measure(self, streams: int, size: int, move: Callable[["Relay", list[socket.socket], int], None]) -> None:
        """Run one round: ``move`` moves ``size`` bytes over ``streams`` consoles."""
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(self.connect()) for _ in range(streams)]
            # websockify has a process for each by now, and its figures go with it.
            pids = tree(self.pid)
            before, begun = cpu_seconds(pids), time.monotonic()
            move(self, socks, size)
            seconds, used = time.monotonic() - begun, cpu_seconds(pids) - before
        self.rates.append(size / GB / seconds)
        self.costs.append(used / (size / GB))
        peers.sleep_until_quiet()


def run() -> list[Row]:
    """Return the rows of all directions."""
    with make_bed() as bed, _relays(bed) as relays:
        rows = _rows(
            "down, 1 stream",
            relays,
            (1, DOWN_BYTES, _down),
            {
                ("cost", "haproxy"): "at most 0.75",
                ("cost", "websockify"): "at most 0.45",
                ("rate", "haproxy"): "at least 0.9",
                ("rate", "websockify"): "at least 1.1",
            },
        )
        rows += _rows(
            "down, 4 streams",
            relays,
            (4, DOWN_BYTES, _down),
            {
                ("cost", "haproxy"): "at most 0.5",
                ("rate", "haproxy"): "at least 1.1",
                ("rate", "websockify"): "at least 1.1",
            },
        )
        framed = [relay for relay in relays if relay.frames]
        rows += _rows("up, 64 KiB frames", framed, (1, UP_BYTES, _up), {("rate", "websockify"): "at least 2"})
    return rows + _tls_rows()


def _tls_rows() -> list[Row]:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench")))
        made = make_certificate(directory)
        # haproxy wants both in one file, and it does Porthole no harm.
        both = directory / "both.pem"
        both.write_bytes(made.cert.read_bytes() + made.key.read_bytes())
        bed = stack.enter_context(make_bed({"DEFAULT": {"cert": both}}))
        context = ssl.create_default_context(cafile=made.cert)
        context.check_hostname = False
        pid, port = stack.enter_context(peers.haproxy(bed.directory, bed.vnc.port, both))
        token = bed.token()
        ours = Relay("Porthole", bed.proxy_pid, lambda: peers.connect(bed.porthole.novnc_port, token, context), True)
        theirs = Relay("haproxy", pid, lambda: peers.connect(port, None, context), False)
        bars = {("cost", "haproxy"): "at most 1.3"}
        return _rows("down, TLS", [ours, theirs], (1, TLS_BYTES, _down), bars)


@contextlib.contextmanager
def _relays(bed: Bed) -> Iterator[list[Relay]]:
    token = bed.token()
    with peers.haproxy(bed.directory, bed.vnc.port) as (haproxy, port), peers.websockify(bed.vnc.port) as (other, ws):
        yield [
            Relay("Porthole", bed.proxy_pid, lambda: peers.connect(bed.porthole.novnc_port, token), True),
            Relay("haproxy", haproxy, lambda: peers.connect(port, None), False),
            Relay("websockify", other, lambda: peers.connect(ws, ""), True),
        ]


def _rows(
    name: str,
    relays: list[Relay],
    round_: tuple[int, int, Callable[[Relay, list[socket.socket], int], None]],
    bars: dict[tuple[str, str], str],
) -> list[Row]:
    """Measure ``round_`` (streams, bytes, mover) with each relay in turn; return cost and rate against each peer."""
    for relay in relays:
        relay.rates.clear()
        relay.costs.clear()
    for _ in range(ROUNDS):
        for relay in relays:
            relay.measure(*round_)
    ours, *others = relays
    rows = []
    for peer in others:
        cost, rate = bars.get(("cost", peer.name), ""), bars.get(("rate", peer.name), "")
        rows.append(Row(f"CPU {name}", median(ours.costs), "s/GB", peer.name, median(peer.costs), cost))
        rows.append(Row(f"throughput {name}", median(ours.rates), "GB/s", peer.name, median(peer.rates), rate))
    return rows


def _down(relay: Relay, socks: list[socket.socket], size: int) -> None:
    """The VNC server floods the clients, each read by a thread."""
    share = size // len(socks)
    order = b"F" + share.to_bytes(8, "big")
    threads = [threading.Thread(target=discard, args=(sock, share)) for sock in socks]
    for sock, thread in zip(socks, threads, strict=True):
        thread.start()
        sock.sendall(peers.frame(order) if relay.frames else order)
    join_within(600, *threads)


def discard(sock: socket.socket, size: int) -> None:
    """Read ``size`` bytes; without looking at them, where TLS does not have to be undone."""
    buffer, flags = bytearray(peers.BUFFER_BYTES), 0 if isinstance(sock, ssl.SSLSocket) else socket.MSG_TRUNC
    while size > 0:
        read = sock.recv_into(buffer, peers.BUFFER_BYTES, flags)
        assert read, "the relay ended the stream"
        size -= read


def _up(relay: Relay, socks: list[socket.socket], size: int) -> None:
    """One client sends frames; the VNC server says when it has them all."""
    (sock,) = socks
    sock.sendall(peers.frame(b"S" + size.to_bytes(8, "big")))
    block_frames = 8
    block = peers.frame(bytes(FRAME_BYTES)) * block_frames
    blocks, rest = divmod(size, FRAME_BYTES * block_frames)
    for _ in range(blocks):
        sock.sendall(block)
    if rest:
        sock.sendall(peers.frame(bytes(rest)))
    while not sock.recv(4096).endswith(b"!"):
        continue

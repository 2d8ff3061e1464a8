# SPDX-License-Identifier: Apache-2.0
"""One ``/metrics`` for several processes: each serves its own at a UNIX socket, and one of them gathers all.

Why not prometheus_client's multiprocess mode: it keeps a file for each process that has ever been, cannot read a value
at the scrape, and must be told by an environment variable before the first import. Here nothing is on disk, and a
process that has died leaves nothing. Each sample gets the label ``worker``, since sums over processes would drop when
one of them starts anew, which Prometheus takes for a restart of all. :doc:`decisions` has the figures.

The sockets are abstract (unix(7)): they end with their process. Their names can be taken by any user of the host, so
the kernel is asked for the user at the other end. A process that does not answer within a second is named by
``porthole_worker_up``, and costs no other its numbers.

Called by :mod:`porthole_novncproxy.process.supervisor`, and by :mod:`porthole_api.main` for WSGI servers.
"""

import os
import select
import socket
import struct
import time
from collections.abc import Mapping, Sequence

from oslo_config import cfg

from porthole_common import metrics
from porthole_common.conf.metrics import find_port
from porthole_common.log import get_logger
from porthole_common.metrics_server import MAX_CONNECTIONS, PATH, MetricsServer, listen_tcp

LOG = get_logger(__name__)
DEADLINE_S = 1.0
# The api of a cloud with ten thousand hosts has two megabytes.
MAX_BYTES = 16 * 1024 * 1024
# The processes of one WSGI server, as [novncproxy] workers allows of the proxy.
MAX_PROCESSES = 64
_READ_BYTES = 256 * 1024
_REQUEST = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
_UP = metrics.WORKER_UP.describe()

Address = str | bytes


class _Question:
    """The scrape of one process."""

    def __init__(self, address: Address) -> None:
        """Ask.

        :raises OSError: when no process of this user listens there.
        """
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._received = bytearray()
        try:
            self.sock.setblocking(False)
            self.sock.connect(address)
            credentials = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            if struct.unpack("3i", credentials)[1] != os.geteuid():
                raise PermissionError("another user listens there")
            self.sock.sendall(_REQUEST)
        except OSError:
            self.sock.close()
            raise

    def read(self) -> bool:
        """Read what has arrived; return whether more may come."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._received += data
        return bool(data) and len(self._received) <= MAX_BYTES

    def get_text(self) -> bytes | None:
        """Return the metrics; None when the answer is not whole, or is an error."""
        head, _, body = bytes(self._received).partition(b"\r\n\r\n")
        is_whole = f"\r\nContent-Length: {len(body)}\r\n".encode() in head + b"\r\n"
        return body if is_whole and head.startswith(b"HTTP/1.1 200 ") else None


def gather(addresses: Mapping[str, Address], deadline_s: float = DEADLINE_S) -> dict[str, bytes | None]:
    """Return ``{worker: metrics}`` of all processes, asked at once; None for one that has not answered in time.

    An address at which no process listens is left out.
    """
    due_at_s = time.monotonic() + deadline_s
    texts: dict[str, bytes | None] = dict.fromkeys(addresses)
    poll = select.poll()
    asked: dict[int, tuple[str, _Question]] = {}
    for worker, address in addresses.items():
        try:
            question = _Question(address)
        except ConnectionRefusedError:
            del texts[worker]
            continue
        except OSError as exc:
            LOG.debug("Worker not asked for its metrics", worker=worker, reason=exc)
            continue
        asked[question.sock.fileno()] = worker, question
        poll.register(question.sock, select.POLLIN)
    while asked and (left_s := due_at_s - time.monotonic()) > 0:
        for fd, _ in poll.poll(left_s * 1000 + 1):
            worker, question = asked[fd]
            if not question.read():
                texts[worker] = question.get_text()
                poll.unregister(fd)
                question.sock.close()
                del asked[fd]
    for _, question in asked.values():
        question.sock.close()
    return texts


def merge(texts: Mapping[str, bytes | None]) -> bytes:
    """Return the metrics of all processes as one text, in which each sample has the label ``worker``."""
    [up] = _UP
    heads = {up.name: f"# HELP {up.name} {up.documentation}\n# TYPE {up.name} {up.type}\n"}
    ups = {worker: float(text is not None) for worker, text in texts.items()}
    samples = {up.name: [_label(f"{up.name} {is_up}\n", worker) for worker, is_up in ups.items()]}
    for worker, text in texts.items():
        name = ""
        for line in (text or b"").decode().split("\n")[:-1]:
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                samples.setdefault(name, [])
                heads.setdefault(name, "")
            if not line.startswith("#"):
                samples[name].append(_label(line, worker) + "\n")
            elif name != up.name and heads[name].count("\n") < 2:
                heads[name] += line + "\n"
    return "".join(heads[name] + "".join(samples[name]) for name in heads).encode()


def _label(sample: str, worker: str) -> str:
    """Return the line of a sample with one label more. A name has neither a blank nor a brace."""
    end = min(place for place in (sample.find(" "), sample.find("{")) if place >= 0)
    label, rest = f'worker="{worker}"', sample[end:]
    return f"{sample[:end]}{{{label},{rest[1:]}" if rest[0] == "{" else f"{sample[:end]}{{{label}}}{rest}"


class WorkersMetrics:
    """The metrics of a supervisor and the processes that it forks; made before the first fork."""

    def __init__(self, conf: cfg.ConfigOpts, daemon: str, workers: int) -> None:
        self._daemon = daemon
        self._sockets: list[socket.socket] = []
        self._servers: list[MetricsServer] = []
        if not find_port(conf, daemon):
            return
        self._sockets = [_listen_unix("") for _ in range(workers)]
        addresses = {str(number): sock.getsockname() for number, sock in enumerate(self._sockets)}
        self._servers = [MetricsServer(lambda: listen_tcp(conf, daemon), lambda: merge(gather(addresses)))]

    def start(self) -> None:
        """In the supervisor: serve."""
        for server in self._servers:
            server.start()

    def enter(self, worker: int) -> list[MetricsServer]:
        """In a worker: return its own server, and close what the supervisor has."""
        for server in self._servers:
            server.disown()
        for sock in (*self._sockets[:worker], *self._sockets[worker + 1 :]):
            sock.close()
        own = self._sockets[worker : worker + 1]
        return [self._build_own(sock) for sock in own]

    def _build_own(self, sock: socket.socket) -> MetricsServer:
        return MetricsServer(lambda: sock, lambda: metrics.render(self._daemon))


def _listen_unix(address: Address) -> socket.socket:
    """Return a socket that listens at an abstract address; "" has the kernel choose one."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(address)
        sock.listen(MAX_CONNECTIONS)
    except OSError:
        sock.close()
        raise
    return sock


def build_peers(conf: cfg.ConfigOpts, daemon: str) -> list[MetricsServer]:
    """Return the servers of one of several processes that have no supervisor of Porthole's.

    Each takes the first number that is free, and serves its metrics under it. One of them gets the port and gathers the
    others; the others try the port again, so one of them has it soon after that one has ended.
    """
    port = find_port(conf, daemon)
    if not port:
        return []
    names = {str(number): f"\0porthole-metrics/{daemon}/{port}/{number}" for number in range(MAX_PROCESSES)}

    return [
        MetricsServer(lambda: _listen_at_first(list(names.values())), lambda: metrics.render(daemon)),
        MetricsServer(lambda: listen_tcp(conf, daemon), lambda: merge(gather(names)), is_spare=True),
    ]


def _listen_at_first(names: Sequence[str]) -> socket.socket:
    for name in names[:-1]:
        try:
            return _listen_unix(name)
        except OSError as exc:
            LOG.debug("Metrics name in use", reason=exc)
    return _listen_unix(names[-1])

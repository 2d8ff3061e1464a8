# SPDX-License-Identifier: Apache-2.0
"""The HTTP server of porthole-api in a process of its own, and clients that do their worst.

Why a process: its threads, descriptors and memory can be counted, and the clients take no processor time of its
interpreter. The application is the real one, on fakes (``support.api``); no broker is needed.
"""

import contextlib
import http.client
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from porthole_api.http_server import HttpServer
from support.api import Api, build_instance
from support.processes import Process

THREADS = 4
INSTANCES = 1000
_START_S = 60
_ASKED = 8
# What the process says before its port; warnings of Python may come before it.
_LISTENS = "the api listens at port "
_TIMEOUT_S = 60
# The address of whoever is no attacker.
GOOD = "127.0.0.9"


@dataclass(frozen=True)
class Footprint:
    """What the process holds."""

    threads: int
    descriptors: int
    memory_mib: float


class ApiFront:
    """The process; ``with`` starts and stops it."""

    def __init__(self, directory: Path, descriptors: int = 1024) -> None:
        argv = [sys.executable, "-m", "support.api_front", str(descriptors)]
        self.process = Process(argv, directory / "api_front.log", name="api_front")
        self.port = 0

    def connect(self, source: str = "127.0.0.1", receive_buffer_bytes: int = 0) -> socket.socket:
        """Return a connection from ``source``."""
        sock = socket.socket()
        if receive_buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        sock.settimeout(_TIMEOUT_S)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", self.port))
        return sock

    @contextlib.contextmanager
    def clients(self, count: int, data: bytes, *, receive_buffer_bytes: int = 0) -> Iterator[list[socket.socket]]:
        """Open ``count`` connections from one address, each of which sends ``data`` and nothing more."""
        with contextlib.ExitStack() as stack:
            made = []
            for _ in range(count):
                made.append(stack.enter_context(self.connect(receive_buffer_bytes=receive_buffer_bytes)))
                # One that had to leave for another is reset.
                with contextlib.suppress(ConnectionError):
                    made[-1].sendall(data)
            yield made

    def time_get(self, path: str, source: str = GOOD) -> float:
        """Return how long a good GET takes at the longest, of several on connections of their own."""
        return max(self._time_once(path, source) for _ in range(_ASKED))

    def time_usual(self, path: str) -> float:
        """Return how long a good GET usually takes."""
        return median(self._time_once(path, GOOD) for _ in range(_ASKED))

    def footprint(self) -> Footprint:
        """Return what the process holds now."""
        folder = Path("/proc") / str(self.process.pid)
        threads, descriptors = (len(os.listdir(folder / kind)) for kind in ("task", "fd"))
        pages = int((folder / "statm").read_text().split()[1])
        return Footprint(threads, descriptors, pages * resource.getpagesize() / 2**20)

    def _time_once(self, path: str, source: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, _TIMEOUT_S, source_address=(source, 0))
        began = time.monotonic()
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
        assert response.status == 200
        return time.monotonic() - began

    def __enter__(self) -> "ApiFront":
        self.process.start()
        self.process.wait_for_line(_LISTENS, _START_S)
        self.port = int(self.process.log_of_run().split(_LISTENS)[1].split()[0])
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()


def main() -> None:
    """Serve until a signal ends the process."""
    descriptors = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    api = Api([build_instance(number) for number in range(INSTANCES)])
    server = HttpServer(api.application, "127.0.0.1", 0, THREADS)
    server.start()
    sys.stdout.write(f"{_LISTENS}{server.port} \n")
    sys.stdout.flush()
    while True:
        time.sleep(_TIMEOUT_S)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Many megabytes through a console and back, with checksums at both ends.

Why: a relay that loses, repeats or swaps bytes does so when there are many, and when buffers are short. Each WebSocket
library is driven by the few calls that differ, and the VNC server keeps its own sum of what it heard.
"""

import hashlib
import json
import os
import queue
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.proxy import own_socket
from support.vnc_servers import GREETING, VncServer

BULK_BYTES = 64 * 1024 * 1024
_DEADLINE_S = 120
_NODE_SCRIPT = Path(__file__).with_name("bulk_peer.js")
# Debian's and Ubuntu's place for what their packages of Node hold; a Node that is not theirs has to be told.
_NODE_PATH = "/usr/share/nodejs"


class SummingEcho(VncServer):
    """Returns whatever it gets behind its greeting, and keeps :attr:`heard_bytes` and a sum of it.

    It goes on listening while nobody takes its answers: some clients read nothing while they send (websockets' threads
    share a lock), and with short buffers everything would stand still for good.
    ``before_greeting`` is called for each connection: the proxy has not answered its client yet.
    """

    def __init__(self, before_greeting: Callable[[socket.socket], None] = lambda _sock: None) -> None:
        self._before_greeting = before_greeting
        self._sum = hashlib.sha256()
        self.heard_bytes = 0
        super().__init__()

    def serve(self, sock: socket.socket) -> None:
        """Echo to the end."""
        self._before_greeting(sock)
        sock.sendall(GREETING)
        answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        speaker = threading.Thread(target=_speak, args=(sock, answers), name="bulk-speaker", daemon=True)
        speaker.start()
        while data := sock.recv(262144):
            self._sum.update(data)
            self.heard_bytes += len(data)
            answers.put(data)
        answers.put(b"")
        speaker.join(_DEADLINE_S)

    def heard_sum(self) -> str:
        """Return the SHA-256 of all it heard, in hex; ask when everything has come back."""
        return self._sum.hexdigest()


def _speak(sock: socket.socket, answers: "queue.SimpleQueue[bytes]") -> None:
    try:
        while data := answers.get(timeout=_DEADLINE_S):
            sock.sendall(data)
    except (OSError, queue.Empty):
        # The peer went away or says nothing; the test looks at the other end.
        return


def shorten_buffers(sock: socket.socket, size_bytes: int) -> None:
    """Have the kernel hold about ``size_bytes`` each way; a client's before it connects."""
    for level, option, value in short_buffer_options(size_bytes):
        sock.setsockopt(level, option, value)


def short_buffer_options(size_bytes: int) -> list[tuple[int, int, int]]:
    """Return (level, option, value) of what :func:`shorten_buffers` sets.

    The segments are an Ethernet's: one of loopback's, 64 KiB, does not fit into such a window, and the sender would
    wait for its timer each time (RFC 9293 section 3.8.6.2.1).
    """
    return [
        (socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, size_bytes),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, size_bytes),
    ]


def shorten_all(sock: socket.socket, novnc_port: int, size_bytes: int) -> None:
    """Shorten the buffers of a VNC server's connection, and those of both legs of the proxy in this process.

    For :class:`SummingEcho`'s ``before_greeting``: one connection at a time.
    """
    shorten_buffers(sock, size_bytes)
    for leg in ({"local": ("127.0.0.1", novnc_port)}, {"peer": sock.getsockname()}):
        with own_socket(**leg) as proxys_end:
            shorten_buffers(proxys_end, size_bytes)


def make_messages(total_bytes: int = BULK_BYTES, seed: int = 1) -> Iterator[bytes]:
    """Yield messages that are ``total_bytes`` together: of all header sizes, noise, never the same twice."""
    noise = random.Random(seed)
    left = total_bytes
    while left:
        size = min(left, noise.choice((1, 125, 126, 4096, 65535, 65536, 100_000, 1_000_000)))
        left -= size
        yield noise.randbytes(size)


def exchange(send: Callable[[bytes], object], receive: Callable[[], bytes]) -> tuple[str, str]:
    """Send all of :func:`make_messages` while receiving as much behind a greeting; return both SHA-256, in hex.

    :raises AssertionError: when the greeting is another, or sending does not come to its end.
    """
    sent = hashlib.sha256()

    def send_all() -> None:
        for message in make_messages():
            sent.update(message)
            send(message)

    assert receive() == GREETING
    sender = threading.Thread(target=send_all, name="bulk-sender", daemon=True)
    sender.start()
    received = hashlib.sha256()
    size = 0
    while size < BULK_BYTES:
        data = receive()
        received.update(data)
        size += len(data)
    sender.join(_DEADLINE_S)
    assert not sender.is_alive(), "everything has come back, and still it is being sent"
    assert size == BULK_BYTES
    return sent.hexdigest(), received.hexdigest()


def run_node(url: str, origin: str, **environment: str) -> dict[str, Any]:
    """Let Node's ``ws`` send and take as much; return what ``bulk_peer.js`` prints.

    :raises AssertionError: when it fails, or says anything else.
    """
    node = shutil.which("node")
    assert node, "node is not installed (see bindep.txt)"
    env = {**os.environ, "NODE_PATH": _NODE_PATH, "BULK_URL": url, "BULK_ORIGIN": origin, **environment}
    ran = subprocess.run(
        [node, _NODE_SCRIPT], env=env, capture_output=True, text=True, timeout=_DEADLINE_S, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    result: dict[str, Any] = json.loads(ran.stdout)
    return result

# SPDX-License-Identifier: Apache-2.0
"""A server on loopback that says the same thing to each client: HTTP of a stranger, another protocol, or nothing."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TIMEOUT_S = 10


Answer = Callable[[socket.socket], None]


@contextmanager
def serving(listener: socket.socket, answer: Answer) -> Iterator[None]:
    """Call ``answer`` with each connection of ``listener``, in a thread, and close it."""
    listener.listen()

    def work() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(TIMEOUT_S)
                try:
                    answer(connection)
                except OSError:
                    # A client that does not trust the certificate leaves in the handshake.
                    continue

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT_S)


@contextmanager
def serve(answer: Answer) -> Iterator[int]:
    """Yield the port of a server that calls ``answer`` with each connection and closes it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        with serving(listener, answer):
            yield int(listener.getsockname()[1])


def say(text: str) -> Answer:
    """Return a function that answers each request with ``text``."""

    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(text.encode())

    return answer


def http(status: str, body: str = "<html></html>", headers: str = "") -> Answer:
    """Return a function that answers each request with that status, body and more headers."""
    length = f"Content-Length: {len(body)}\r\nConnection: close\r\n"
    return say(f"HTTP/1.1 {status}\r\n{headers}{length}\r\n{body}")

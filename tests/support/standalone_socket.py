# SPDX-License-Identifier: Apache-2.0
"""Sockets like those of a ``porthole standalone``, with answers that a test chooses."""

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from porthole_cli.doctor.standalone_port import SOCKET_PREFIX

Answer = Callable[[socket.socket], None]


def make_name() -> str:
    return f"{SOCKET_PREFIX}{os.getpid()}-{uuid.uuid4().hex}"


@contextmanager
def serving(listener: socket.socket, answer: Answer) -> Iterator[None]:
    """Call ``answer`` with each connection of ``listener``, in a thread."""
    listener.listen()

    def work() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    answer(connection)
                except OSError:
                    continue

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@contextmanager
def listening(answer: Answer) -> Iterator[str]:
    """Yield the name of a socket whose server calls ``answer`` with each connection."""
    name = make_name()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        with serving(listener, answer):
            yield name


@contextmanager
def serving_tcp(answer: Answer) -> Iterator[str]:
    """Yield the URL of an API whose server calls ``answer`` with each connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        with serving(listener, answer):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v2.1"


def say(data: bytes) -> Answer:
    """Return what sends ``data`` to whoever connects, and closes when the other side has."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass

    return answer


def greet(endpoint: str, report: bytes) -> Answer:
    """Return what greets as a standalone does, and answers ``report`` when it is asked for one."""
    greeting = {"pid": os.getpid(), "endpoint": endpoint, "novncproxy_base_url": "http://127.0.0.1:6080/console.html"}

    def answer(connection: socket.socket) -> None:
        connection.sendall(json.dumps(greeting).encode() + b"\n")
        if connection.recv(1):
            connection.sendall(report)

    return answer

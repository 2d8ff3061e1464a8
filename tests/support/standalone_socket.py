# SPDX-License-Identifier: Apache-2.0
"""Sockets like those of a ``porthole standalone``, with answers that a test chooses."""

import json
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from porthole_cli.doctor.standalone_port import SOCKET_PREFIX
from support.canned_answers import Answer, serve, serving


def make_name() -> str:
    return f"{SOCKET_PREFIX}{os.getpid()}-{uuid.uuid4().hex}"


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
    with serve(answer) as port:
        yield f"http://127.0.0.1:{port}/v2.1"


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

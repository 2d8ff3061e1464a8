# SPDX-License-Identifier: Apache-2.0
"""A client's connection, and the request that waits for its answer.

A connection has one owner at each stage, and the type around it says which:

- ``Receiving`` (:mod:`porthole_novncproxy.front.listener`): its next request is awaited.
- :class:`PendingRequest` (:mod:`porthole_novncproxy.server`): a whole request waits for its answer.
- ``Sending`` (:mod:`porthole_novncproxy.front.sender`): the client is sent its answer. Then it is ``Receiving`` again,
  ``Lingering`` (the client is to see the end), or a session of :mod:`porthole_relay`.
"""

import socket
from dataclasses import dataclass
from http import HTTPStatus

from porthole_common import metrics
from porthole_novncproxy.doors import Door
from porthole_novncproxy.front.request import Request


@dataclass(eq=False, slots=True)
class Connection:
    """An accepted connection. ``address``: the peer's IP address; ``fd`` stays known when the socket is closed."""

    sock: socket.socket
    address: str
    door: Door
    fd: int


@dataclass(frozen=True, eq=False, slots=True)
class PendingRequest:
    """A whole request, whose connection waits for its answer.

    ``rest``: bytes that came behind the request. The owner gives it to the sender, with an answer, exactly once.
    """

    connection: Connection
    request: Request
    rest: bytes


def count_refused(connection: Connection, reason: str, status: HTTPStatus | None = None) -> None:
    """Count a connection that is refused before its request is whole; without a ``status`` it gets no answer."""
    metrics.REFUSALS.labels(connection.door.name, reason, str(int(status)) if status else "none").inc()

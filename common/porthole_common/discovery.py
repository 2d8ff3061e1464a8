# SPDX-License-Identifier: Apache-2.0
"""The roll call: whoever asks hears of every daemon that is on the bus at that moment.

Why: a daemon is called by its topic and, where one in particular is meant, by the name of its RPC server; but nobody
keeps a list of those names. So the question goes to every process of a topic, and each answers with its name, on a
topic that the asker has subscribed to before. Every daemon serves :class:`PresenceEndpoint` beside its own, on the
server it has anyway; :mod:`porthole_cli.doctor` asks.

A process that does not answer in time is one that hangs, or whose version knows no roll call. How many there should
be, the broker can say: each process consumes from the queue that bears the topic's name.
"""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.log import get_logger
from porthole_common.rpc import Rpc, RpcTarget

LOG = get_logger(__name__)
PRESENCE_TOPIC = "porthole.presence"
VERSION = "1.0"


@dataclass(frozen=True)
class Presence:
    """One process: ``daemon`` is "compute", ..., ``server`` the name of its RPC server, ``process`` like no other's."""

    daemon: str
    host: str
    server: str
    process: str

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``{daemon, host, server, process}``.

        :raises KeyError: when a key is missing.
        """
        return cls(*(str(value[key]) for key in ("daemon", "host", "server", "process")))

    def to_primitive(self) -> dict[str, Any]:
        """Return ``{daemon, host, server, process}``."""
        return asdict(self)


class PresenceEndpoint:
    """A daemon's side: answers every roll call of its topic."""

    target = RpcTarget(version=VERSION)

    def __init__(self, rpc: Rpc, daemon: str, host: str, server: str) -> None:
        self._client = rpc.get_client(PRESENCE_TOPIC, VERSION)
        self._presence = Presence(daemon, host, server, uuid.uuid4().hex)

    def report_presence(self, context: RequestContext) -> None:
        """Say "here", to whoever listens."""
        try:
            self._client.publish(context, "take_presence", presence=self._presence.to_primitive())
        except errors.RpcUnavailable as exc:
            # Nobody waits for this method's answer; whoever asked misses this daemon, and says so.
            LOG.warning("Roll call could not be answered", reason=exc)


class RollCallEndpoint:
    """The asker's side: hands each answer to ``on_presence``, from an RPC thread."""

    target = RpcTarget(version=VERSION)

    def __init__(self, on_presence: Callable[[Presence], None]) -> None:
        self._on_presence = on_presence

    def take_presence(self, context: RequestContext, presence: dict[str, Any]) -> None:
        """Take one :meth:`Presence.to_primitive`."""
        self._on_presence(Presence.from_primitive(presence))


def call_roll(rpc: Rpc, context: RequestContext, topics: Iterable[str]) -> None:
    """Ask every process of ``topics`` to say "here"; the answers arrive at a :class:`RollCallEndpoint`.

    :raises RpcUnavailable: when there is no broker to take the question.
    """
    for topic in topics:
        rpc.get_client(topic, VERSION).publish(context, "report_presence")

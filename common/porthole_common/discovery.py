# SPDX-License-Identifier: Apache-2.0
"""Discovery: which processes of which daemons are on the bus at this moment.

Why: a daemon is called by its topic, and by the name of its RPC server where one process is meant; but no part of
Porthole keeps a list of these names. So a question goes to every process of a topic, and each one answers with its
name, on a topic to which the asking process has subscribed before. Every daemon serves :class:`DiscoveryEndpoint`
beside its own endpoint, on the same server; :mod:`porthole_cli.doctor` and
:mod:`porthole_consoleauth.history.presence` ask.

A process that does not answer in time hangs, or its version has no discovery. The broker knows how many processes
there should be: each one consumes from the queue that has the topic's name.

The topic and the two methods keep the names of the first release, since daemons of several releases share a bus.
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
DISCOVERY_TOPIC = "porthole.presence"
VERSION = "1.0"


@dataclass(frozen=True)
class DaemonProcess:
    """One process on the bus.

    ``daemon`` is "compute", "api", ...; ``server`` is the name of its RPC server; ``process`` is unique to the process.
    """

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


def build_process_id() -> str:
    """Return a new id for a process: no other process has it, also not the same daemon after a restart."""
    return uuid.uuid4().hex


class DiscoveryEndpoint:
    """A daemon's side: answers each question to its topic."""

    target = RpcTarget(version=VERSION)

    def __init__(self, rpc: Rpc, daemon: str, host: str, server: str, process: str | None = None) -> None:
        """``process`` is the id of this process, where it is known elsewhere too (:func:`build_process_id`)."""
        self._client = rpc.get_client(DISCOVERY_TOPIC, VERSION)
        self._process = DaemonProcess(daemon, host, server, process or build_process_id())

    def report_presence(self, context: RequestContext) -> None:
        """Send this process's name to all that ask."""
        try:
            self._client.publish(context, "take_presence", presence=self._process.to_primitive())
        except errors.RpcUnavailable as exc:
            # The caller does not wait for this method; it misses this process, and says so.
            LOG.warning("Discovery not answered", reason=exc)


class DiscoveryAnswers:
    """The asking side: hands each answer to ``on_answer``, from an RPC thread."""

    target = RpcTarget(version=VERSION)

    def __init__(self, on_answer: Callable[[DaemonProcess], None]) -> None:
        self._on_answer = on_answer

    def take_presence(self, context: RequestContext, presence: dict[str, Any]) -> None:
        """Take one :meth:`DaemonProcess.to_primitive`."""
        self._on_answer(DaemonProcess.from_primitive(presence))


def ask_processes(rpc: Rpc, context: RequestContext, topics: Iterable[str]) -> None:
    """Ask every process of ``topics`` for its name; the answers arrive at a :class:`DiscoveryAnswers`.

    :raises RpcUnavailable: when there is no broker to take the question.
    """
    for topic in topics:
        rpc.get_client(topic, VERSION).publish(context, "report_presence")

# SPDX-License-Identifier: Apache-2.0
"""Discovery: which processes of which daemons are on the bus at this moment.

Why: a daemon is called by its topic, and by the name of its RPC server where one process is meant; but no part of
Porthole keeps a list of these names. So a question goes to every process of a topic, and each one answers with its
name, on a topic to which the asking process has subscribed before. Every daemon serves :class:`DiscoveryEndpoint`
beside its own endpoint, on the same server. :mod:`porthole_cli.doctor` asks once. By a :class:`DiscoveryWatch`
:mod:`porthole_consoleauth.history.presence` and :mod:`porthole_api.proxies` ask again and again.

A process that does not answer in time hangs, or its version has no discovery. The broker knows how many processes
there should be: each one consumes from the queue that has the topic's name.

The topic and the two methods keep the names of the first release, since daemons of several releases share a bus.
"""

import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from porthole_common import errors
from porthole_common.context import RequestContext, build_daemon_context, serving
from porthole_common.log import get_logger
from porthole_common.rpc import Rpc, RpcTarget

LOG = get_logger(__name__)
DISCOVERY_TOPIC = "porthole.presence"
VERSION = "1.0"
# How long the end of a process waits for a question that is being asked.
_STOP_S = 2.0


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


class DiscoveryWatch:
    """A thread that asks the processes of some topics again and again, and the subscription to their answers."""

    def __init__(
        self,
        rpc: Rpc,
        server: str,
        topics: Sequence[str],
        interval_s: float,
        on_answer: Callable[[DaemonProcess], None],
        on_asked: Callable[[], None] = lambda: None,
        on_round: Callable[[], None] = lambda: None,
    ) -> None:
        """``server`` is the name of the subscription on the bus, the same at each start.

        ``on_answer`` gets each answer, in an RPC thread. ``on_asked`` is called when the broker has taken a question,
        and ``on_round`` an interval later.
        """
        self._rpc = rpc
        self._topics = topics
        self._interval_s = interval_s
        self._on_asked = on_asked
        self._on_round = on_round
        # One thread: the answers are a dictionary each.
        self._server = rpc.get_server(DISCOVERY_TOPIC, server, [DiscoveryAnswers(on_answer)], threads=1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)

    def start(self) -> None:
        """Begin to ask; does not wait for the broker."""
        self._thread.start()

    def stop(self) -> None:
        """Stop asking."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)
            self._server.stop()

    def _run(self) -> None:
        try:
            self._server.start()
        except errors.RpcUnavailable:
            # The process ends, and has never had a broker.
            return
        while not self._stopping.is_set():
            context = build_daemon_context()
            try:
                with serving(context):
                    ask_processes(self._rpc, context, self._topics)
                    self._on_asked()
                    if self._stopping.wait(self._interval_s):
                        return
                    self._on_round()
            except errors.PortholeError as exc:
                LOG.debug("Proxies not asked", reason=exc)
                self._stopping.wait(self._interval_s)
            except Exception:
                # The thread must live on.
                LOG.exception("Proxies not asked, by an internal error")
                self._stopping.wait(self._interval_s)

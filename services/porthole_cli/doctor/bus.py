# SPDX-License-Identifier: Apache-2.0
"""The port to the daemons: discovery, and single RPCs under a short deadline.

Why a protocol: the tests replace the bus by one whose answers no real cloud would give on demand. Every error of the
bus ends here or is one of ``porthole_common.errors``. Called by :mod:`examination` and :mod:`live_checks`.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from oslo_config import cfg

from porthole_api.rpcapi import TOPIC as API_TOPIC
from porthole_api.rpcapi import PortholeAPI
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline, DeadlinePassed
from porthole_common.diagnosis import Reach
from porthole_common.discovery import DISCOVERY_TOPIC, DaemonProcess, DiscoveryAnswers, ask_processes
from porthole_common.model import ConnectInfo, Target
from porthole_common.rpc import Rpc, RpcServer
from porthole_common.thread_pool import ThreadPool
from porthole_compute.rpcapi import TOPIC as COMPUTE_TOPIC
from porthole_compute.rpcapi import ComputeAPI
from porthole_consoleauth.rpcapi import TOPIC as CONSOLEAUTH_TOPIC
from porthole_consoleauth.rpcapi import ConsoleAuthAPI
from porthole_novncproxy.rpcapi import TOPIC as NOVNCPROXY_TOPIC
from porthole_novncproxy.rpcapi import NovncProxyAPI

# The topic that each daemon serves, and so the name of a queue that each of its processes consumes from.
TOPICS = {
    "api": API_TOPIC,
    "consoleauth": CONSOLEAUTH_TOPIC,
    "novncproxy": NOVNCPROXY_TOPIC,
    "compute": COMPUTE_TOPIC,
}
# One RPC: a healthy daemon answers within milliseconds, on a busy machine within a second or two.
CALL_TIMEOUT_S = 4.0
# How long discovery waits for the daemons that have not answered.
DISCOVERY_S = 4.0
JOIN_TIMEOUT_S = 5.0
# The name under which the doctor listens; always the same, so that it leaves no new queue behind each time.
SERVER_NAME = "doctor"
# The user in the daemons' logs.
USER = "porthole-doctor"


class Bus(Protocol):
    """The questions to the daemons. A question that fails raises Unavailable within :data:`CALL_TIMEOUT_S`."""

    def discover(self, expected: Mapping[str, int]) -> list[DaemonProcess]:
        """Return the processes that answer; early when the ``expected`` number of each daemon has, if not empty."""

    def describe(self, presence: DaemonProcess) -> Any:
        """Return the description of that process, of the class for its daemon."""

    def dial(self, proxy: DaemonProcess, targets: Sequence[Target]) -> list[Reach]:
        """Have a proxy dial."""

    def authorize(self, connect_info: ConnectInfo) -> None:
        """Have any consoleauth authorize a console."""

    def check(self, token: str, server: str) -> None:
        """Have one consoleauth check a token; raise TokenInvalid when it does not know it."""

    def revoke(self, instance_uuid: str, server: str) -> None:
        """Have one consoleauth revoke an instance's tokens."""

    def close(self) -> None:
        """Leave the bus."""


class RpcBus:
    """A :class:`Bus` over ``rpc``; it closes ``rpc`` too if ``owns_rpc``."""

    def __init__(self, rpc: Rpc, owns_rpc: bool = True) -> None:
        self._rpc = rpc
        self._owns_rpc = owns_rpc
        self._threads = ThreadPool("doctor-bus", 1)
        self._context = RequestContext(user_id=USER, is_admin=True, overwrite=False)
        self._consoleauth = ConsoleAuthAPI(self._rpc)
        self._compute = ComputeAPI(self._rpc)
        self._proxy = NovncProxyAPI(self._rpc)
        self._api = PortholeAPI(self._rpc)
        self._answered: dict[str, DaemonProcess] = {}
        self._changed = threading.Condition()
        self._server: RpcServer | None = None
        self._describers: dict[str, Callable[[RequestContext, str], Any]] = {
            "api": self._api.describe_api,
            "consoleauth": self._consoleauth.describe_store,
            "novncproxy": self._proxy.describe_proxy,
            "compute": self._compute.describe_host,
        }

    def discover(self, expected: Mapping[str, int]) -> list[DaemonProcess]:
        """Ask every process, and return those that answered within :data:`DISCOVERY_S`; early when none is missing.

        :raises RpcUnavailable: when no broker takes the question.
        """
        server = self._rpc.get_server(DISCOVERY_TOPIC, SERVER_NAME, [DiscoveryAnswers(self._take)])
        try:
            self._threads.run(server.start, Deadline(JOIN_TIMEOUT_S))
        except DeadlinePassed:
            return []
        self._server = server
        ask_processes(self._rpc, self._context, TOPICS.values())
        with self._changed:
            self._changed.wait_for(lambda: self._is_complete(expected), DISCOVERY_S)
            return sorted(
                self._answered.values(), key=lambda presence: (presence.daemon, presence.host, presence.server)
            )

    def describe(self, presence: DaemonProcess) -> Any:
        """Return the description of that process.

        :raises Unavailable: when it does not answer, or its version cannot describe itself (RemoteFailure).
        """
        return self._describers[presence.daemon](self._context, presence.server)

    def dial(self, proxy: DaemonProcess, targets: Sequence[Target]) -> list[Reach]:
        """Have a proxy dial VNC servers.

        :raises Unavailable: when it does not answer.
        """
        return self._proxy.dial_targets(self._context, proxy.server, targets)

    def authorize(self, connect_info: ConnectInfo) -> None:
        """Have a consoleauth authorize a console.

        :raises Unavailable: when no consoleauth does.
        """
        self._consoleauth.authorize_console(self._context, connect_info)

    def check(self, token: str, server: str) -> None:
        """Have that consoleauth check a token.

        :raises TokenInvalid: when it does not know it.
        :raises Unavailable: when it cannot say.
        """
        self._consoleauth.check_token(self._context, token, server=server)

    def revoke(self, instance_uuid: str, server: str) -> None:
        """Have that consoleauth revoke the instance's tokens.

        :raises Unavailable: when it cannot.
        """
        self._consoleauth.delete_tokens_for_instance(self._context, instance_uuid, server=server)

    def close(self) -> None:
        """Leave the bus; a few seconds at most."""
        if self._server is not None:
            self._server.stop()
        if self._owns_rpc:
            self._rpc.close()
        self._threads.close()

    def _take(self, presence: DaemonProcess) -> None:
        if presence.daemon not in TOPICS:
            return
        with self._changed:
            self._answered[presence.process] = presence
            self._changed.notify_all()

    def _is_complete(self, expected: Mapping[str, int]) -> bool:
        counts = dict.fromkeys(expected, 0)
        for presence in self._answered.values():
            counts[presence.daemon] = counts.get(presence.daemon, 0) + 1
        return bool(expected) and all(counts[daemon] >= number for daemon, number in expected.items())


def build_bus(conf: cfg.ConfigOpts) -> Bus:
    """Return the bus of the daemons of ``conf``; the first use makes the first connection.

    :raises ConfigInvalid: when the transport URL is not valid.
    """
    return RpcBus(Rpc(conf, CALL_TIMEOUT_S))

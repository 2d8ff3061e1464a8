# SPDX-License-Identifier: Apache-2.0
"""The way to the bus: one transport for each process, its clients and its servers.

Why: Nova made two connections to the broker for each console. Here a process has one connection for each server, one
for the replies to its calls, and one to send with. While the broker is away or frozen, each call ends at its deadline
with RpcUnavailable; calls work again when the broker is back.

Used by each service's ``rpcapi.py`` (clients), by ``main.py`` (servers) and by ``notifications.py``. The parts:
:mod:`porthole_common.rpc_client` (one call), ``rpc_server`` (joining and leaving), ``rpc_transport`` (options and
brokers), ``messaging`` (the import of the library) and ``oslo_messaging_patches`` (its private parts).
"""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from oslo_config import cfg

from porthole_common import errors, metrics
from porthole_common.broker import Broker
from porthole_common.broker_watch import BrokerWatch
from porthole_common.conf import upgrade_levels
from porthole_common.context import RequestContext, serving
from porthole_common.deadline import Deadline, DeadlinePassed
from porthole_common.messaging import BROKER_ERRORS, DefaultRPCAccessPolicy, oslo_messaging
from porthole_common.oslo_messaging_patches import apply_patches
from porthole_common.rpc_client import GRACE_S, RpcClient, log_unanswered
from porthole_common.rpc_server import RpcServer, expected_exceptions, stop_in_time
from porthole_common.rpc_transport import find_watched_brokers, list_brokers, open_transport
from porthole_common.thread_pool import EAGER, ThreadPool

__all__ = [
    "Broker",
    "Rpc",
    "RpcClient",
    "RpcServer",
    "RpcTarget",
    "expected_exceptions",
    "list_brokers",
    "log_unanswered",
]

# oslo.messaging's address of a server: topic, server, version. :class:`porthole_common.model.Target` is a VNC server's.
RpcTarget = oslo_messaging.Target
Result = TypeVar("Result")
# How often a send without a broker is tried again before it fails: enough to replace a connection that died idle in
# the pool, and soon enough for the caller's deadline.
SEND_RETRIES = 1
# Topic and method in the log line of a sequence that is late before its first call.
_NO_CALL = ("the message bus", "anything")
# Calls under way at once in one process; each may hold a thread for as long as the broker is away.
MAX_CALLS = 128
CLOSE_TIMEOUT_S = 2.0
# The topic of the message that shows whether the broker takes messages. No daemon consumes from it.
PROBE_TOPIC = "porthole.probe"


class ContextSerializer(oslo_messaging.NoOpSerializer):  # type: ignore[misc]
    """Carries the RequestContext. Arguments and results are primitives already."""

    def serialize_context(self, context: RequestContext) -> dict[str, Any]:
        """Return the context as a dictionary."""
        return context.to_message()

    def deserialize_context(self, context: dict[str, Any]) -> RequestContext:
        """Return the context, and make it the current one of this thread, for the log lines."""
        return RequestContext.from_dict(context)


class Rpc:
    """One process's way to the bus: one transport, and one client per topic."""

    def __init__(self, conf: cfg.ConfigOpts, timeout_s: float, transport_url: str | None = None) -> None:
        """Prepare the transport; the first connection is made by the first call or server.

        ``timeout_s`` is the deadline of every call of this process, in seconds. ``transport_url`` replaces the option
        of that name, for a process whose bus the operator does not choose.

        :raises ConfigInvalid: when the transport URL is wrong or its transport is not installed; when TLS would check
            no certificate.
        """
        self._timeout_s = timeout_s
        apply_patches()
        self._transport = open_transport(conf, timeout_s, transport_url)
        watched = find_watched_brokers(conf) if transport_url is None else []
        self._watch = BrokerWatch(watched, BROKER_ERRORS, probe=self._probe)
        # The conf of a test or a tool may have only oslo.messaging's options.
        upgrade_levels.register_opts(conf)
        self._levels = conf.upgrade_levels
        self._serializer = ContextSerializer()
        self._workers = ThreadPool("rpc", MAX_CALLS)
        self._sequences = ThreadPool("rpc-sequence", MAX_CALLS, EAGER)
        self._clients: dict[tuple[str, str, float], RpcClient] = {}
        self._servers: list[RpcServer] = []
        self._lock = threading.Lock()
        if watched:
            metrics.BROKER_CONNECTED.add_source(self._read_connected)
            metrics.BROKERS_UNUSABLE.add_source(self._read_unusable)

    def get_client(self, topic: str, version: str, timeout_s: float | None = None) -> RpcClient:
        """Return the process's client for ``topic`` at ``version`` ("major.minor" the endpoint must offer).

        ``timeout_s`` is the deadline of its calls, by default that of the process.
        """
        timeout_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        with self._lock:
            if (topic, version, timeout_s) not in self._clients:
                client = oslo_messaging.get_rpc_client(
                    self._transport,
                    RpcTarget(topic=topic, version=version),
                    timeout=timeout_s,
                    retry=SEND_RETRIES,
                    serializer=self._serializer,
                )
                self._clients[topic, version, timeout_s] = RpcClient(
                    client, topic, self._workers, timeout_s, self._watch
                )
            return self._clients[topic, version, timeout_s]

    def run(self, context: RequestContext, work: Callable[[Deadline], Result], calls: int) -> Result:
        """Run ``work(deadline)``; return its result, or raise its error.

        The work makes ``calls`` calls one after the other, and hands its deadline to each of them. All calls are made
        in one thread of the pool: each call by itself would be handed to a thread and back.

        :raises RpcUnavailable: when one call, or all together, take longer than their deadlines. The call that is
            under way may come to its end; no further call is made.
        """
        deadline = Deadline(calls * self._timeout_s + GRACE_S)

        def serve() -> Result:
            with serving(context):
                return work(deadline)

        try:
            return self._sequences.run(serve, deadline)
        except DeadlinePassed as exc:
            late = deadline.waits_for
            topic, method = (late.topic, late.method) if isinstance(late, errors.RpcUnavailable) else _NO_CALL
            raise log_unanswered(context, topic, method, exc) from exc

    def may_send(self, topic: str, version: str) -> bool:
        """Say whether ``[upgrade_levels]`` allows messages of ``version`` to ``topic``: older daemons may read it."""
        name = topic.removeprefix("porthole.")
        if name not in self._levels or self._levels[name] is None:
            return True
        return _parse_version(version) <= _parse_version(self._levels[name])

    def get_server(self, topic: str, server: str, endpoints: Sequence[object], threads: int | None = None) -> RpcServer:
        """Return a server of ``topic`` under the name ``server``, which is not started yet.

        ``threads`` handle its messages; a single thread handles them in the order in which they arrive. None stands for
        ``[DEFAULT] executor_thread_pool_size``: each message starts another thread up to that number.
        """
        make_server = functools.partial(
            oslo_messaging.get_rpc_server,
            self._transport,
            RpcTarget(topic=topic, server=server),
            list(endpoints),
            serializer=self._serializer,
            access_policy=DefaultRPCAccessPolicy,
        )
        server_of_topic = RpcServer(make_server, self._workers, self._watch, threads)
        self._servers = [*(each for each in self._servers if not each.is_stopped), server_of_topic]
        return server_of_topic

    def close(self) -> None:
        """Close the transport and its connections; a few seconds at most."""
        metrics.BROKER_CONNECTED.remove_source(self._read_connected)
        metrics.BROKERS_UNUSABLE.remove_source(self._read_unusable)
        self._watch.close()
        stop_in_time(self._workers, self._transport.cleanup, "transport", CLOSE_TIMEOUT_S)
        self._workers.close()
        self._sequences.close()

    def _read_connected(self) -> metrics.Samples:
        servers = [server for server in self._servers if not server.is_stopped]
        return [((), all(server.get_subscription() is not None for server in servers))] if servers else []

    def _read_unusable(self) -> metrics.Samples:
        return [((), self._watch.count_unusable())]

    def _probe(self) -> None:
        """Send a message that no server consumes, over the connection that sends all messages."""
        target = RpcTarget(topic=PROBE_TOPIC, fanout=True)
        client = oslo_messaging.get_rpc_client(self._transport, target, retry=SEND_RETRIES, serializer=self._serializer)
        try:
            client.cast(RequestContext(overwrite=False), "probe")
        except BROKER_ERRORS as exc:
            self._watch.report(exc)


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))

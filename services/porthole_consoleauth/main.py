# SPDX-License-Identifier: Apache-2.0
"""porthole-consoleauth: the process that owns the console tokens.

Why a process of its own: only this process uses the token store, so the rules for tokens are in one place. Any number
of them may run, on any nodes, since they share the store and one RPC topic. ``porthole standalone`` builds the same
service on the store in memory.
"""

import porthole_common.early_sighup  # noqa: F401 - before the imports that take a second

# isort: split
import functools
import sys
from collections.abc import Sequence

from oslo_config import cfg

from porthole_common import service
from porthole_common.conf.history import keeps_history
from porthole_common.conf.metrics import find_host
from porthole_common.diagnosis import read_vitals
from porthole_common.discovery import DiscoveryEndpoint, build_process_id
from porthole_common.log import get_logger
from porthole_common.notifications import RevocationPublisher
from porthole_common.rpc import Rpc
from porthole_consoleauth import memcached_servers
from porthole_consoleauth.endpoint import ConsoleAuthEndpoint
from porthole_consoleauth.history.service import HistoryService
from porthole_consoleauth.history.switched_off import NoHistory
from porthole_consoleauth.memory_store import MemoryStore
from porthole_consoleauth.rpcapi import TOPIC
from porthole_consoleauth.token_store import TokenStore

LOG = get_logger(__name__)
PROGRAM = "porthole-consoleauth"


class ConsoleAuthService(service.Service):
    """Consoleauth inside a process.

    It is ready when the broker has its queues; it does not wait for a store that is away. It is alive while the process
    is, since oslo.messaging starts its own threads anew. No option of consoleauth changes while it runs.
    """

    name = PROGRAM

    def __init__(self, conf: cfg.ConfigOpts, rpc: Rpc, store: TokenStore, owns_rpc: bool) -> None:
        """Prepare; ``owns_rpc``: the daemon of its own, whose :meth:`stop` closes ``rpc`` too.

        :raises ConfigInvalid: when ``[database] connection`` or the transport of the notifications is wrong.
        """
        self._rpc = rpc
        self._owns_rpc = owns_rpc
        self._store = store
        metrics_host = find_host(conf, "consoleauth")
        vitals = functools.partial(read_vitals, conf.host, _count_descriptors(conf), metrics_host)
        process = build_process_id()
        is_kept = keeps_history(conf, is_standalone=not owns_rpc)
        self._history = HistoryService(conf, rpc, process) if is_kept else NoHistory()
        endpoint = ConsoleAuthEndpoint(
            store,
            RevocationPublisher(rpc),
            conf.consoleauth.token_ttl,
            vitals,
            uses=conf.consoleauth.token_uses,
            history=self._history,
        )
        discovery = DiscoveryEndpoint(rpc, "consoleauth", conf.host, conf.host, process)
        self._server = rpc.get_server(TOPIC, conf.host, [endpoint, self._history.endpoint, discovery])

    def start(self) -> None:
        """Serve the topic. A store that does not answer is a warning: calls get an error until it answers."""
        for name, refusal in self._store.probe().items():
            if refusal:
                LOG.warning("memcached not reachable", address=name, reason=refusal)
        self._history.start()
        self._server.start()

    def stop(self) -> None:
        """Finish the calls under way, then leave the bus and the store."""
        self._server.stop()
        self._history.stop()
        if self._owns_rpc:
            self._rpc.close()
        self._store.close()


def _count_descriptors(conf: cfg.ConfigOpts) -> int:
    """Return how many descriptors the process opens at most: the store's connections, the bus, the log."""
    return int(conf.memcache.pool_size) * len(conf.memcache.servers) + 64


def build(conf: cfg.ConfigOpts) -> Sequence[ConsoleAuthService]:
    """Build the daemon's service on memcached.

    :raises ConfigInvalid: when transport_url, [memcache] servers or [database] connection is not valid.
    """
    store = memcached_servers.build_store(conf)
    rpc = Rpc(conf, conf.rpc.call_timeout)
    return [ConsoleAuthService(conf, rpc, store, owns_rpc=True)]


def build_standalone(conf: cfg.ConfigOpts, rpc: Rpc) -> ConsoleAuthService:
    """Build the service of ``porthole standalone``: tokens in memory, ``rpc`` shared with the other services."""
    return ConsoleAuthService(conf, rpc, MemoryStore(), owns_rpc=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit status."""
    return service.main(PROGRAM, build, argv, cfg.CONF)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Several processes of the proxy behind one port: cotyledon starts them, restarts one that dies, passes signals on.

The supervisor opens the ports, once for each worker (SO_REUSEPORT, socket(7)): the kernel shares connections out
evenly, and connections that wait for a worker that died are its successor's. The supervisor has no broker connection
and no thread of the relay; :mod:`porthole_novncproxy.process.heartbeat` tells it, and systemd, how its workers are.
Each worker has its own loop, RPC connection and subscription to revocations, and counts limits for itself. Added to
cotyledon here: a second SIGTERM ends everything at once.
"""

import multiprocessing
import os
import signal
import socket
from collections.abc import Sequence

import cotyledon
from cotyledon.types import WorkerId
from oslo_config import cfg

from porthole_common.log import get_logger
from porthole_common.metrics_gathering import WorkersMetrics
from porthole_common.rpc import Rpc
from porthole_common.systemd import SystemdNotifier
from porthole_novncproxy.daemon import END_S, PROGRAM, NovncProxyService, open_listeners
from porthole_novncproxy.doors import Door
from porthole_novncproxy.process.heartbeat import Heartbeat, Watch, beat_while_alive

Listeners = dict[Door, socket.socket]

LOG = get_logger(__name__)


class ProxyWorker(cotyledon.Service):
    """One worker process; cotyledon calls it in the child."""

    name = PROGRAM

    def __init__(
        self,
        worker_id: WorkerId,
        conf: cfg.ConfigOpts,
        listeners: Sequence[Listeners],
        heartbeat: Heartbeat,
        metrics: WorkersMetrics,
    ) -> None:
        super().__init__(worker_id)
        self._metrics_servers = metrics.enter(worker_id)
        for server in self._metrics_servers:
            server.start()
        self._heartbeat = heartbeat
        heartbeat.enter(worker_id)
        for others in (*listeners[:worker_id], *listeners[worker_id + 1 :]):
            _close(others)
        self._service = NovncProxyService(conf, Rpc(conf, conf.rpc.call_timeout), True, listeners[worker_id], worker_id)
        beat_while_alive(heartbeat, worker_id, self._service.is_alive)

    def run(self) -> None:
        """Serve."""
        self._service.start()
        LOG.info("Worker ready", program=PROGRAM, worker=self.worker_id)
        self._heartbeat.set_current(self.worker_id)

    def reload(self) -> None:
        """Reread the configuration in place: open consoles go on."""
        self._service.reload()
        self._heartbeat.set_current(self.worker_id)

    def terminate(self) -> None:
        """Drain, and end."""
        self._service.stop()
        for server in self._metrics_servers:
            server.stop()


def run(conf: cfg.ConfigOpts) -> int:
    """Run ``[novncproxy] workers`` processes until a signal; return the exit status.

    :raises ConfigInvalid: when an option is wrong: before a worker starts, which would be restarted for ever.
    """
    # Built once and thrown away: an error that would end each worker ends the supervisor, and says why.
    NovncProxyService(conf, Rpc(conf, conf.rpc.call_timeout), owns_rpc=True).stop()
    listeners = [open_listeners(conf, reuse_port=True) for _ in range(conf.novncproxy.workers)]
    stop_timeout_s = conf.graceful_shutdown_timeout + int(END_S)
    heartbeat = Heartbeat(conf.novncproxy.workers)
    metrics = WorkersMetrics(conf, "novncproxy", conf.novncproxy.workers)
    watch = Watch(PROGRAM, heartbeat, SystemdNotifier())
    # cotyledon would call the proxy ready before it has a worker.
    os.environ.pop("NOTIFY_SOCKET", None)
    manager = cotyledon.ServiceManager(graceful_shutdown_timeout=stop_timeout_s)

    def let_go() -> None:
        # From here on another process may take the port, and a second SIGTERM is meant.
        watch.stop(stop_timeout_s)
        for sockets in listeners:
            _close(sockets)
        signal.signal(signal.SIGTERM, lambda *_: _end_at_once())

    manager.register_hooks(on_terminate=let_go, on_reload=watch.reload)
    manager.add(ProxyWorker, workers=conf.novncproxy.workers, args=(conf, listeners, heartbeat, metrics))
    watch.start()
    metrics.start()
    try:
        manager.run()
    except SystemExit as exc:
        return int(exc.code or 0)
    return 0


def _close(listeners: Listeners) -> None:
    for listener in listeners.values():
        listener.close()


def _end_at_once() -> None:
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(1)

# SPDX-License-Identifier: Apache-2.0
"""porthole-api: the process that serves Nova's API for consoles.

Why the directory is its only state: so any number of api processes give the same answers. Run as a daemon, built into
``porthole standalone``, or imported by a WSGI server through :mod:`porthole_api.wsgi`.
"""

import porthole_common.early_sighup  # noqa: F401 - before the imports that take a second

# isort: split
import os
import sys
import time
from collections.abc import Sequence

from oslo_config import cfg

from porthole_api.app import build_app
from porthole_api.auth import WsgiApplication
from porthole_api.console_limit import ConsoleLimit
from porthole_api.consoles import CALLS_PER_REQUEST, ConsoleOpener
from porthole_api.directory import Directory
from porthole_api.endpoint import ApiEndpoint
from porthole_api.http_server import HttpServer
from porthole_api.policy import Policy
from porthole_api.proxies import ProxySessions, Roster, build_watch
from porthole_api.subscription import Subscription
from porthole_common import conf as porthole_conf
from porthole_common import log, metrics_gathering, service
from porthole_common.discovery import DiscoveryEndpoint, DiscoveryWatch
from porthole_common.rpc import Rpc
from porthole_common.unknown_options import warn_of_unknown_options
from porthole_compute.rpcapi import ComputeAPI
from porthole_consoleauth.rpcapi import ConsoleAuthAPI
from porthole_novncproxy.rpcapi import NovncProxyAPI

PROGRAM = "porthole-api"
CONFIG_FILE_VARIABLE = "PORTHOLE_CONFIG_FILE"


class ApiService:
    """The api inside a process (:class:`porthole_common.service.Service`)."""

    name = PROGRAM
    stop_timeout_s = service.STOP_TIMEOUT_S

    def __init__(self, conf: cfg.ConfigOpts, rpc: Rpc, owns_rpc: bool) -> None:
        """Prepare; with ``owns_rpc``, :meth:`stop` closes ``rpc`` too.

        :raises ConfigInvalid: when an option is wrong.
        """
        self._rpc = rpc
        self._owns_rpc = owns_rpc
        # The name is the same after a restart, so that a restart leaves no queue behind.
        self._policy = Policy(conf)
        self._subscription, self._watch, application = _build(
            conf, rpc, f"{conf.host}-{conf.api.bind_port}", self._policy
        )
        self._http = HttpServer(application, conf.api.bind_host, conf.api.bind_port, conf.api.workers)

    def start(self) -> None:
        """Listen, and join the bus in a thread; until that is done, the answer is 503.

        :raises ConfigInvalid: when the address or the port is not available.
        """
        self._http.start()
        self._subscription.start()
        self._watch.start()

    def waits_for(self) -> str:
        """Return "the message bus" until the computes have been asked for their inventory."""
        return "" if self._subscription.joined else "the message bus"

    def is_alive(self) -> bool:
        """Whether the thread that accepts connections has worked since the last call."""
        return self._http.is_alive()

    def reload(self) -> None:
        """Read the policy file again; the options of the api need a restart."""
        self._policy.reload()

    def stop(self) -> None:
        """Answer the running requests, then leave the bus."""
        self._http.stop()
        self._watch.stop()
        self._subscription.stop()
        if self._owns_rpc:
            self._rpc.close()


def build_standalone(conf: cfg.ConfigOpts, rpc: Rpc) -> ApiService:
    """Build the service of ``porthole standalone``, which shares ``rpc`` with the other services.

    :raises ConfigInvalid: when an option is wrong.
    """
    return ApiService(conf, rpc, owns_rpc=False)


def build(conf: cfg.ConfigOpts) -> Sequence[ApiService]:
    """Build the daemon's service.

    :raises ConfigInvalid: when an option is wrong.
    """
    return [ApiService(conf, _build_rpc(conf), owns_rpc=True)]


def build_wsgi_application() -> WsgiApplication:
    """Build the application of a WSGI server's worker process; call it in that process, since it starts threads.

    The configuration is the file that ``PORTHOLE_CONFIG_FILE`` names, or else the files that the daemons read.

    :raises ConfigInvalid: when an option is wrong.
    :raises cfg.Error: when an option or a file does not parse.
    """
    path = os.environ.get(CONFIG_FILE_VARIABLE)
    porthole_conf.parse(cfg.CONF, PROGRAM, ["--config-file", path] if path else [])
    log.setup(cfg.CONF, PROGRAM)
    warn_of_unknown_options(cfg.CONF)
    # The workers of one host may share a name: each gets every message of the topic all the same.
    subscription, watch, application = _build(cfg.CONF, _build_rpc(cfg.CONF), f"{cfg.CONF.host}-wsgi", Policy(cfg.CONF))
    subscription.start()
    watch.start()
    for server in metrics_gathering.build_peers(cfg.CONF, "api"):
        server.start()
    return application


def _build_rpc(conf: cfg.ConfigOpts) -> Rpc:
    # The user waits for [rpc] call_timeout in all.
    return Rpc(conf, conf.rpc.call_timeout / CALLS_PER_REQUEST)


def _build(
    conf: cfg.ConfigOpts, rpc: Rpc, name: str, policy: Policy
) -> tuple[Subscription, DiscoveryWatch, WsgiApplication]:
    directory = Directory(time.monotonic)
    compute = ComputeAPI(rpc)
    examined = [ApiEndpoint(conf, directory), DiscoveryEndpoint(rpc, "api", conf.host, name)]
    subscription = Subscription(rpc, compute, directory, name, examined)
    limit = ConsoleLimit(time.monotonic, conf.api.max_consoles_per_minute)
    opener = ConsoleOpener(directory, compute, ConsoleAuthAPI(rpc), policy, rpc.run, limit)
    roster = Roster()
    sessions = ProxySessions(roster, NovncProxyAPI(rpc))
    return subscription, build_watch(rpc, roster, name), build_app(conf, opener, sessions)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit status."""
    return service.main(PROGRAM, build, argv, cfg.CONF)


if __name__ == "__main__":
    sys.exit(main())

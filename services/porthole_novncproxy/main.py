# SPDX-License-Identifier: Apache-2.0
"""porthole-novncproxy: the daemon."""

import porthole_common.early_sighup  # noqa: F401 - before the imports that take a second

# isort: split
import sys
from collections.abc import Sequence

from oslo_config import cfg

from porthole_common import metrics_server, service
from porthole_common.rpc import Rpc
from porthole_novncproxy.daemon import PROGRAM, NovncProxyService
from porthole_novncproxy.process import supervisor


def build_service(conf: cfg.ConfigOpts, rpc: Rpc) -> NovncProxyService:
    """Return the service of ``porthole standalone``: ``rpc`` is shared with the other services.

    :raises ConfigInvalid: when an option is wrong.
    """
    return NovncProxyService(conf, rpc, owns_rpc=False)


def serve(conf: cfg.ConfigOpts) -> int:
    """Run the proxy in this process, or in as many as ``[novncproxy] workers`` says; return the exit status.

    :raises ConfigInvalid: when an option is wrong.
    """
    if conf.novncproxy.workers > 1:
        return supervisor.run(conf)
    servers = metrics_server.build_servers(conf, "novncproxy")
    return service.run(PROGRAM, [*servers, NovncProxyService(conf, Rpc(conf, conf.rpc.call_timeout), owns_rpc=True)])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit status."""
    return service.launch(PROGRAM, serve, argv, cfg.CONF)


if __name__ == "__main__":
    sys.exit(main())

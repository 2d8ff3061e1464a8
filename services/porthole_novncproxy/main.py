# SPDX-License-Identifier: Apache-2.0
"""porthole-novncproxy: the daemon."""

import sys
from collections.abc import Sequence

from oslo_config import cfg

from porthole_common import service
from porthole_common.rpc import Rpc
from porthole_novncproxy import workers
from porthole_novncproxy.daemon import PROGRAM, NovncProxyService


def build_service(conf: cfg.ConfigOpts, rpc: Rpc) -> NovncProxyService:
    """Return the proxy's service on ``rpc``: for this daemon, and for ``porthole standalone``.

    :raises ConfigInvalid: when an option does not do.
    """
    return NovncProxyService(conf, rpc)


def serve(conf: cfg.ConfigOpts) -> int:
    """Run the proxy in this process, or in as many as ``[novncproxy] workers`` says; return the exit status.

    :raises ConfigInvalid: when an option does not do.
    """
    if conf.novncproxy.workers > 1:
        return workers.run(conf)
    return service.run(PROGRAM, [build_service(conf, Rpc(conf, conf.api.rpc_timeout))])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; return its exit status."""
    return service.launch(PROGRAM, serve, argv)


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""[memcache]: the token store."""

from oslo_config import cfg

GROUP = "memcache"
OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "servers",
        default=["127.0.0.1:11211"],
        help="memcached servers as host:port. Every consoleauth must list the same ones in the same order.",
    ),
    cfg.FloatOpt("connect_timeout", default=1.0, min=0.05, max=30, help="Seconds to wait for a connection."),
    cfg.FloatOpt("timeout", default=1.0, min=0.05, max=30, help="Seconds to wait for an answer."),
    cfg.IntOpt("pool_size", default=32, min=1, max=1024, help="Connections to each server, at most."),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

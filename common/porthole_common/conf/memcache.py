# SPDX-License-Identifier: Apache-2.0
"""[memcache]: the token store.

The names of the TLS options and of the login are those of oslo.cache's [cache].
"""

from oslo_config import cfg

GROUP = "memcache"
OPTS: list[cfg.Opt] = [
    cfg.ListOpt(
        "servers",
        default=["127.0.0.1:11211"],
        help="memcached servers as host:port. Every consoleauth must list the same ones. Each holds its share of the "
        "instances; while it is down, those have no consoles, and the other instances are not affected.",
    ),
    cfg.FloatOpt("connect_timeout", default=1.0, min=0.05, max=30, help="Seconds to wait for a connection."),
    cfg.FloatOpt("timeout", default=1.0, min=0.05, max=30, help="Seconds to wait for an answer."),
    cfg.IntOpt("pool_size", default=32, min=1, max=1024, help="Connections to each server, at most."),
    cfg.BoolOpt(
        "tls_enabled",
        default=False,
        help="Speak TLS to memcached (its option -Z). The certificate and the name in it are always checked.",
    ),
    cfg.StrOpt("tls_cafile", help="PEM file with the authorities that sign the servers. Unset: the system's."),
    cfg.StrOpt("tls_certfile", help="PEM file with this client's certificate, where the servers ask for one."),
    cfg.StrOpt("tls_keyfile", help="PEM file with that certificate's key. Unset: the key is in ``tls_certfile``."),
    cfg.StrOpt(
        "username",
        help="User of memcached's ASCII authentication (its option -Y). Without TLS, an eavesdropper can read "
        "it. Unset: no login. SASL needs memcached's binary protocol, which is deprecated and not supported here.",
    ),
    cfg.StrOpt("password", secret=True, help="Password of ``username``."),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

# SPDX-License-Identifier: Apache-2.0
"""[api]: where the REST API listens, who may call it, and how long it waits."""

from oslo_config import cfg

GROUP = "api"
OPTS: list[cfg.Opt] = [
    cfg.HostAddressOpt(
        "bind_host", default="127.0.0.1", help="Address to listen on. Loopback unless you say otherwise."
    ),
    cfg.PortOpt("bind_port", default=8774, help="TCP port to listen on: that of nova-api."),
    cfg.IntOpt("workers", default=10, min=1, max=1000, help="Threads that answer requests; each holds one request."),
    cfg.StrOpt(
        "auth_strategy",
        default="noauth",
        choices=[("noauth", "Everybody is the administrator; only on a loopback address.")],
        help="How callers prove who they are.",
    ),
    cfg.IntOpt(
        "rpc_timeout",
        default=10,
        min=1,
        max=300,
        help="Seconds an RPC of any daemon waits for its answer. oslo.messaging's own 60 are longer than a user waits.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

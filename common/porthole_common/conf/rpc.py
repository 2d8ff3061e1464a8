# SPDX-License-Identifier: Apache-2.0
"""[rpc]: how long a daemon waits for another one."""

from oslo_config import cfg

GROUP = "rpc"
OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        "call_timeout",
        default=10,
        min=1,
        max=300,
        deprecated_opts=[cfg.DeprecatedOpt("rpc_timeout", group="api")],
        help="Seconds that an RPC of any daemon waits for its answer, and that an API request waits for all of its "
        "RPCs. oslo.messaging's own 60 s are longer than a user waits.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

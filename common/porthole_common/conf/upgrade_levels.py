# SPDX-License-Identifier: Apache-2.0
"""[upgrade_levels]: what may be sent while daemons of two versions share the bus. Named as in Nova."""

from oslo_config import cfg

GROUP = "upgrade_levels"
_HELP = (
    "Highest version of {what}, such as 1.0. Set it where {who} is newer than {whom}, and take it away when all are "
    "of one version. Unset: the newest."
)
# Versions of one major number, which all understand each other's older messages.
_VERSION = r"^1\.[0-9]{1,3}$"
OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "consoleauth",
        regex=_VERSION,
        help=_HELP.format(what="the RPCs to consoleauth", who="a compute", whom="the consoleauths"),
    ),
    cfg.StrOpt(
        "revocations",
        regex=_VERSION,
        help=_HELP.format(what="the revocations that are published", who="a consoleauth", whom="the novncproxies"),
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

# SPDX-License-Identifier: Apache-2.0
"""[upgrade_levels]: the versions of messages while daemons of two releases share the bus. Named as in Nova."""

from oslo_config import cfg

GROUP = "upgrade_levels"
_HELP = (
    "Highest version of {what}, such as 1.0. Set it where {who} is newer than {whom}, and remove it when all are "
    "of one release. Unset: the newest version."
)
# Versions of one major number: each daemon understands the older ones.
_VERSION = r"^1\.[0-9]{1,3}$"
OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "consoleauth",
        regex=_VERSION,
        help=_HELP.format(what="the RPCs to consoleauth", who="a compute or an api", whom="the consoleauths"),
    ),
    cfg.StrOpt(
        "revocations",
        regex=_VERSION,
        help=_HELP.format(
            what="the revocations that are published", who="a consoleauth or a compute", whom="the novncproxies"
        ),
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

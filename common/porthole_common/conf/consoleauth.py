# SPDX-License-Identifier: Apache-2.0
"""[consoleauth]: the life of a token."""

from oslo_config import cfg

GROUP = "consoleauth"
OPTS: list[cfg.Opt] = [
    cfg.IntOpt(
        "token_ttl",
        default=600,
        min=1,
        max=86400,
        deprecated_opts=[cfg.DeprecatedOpt("console_token_ttl", group="DEFAULT")],
        help="Seconds for which a new token can open a console. memcached would take more than 30 days for a date.",
    ),
    cfg.IntOpt(
        "token_uses",
        default=0,
        min=0,
        max=1000,
        help="How many sessions a token may open unless its user says so; 0: any number, as in Nova. With 1, a URL "
        "that somebody copied opens nothing more, and a reload of the page needs a new URL too.",
    ),
    cfg.BoolOpt(
        "enforce_session_timeout",
        default=False,
        help="End an open console when its token expires. The proxy reads this option.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

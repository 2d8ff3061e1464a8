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
        help="Seconds a token can open a console after it was issued. Above 30 days memcached would read it as a date.",
    ),
    cfg.BoolOpt(
        "enforce_session_timeout",
        default=False,
        help="End an open console when its token expires. Read by the proxy.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

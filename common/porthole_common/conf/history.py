# SPDX-License-Identifier: Apache-2.0
"""[history]: whether events at the consoles are kept, and for how long."""

from oslo_config import cfg

GROUP = "history"
OPTS: list[cfg.Opt] = [
    cfg.BoolOpt(
        "enabled",
        default=False,
        help="Keep a history of tokens, sessions and refusals. consoleauth and the proxy read this option. Off unless "
        "it is asked for: several consoleauths need a database that they share.",
    ),
    cfg.IntOpt(
        "retention_days",
        default=90,
        min=1,
        max=3650,
        help="Days after which consoleauth deletes an event, in small batches. 90: a quarter, for a late inquiry.",
    ),
    cfg.IntOpt(
        "spool_size",
        default=16,
        min=1,
        max=1024,
        help="MiB of events that a process keeps in memory, and in a file below ``state_path``, while they cannot be "
        "delivered; the file may take twice as much for a moment. 16 MiB are about 40 000 events.",
    ),
    cfg.IntOpt(
        "proxy_timeout",
        default=90,
        min=6,
        max=3600,
        help="Seconds after which the sessions of a proxy process that answers no question count as closed. In that "
        "time consoleauth asks six times. A proxy that answers later has its sessions opened again in the history.",
    ),
]


def keeps_history(conf: cfg.ConfigOpts, is_standalone: bool) -> bool:
    """Whether consoleauth and the proxy keep a history.

    ``porthole standalone`` does so only with ``[database] connection``: a Porthole that somebody starts to look around
    leaves no file behind.
    """
    return bool(conf.history.enabled and (conf.database.connection or not is_standalone))


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

# SPDX-License-Identifier: Apache-2.0
"""[database]: where consoleauth keeps the history of consoles."""

from oslo_config import cfg

GROUP = "database"
OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "connection",
        secret=True,
        sample_default="sqlite:///$state_path/history.sqlite",
        help="SQLAlchemy URL of the database of the history, such as "
        "postgresql+psycopg2://porthole:PASSWORD@HOST/porthole or mysql+pymysql://porthole:PASSWORD@HOST/porthole; "
        "the extras ``postgresql`` and ``mysql`` bring these drivers. "
        "Unset: SQLite in ``state_path``, which serves the consoleauths of one host alone. Only consoleauth and "
        "porthole-manage read this option. ``porthole standalone`` keeps a history only where it is set.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

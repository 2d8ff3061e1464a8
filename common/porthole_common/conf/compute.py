# SPDX-License-Identifier: Apache-2.0
"""[compute]: the host that runs instances."""

from oslo_config import cfg

GROUP = "compute"
OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "driver",
        default="libvirt",
        choices=[
            ("libvirt", "The instances of a libvirt daemon."),
            ("static", "VNC servers listed in a YAML file."),
        ],
        help="Where this host finds its instances.",
    ),
    cfg.IntOpt(
        "inventory_interval",
        default=30,
        min=1,
        max=60,
        help="Seconds between two inventories when nothing changes. An api calls a host dead after 90 s of silence.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

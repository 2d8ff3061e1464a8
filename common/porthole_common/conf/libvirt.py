# SPDX-License-Identifier: Apache-2.0
"""[libvirt]: the hypervisor of a compute host."""

from oslo_config import cfg

GROUP = "libvirt"
OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "connection_uri",
        default="qemu:///system",
        deprecated_opts=[cfg.DeprecatedOpt("libvirt_uri", group="DEFAULT")],
        help="libvirt connection URI.",
    ),
    cfg.IntOpt(
        "reconnect_interval",
        default=2,
        min=1,
        max=60,
        help="Seconds between two attempts to reach a libvirt daemon that went away.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

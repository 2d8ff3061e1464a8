# SPDX-License-Identifier: Apache-2.0
"""[static]: VNC servers that libvirt does not know."""

from oslo_config import cfg

GROUP = "static"
OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "instances_file",
        default="/etc/porthole/instances.yaml",
        help="YAML file: ``instances: [{uuid, name, host, port, project_id, user_id}]``. Reread on SIGHUP.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

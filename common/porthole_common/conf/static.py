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
    cfg.StrOpt(
        "runs_directory",
        default="/var/lib/porthole",
        help="Existing folder in which compute keeps since when each instance is in ``instances_file``, so that its "
        "consoles outlive a restart of compute, and an instance that is taken out and put back is another one. "
        "Empty, or not writable: a restart ends the consoles of all static instances.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group on ``conf``."""
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]``."""
    return [(GROUP, OPTS)]

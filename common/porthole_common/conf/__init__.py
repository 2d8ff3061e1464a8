# SPDX-License-Identifier: Apache-2.0
"""Every option of Porthole, one module per group.

Why: one place registers all groups, so that one ``porthole.conf`` serves all daemons, and the sample file
(``deploy/config/porthole.conf.sample``) is generated from the same lists. Called by
:mod:`porthole_common.service`, by tests, and by oslo-config-generator through ``list_opts``.
"""

from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

from porthole_common import errors, log
from porthole_common.conf import (
    api,
    compute,
    console,
    consoleauth,
    default,
    libvirt,
    memcache,
    novncproxy,
    static,
    upgrade_levels,
    vnc,
)

_GROUPS = (default, api, compute, console, consoleauth, libvirt, memcache, novncproxy, static, upgrade_levels, vnc)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register every group, and oslo.log's options, on ``conf``; a second time does no harm."""
    log.register_opts(conf)
    for group in _GROUPS:
        group.register_opts(conf)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return ``[(group name, options)]`` for oslo-config-generator."""
    return [pair for group in _GROUPS for pair in group.list_opts()]


def parse(conf: cfg.ConfigOpts, program: str, argv: Sequence[str] | None = None, **overrides: Any) -> None:
    """Register everything and parse ``argv`` and the configuration files.

    Without ``--config-file`` the files are those that oslo.config finds for project ``porthole``
    (``/etc/porthole/porthole.conf``, ``/etc/porthole/porthole.conf.d``).

    :raises cfg.Error: when an argument or a file does not parse.
    :raises ConfigInvalid: when an option's value does not do.
    """
    register_opts(conf)
    conf(args=None if argv is None else list(argv), project="porthole", prog=program, **overrides)
    check_values(conf)


def check_values(conf: cfg.ConfigOpts) -> None:
    """Read every option once: after parsing, and after the files were reread.

    :raises ConfigInvalid: when an option's value does not do.
    """
    for group, opts in list_opts():
        for opt in opts:
            _check_value(conf if group == "DEFAULT" else conf[group], group, opt)


def _check_value(values: Any, group: str, opt: cfg.Opt) -> None:
    # oslo.config looks at a value when it is first asked for, which may be days after the start.
    try:
        values[opt.dest]
    except (cfg.Error, ValueError) as exc:
        raise errors.ConfigInvalid(f"[{group}] {opt.name}", str(exc)) from exc

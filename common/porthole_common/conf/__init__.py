# SPDX-License-Identifier: Apache-2.0
"""Every option of Porthole, one module per group.

Why: one place registers all groups, so that one ``porthole.conf`` serves all daemons, and the sample file
(``deploy/config/porthole.conf.sample``) is generated from the same lists. Called by
:mod:`porthole_common.service`, by tests, and by oslo-config-generator through ``list_opts``.
"""

import argparse
import contextlib
import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from oslo_config import cfg

from porthole_common import config_faults, errors, log
from porthole_common.conf import (
    api,
    compute,
    console,
    consoleauth,
    database,
    default,
    history,
    libvirt,
    memcache,
    metrics,
    novncproxy,
    rpc,
    static,
    upgrade_levels,
    vnc,
)

_GROUPS = (
    default,
    api,
    compute,
    console,
    consoleauth,
    database,
    history,
    libvirt,
    memcache,
    metrics,
    novncproxy,
    rpc,
    static,
    upgrade_levels,
    vnc,
)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register every group, and oslo.log's options, on ``conf``. A second call changes nothing."""
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
    :raises ConfigInvalid: when an option's value is not valid.
    """
    register_opts(conf)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            conf(args=None if argv is None else list(argv), project="porthole", prog=program, **overrides)
    except SystemExit:
        # This also happens for a value in a file, if the command line has the option too. The text has no file name.
        arguments = sys.argv[1:] if argv is None else argv
        fault = config_faults.build_argument_error(list_files(conf, arguments), log.list_opts(conf), said.getvalue())
        if fault is not None:
            raise fault from None
        sys.stderr.write(said.getvalue())
        raise
    except (cfg.NoSuchOptError, cfg.NoSuchGroupError) as exc:
        # For an option that the command line has too. oslo.config does not name the value with the $.
        files = list_files(conf, sys.argv[1:] if argv is None else argv)
        fault = config_faults.build_substitution_error(files, log.list_opts(conf), exc)
        raise fault or exc from None
    except UnicodeDecodeError as exc:
        raise _find_undecodable(list_files(conf, sys.argv[1:] if argv is None else argv), exc) from exc
    sys.stderr.write(said.getvalue())
    check_values(conf)


def check_values(conf: cfg.ConfigOpts) -> None:
    """Read every option once: after parsing, and after the files were reread.

    :raises ConfigInvalid: when an option's value is not valid.
    """
    for group, opts in [*list_opts(), ("DEFAULT", log.list_opts(conf))]:
        check_options(conf, group, opts)


def check_options(conf: cfg.ConfigOpts, group: str, opts: Iterable[cfg.Opt]) -> None:
    """Read each of ``opts``, which are registered in ``group``.

    oslo.config checks a value when it is first read, which may be days after the start.

    :raises ConfigInvalid: when an option's value is not valid; it names file and line, and the allowed values.
    """
    values = conf if group == "DEFAULT" else conf[group]
    for opt in opts:
        try:
            values[opt.dest]
        except (cfg.Error, ValueError) as exc:
            raise config_faults.build_value_error(list_files(conf), group, opt, exc) from exc


def _find_undecodable(files: Sequence[Path], exc: UnicodeDecodeError) -> errors.ConfigInvalid:
    """Return the error that names the file, which ``exc`` does not."""
    named = [str(path) for path in files if path.is_file() and exc.object in path.read_bytes()]
    return errors.ConfigInvalid(", ".join(named) or "a configuration file", "it is not UTF-8 text")


def list_files(conf: cfg.ConfigOpts, arguments: Sequence[str] | None = None) -> list[Path]:
    """Return the files that are read, in that order; from the ``arguments`` where parsing has failed."""
    if arguments is None:
        files, directories = list(conf.config_file or ()), list(conf.config_dir or ())
    else:
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--config-file", action="append")
        parser.add_argument("--config-dir", action="append")
        given, _ = parser.parse_known_args(arguments)
        files = given.config_file or conf.default_config_files
        directories = given.config_dir or conf.default_config_dirs
    return [*map(Path, files), *(path for each in directories for path in sorted(Path(each).glob("*.conf")))]

# SPDX-License-Identifier: Apache-2.0
"""The configuration of this host: whether it is valid, and which other users can read or write its files.

Why first: everything else rests on it. Reads files and their modes, and parses them as the daemons do. Called by
:mod:`examination`.
"""

import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from oslo_config import cfg

from porthole_cli.doctor import finding
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_common import conf as porthole_conf
from porthole_common import config_faults, errors
from porthole_common.unknown_options import UnknownOption, find_unknown_options

_OWN = "chown root:porthole {0} && chmod 640 {0}"


def load(conf: cfg.ConfigOpts, files: Sequence[str]) -> Finding | None:
    """Parse ``files``, or the files that the daemons would read, into ``conf``; return why that failed, or None."""
    for path in files:
        if trouble := _find_unreadable(Path(path)):
            return trouble
    try:
        porthole_conf.parse(conf, "porthole doctor", [f"--config-file={path}" for path in files])
    except cfg.ConfigFilesPermissionDeniedError as exc:
        return _unreadable(", ".join(exc.config_files), "permission denied")
    except cfg.ConfigFileParseError as exc:
        # The exception's own text quotes the line, which may hold the password.
        mend = "Write each option as NAME = VALUE in a [GROUP]."
        return finding.error(FindingId.CONFIG_INVALID, "", f"{config_faults.explain(exc)}.", mend)
    except (cfg.Error, errors.ConfigInvalid) as exc:
        mend = "Correct the option; deploy/config/porthole.conf.sample describes its values."
        return finding.error(FindingId.CONFIG_INVALID, "", config_faults.explain(exc), mend)
    return None


def has_default_files() -> bool:
    """Return True when this host has a configuration that the daemons would read without ``--config-file``."""
    program = "porthole doctor"
    directories = cfg.find_config_dirs("porthole", program)
    return bool(cfg.find_config_files("porthole", program)) or any(
        any(Path(directory).glob("*.conf")) for directory in directories
    )


def examine(conf: cfg.ConfigOpts) -> list[Finding]:
    """Return findings about file modes, the TLS key and unknown options."""
    paths = list_files(conf)
    if not paths:
        mend = "Write /etc/porthole/porthole.conf (deploy/config/porthole.conf.sample), or give --config-file."
        problem = "There is no configuration file; the daemons use the defaults: RabbitMQ on this host, as user guest."
        return [finding.warning(FindingId.CONFIG_MISSING, "", problem, mend)]
    findings = [each for path in paths for each in _judge_mode(path)]
    findings += map(_judge_unknown, find_unknown_options(conf))
    if conf.key or conf.cert:
        findings += _judge_key(Path(conf.key or conf.cert))
    if not findings:
        findings.append(finding.ok(FindingId.CONFIG_OK, f"{', '.join(map(str, paths))}; no other user can read it"))
    return findings


def build_none() -> Finding:
    """Return the finding that this host has no configuration and no running daemon."""
    problem = "This host has no configuration for the daemons, and no part of Porthole runs here."
    mend = (
        "For the guests of this one host, start porthole standalone: it needs no configuration. On a host with "
        "daemons, write /etc/porthole/porthole.conf (deploy/config/porthole.conf.sample), or give --config-file."
    )
    return finding.error(FindingId.CONFIG_MISSING, "", problem, mend)


def list_files(conf: cfg.ConfigOpts) -> list[Path]:
    """Return the files that ``conf`` was read from."""
    paths = [Path(path) for path in conf.config_file or ()]
    for directory in conf.config_dir or ():
        paths += sorted(Path(directory).glob("*.conf"))
    return paths


def _find_unreadable(path: Path) -> Finding | None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as exc:
        return _unreadable(str(path), (exc.strerror or type(exc).__name__).lower())
    return None


def _unreadable(path: str, reason: str) -> Finding:
    if reason == "permission denied":
        mend = "Run this as root or as the user porthole. If the daemons cannot read it either: " + _OWN.format(path)
    else:
        mend = "Name the porthole.conf of the daemons; without --config-file it is /etc/porthole/porthole.conf."
    return finding.error(FindingId.CONFIG_UNREADABLE, "", f"{path} cannot be read: {reason}.", mend)


def _judge_mode(path: Path) -> Iterable[Finding]:
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH:
        problem = f"Every user of this host may write to {path}, and so decide which broker the daemons trust."
        yield finding.error(FindingId.CONFIG_WRITABLE_BY_ALL, "", problem, _OWN.format(path))
    elif mode & stat.S_IROTH:
        problem = f"Every user of this host may read {path}, which holds the broker's password."
        yield finding.warning(FindingId.CONFIG_READABLE_BY_ALL, "", problem, _OWN.format(path))


def _judge_unknown(unknown: UnknownOption) -> Finding:
    problem = f"{unknown.file}, line {unknown.line}: no part of Porthole reads {unknown}, so it has no effect."
    mend = "Correct the name or the group, or take the line out; deploy/config/porthole.conf.sample has all options."
    if unknown.nearest:
        mend = f"Did you mean {unknown.nearest}? {mend}"
    return finding.warning(FindingId.CONFIG_UNKNOWN_OPTION, "", problem, mend)


def _judge_key(path: Path) -> list[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError:
        # A host without a proxy needs no key; a proxy without its key says so itself.
        return []
    if not mode & stat.S_IROTH:
        return []
    problem = f"Every user of this host may read {path}, the key of the proxy's certificate."
    return [finding.warning(FindingId.CONFIG_KEY_READABLE_BY_ALL, "", problem, _OWN.format(path))]

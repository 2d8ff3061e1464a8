# SPDX-License-Identifier: Apache-2.0
"""Options in a configuration file that no part of Porthole reads: a misspelled name, a wrong group, an old option.

Why: oslo.config ignores an unknown option silently, and the operator believes that it has an effect. Porthole's own
groups and [DEFAULT] are examined; other groups belong to libraries. An option of [DEFAULT] may be oslo.log's or
oslo.messaging's too. Called by :mod:`porthole_common.service` at start, and by ``porthole doctor``.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import log
from porthole_common.config_faults import list_assignments
from porthole_common.log import get_logger
from porthole_common.messaging import oslo_messaging_opts

LOG = get_logger(__name__)
_DEFAULT = "DEFAULT"
# How alike two names must be (difflib's ratio), so that one is suggested for the other.
_LIKENESS = 0.75


@dataclass(frozen=True)
class UnknownOption:
    """One line of a file; ``nearest`` is a known option, written ``[group] name``, or "". No value is kept."""

    file: Path
    line: int
    group: str
    name: str
    nearest: str

    def __str__(self) -> str:
        return f"[{self.group}] {self.name}"


def find_unknown_options(conf: cfg.ConfigOpts) -> list[UnknownOption]:
    """Return the unknown options in the files that ``conf`` was read from."""
    listed = [*porthole_conf.list_opts(), (_DEFAULT, log.list_opts(conf))]
    listed += [(_DEFAULT, options) for group, options in oslo_messaging_opts.list_opts() if group is None]
    # ConfigOpts yields its groups too.
    groups = {name for name in conf if isinstance(conf[name], cfg.ConfigOpts.GroupAttr)}
    known: dict[str, set[str]] = {_DEFAULT: set(conf) - groups}
    old_names: dict[str, set[str]] = {}
    for group, options in listed:
        for option in options:
            known.setdefault(group, set()).update({option.name, option.dest})
            for old in option.deprecated_opts:
                name = old.name or option.name
                old_names.setdefault(old.group or group, set()).update({name, name.replace("-", "_")})
    return search_files(porthole_conf.list_files(conf), known, old_names)


def search_files(
    files: Iterable[Path], known: Mapping[str, Collection[str]], old_names: Mapping[str, Collection[str]]
) -> list[UnknownOption]:
    """Return the options in ``files`` whose group is in ``known``, and whose name is neither there nor an old name.

    ``known`` and ``old_names`` map a group to names. Only the current names are suggested.
    """
    found = []
    for path in files:
        for line, header, name, _ in list_assignments(path):
            # As oslo.config: the case of a group does not matter, except that of [DEFAULT].
            group = header if header == _DEFAULT else header.lower()
            if group != "default" and group not in known:
                continue
            if name not in known.get(group, ()) and name not in old_names.get(group, ()):
                found.append(UnknownOption(path, line, header, name, _find_nearest(group, name, known)))
    return found


def warn_of_unknown_options(conf: cfg.ConfigOpts) -> None:
    """Log one warning for each unknown option."""
    for unknown in find_unknown_options(conf):
        LOG.warning(
            "Unknown option ignored",
            option=unknown,
            file=unknown.file,
            line=unknown.line,
            nearest=unknown.nearest or None,
        )


def _find_nearest(group: str, name: str, known: Mapping[str, Collection[str]]) -> str:
    """Return the option of this name in another group, or else the most similar one of this group."""
    elsewhere = [other for other, names in known.items() if name in names]
    if elsewhere:
        return f"[{elsewhere[0]}] {name}"
    similar = difflib.get_close_matches(name, known.get(group, ()), n=1, cutoff=_LIKENESS)
    return f"[{group}] {similar[0]}" if similar else ""

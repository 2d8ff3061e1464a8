# SPDX-License-Identifier: Apache-2.0
"""The fault of a configuration in one sentence: file and line, option, and the allowed values.

Why: oslo.config's own messages show its internals (``LocationInfo(location=<Locations.user: (4, True)>, ...)``) and a
line that does not parse, which may be the line with a password. Called by :mod:`porthole_common.conf`, and by
:mod:`porthole_common.service` for the errors that end a start.
"""

import codecs
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from oslo_config import cfg, types

from porthole_common import errors

_GROUP = re.compile(r"\[(.+)\]\s*")
_OPTION = re.compile(r"([^\s#;\[=:][^=:]*?)\s*[=:]\s*(.*)")
# oslo.config's texts for a line that does not parse, and the texts for the operator.
_LINES = {
    "Section must be started before assignment": "an option stands before the first [GROUP]",
    "Invalid section (must end with ])": "the name of a group must end with ]",
    "Empty section name": "a group has no name",
    "Unexpected continuation line": "a line that begins with a space continues an option, but there is none before",
    "Key cannot be empty": "an option has no name",
    "No ':' or '=' found in assignment": "the line is not an option; write NAME = VALUE",
}
_PARSE_ERROR = re.compile(r"at (?P<file>.+):(?P<line>\d+), (?P<words>.*?): ", re.DOTALL)
_ARGUMENT = re.compile(r"argument --(?P<name>\S+): Invalid ")
_BAD_VALUE = re.compile(r"Value for option (?P<name>\S+) .*is not valid: (?P<words>.*)", re.DOTALL)
# Secret options of libraries that do not mark them as secret, and URLs with a user and a password.
_SECRET_NAME = re.compile(r"password|passwd|secret|key", re.IGNORECASE)
_CREDENTIALS = re.compile(r"://\S*@")
# oslo.config's errors of a substitution. Their text has the word after the "$", which may be part of a password.
_SUBSTITUTION_FAULTS = (cfg.NoSuchOptError, cfg.NoSuchGroupError, cfg.TemplateSubstitutionError)
_DOLLAR = "`$` begins a substitution, and no option has the name after it; write `$$` for a dollar sign"
# A longer value is cut.
_MAX_VALUE_CHARS = 80


@dataclass(frozen=True)
class _Place:
    """Where an option is set, in words, and its value."""

    where: str
    value: str


def build_value_error(files: Iterable[Path], group: str, opt: cfg.Opt, exc: Exception) -> errors.ConfigInvalid:
    """Return the error for an option whose value is invalid by ``exc``; ``files`` in the order of reading."""
    option = f"[{group}] {opt.dest}"
    place = _find_place(files, group, opt)
    if isinstance(exc, _SUBSTITUTION_FAULTS):
        # The value is never shown: it may contain the value of another option, which is secret.
        return _build_dollar_error(option, place)
    allowed = _describe(opt.type)
    is_secret = _is_secret(opt, place.value if place else str(exc))
    if place is None or not allowed:
        words = "the value is not valid" if is_secret else _get_words(exc)
        return errors.ConfigInvalid(option, f"{words} ({place.where.rstrip(',')})" if place else words)
    shown = place.value if len(place.value) <= _MAX_VALUE_CHARS else place.value[:_MAX_VALUE_CHARS] + "..."
    value = "the value" if is_secret else f'"{shown}"'
    return errors.ConfigInvalid(option, f"{value} in {place.where} is not {allowed}")


def build_argument_error(files: Iterable[Path], opts: Iterable[cfg.Opt], text: str) -> errors.ConfigInvalid | None:
    """Return the error for oslo.config's ``text`` about an option that both the command line and a file may have.

    None when ``text`` is about something else.
    """
    named = _ARGUMENT.search(text)
    for opt in opts:
        if named and opt.dest == named["name"]:
            return build_value_error(files, "DEFAULT", opt, ValueError(text.strip()))
    return None


def build_substitution_error(
    files: Sequence[Path], opts: Iterable[cfg.Opt], exc: cfg.NoSuchOptError | cfg.NoSuchGroupError
) -> errors.ConfigInvalid | None:
    """Return the error for the option whose value has, after a $, the name that ``exc`` misses; None without one."""
    missing = exc.opt_name if isinstance(exc, cfg.NoSuchOptError) else exc.group_name
    for opt in opts:
        place = _find_place(files, "DEFAULT", opt)
        if place is not None and re.search(rf"\${{?{re.escape(missing)}\b", place.value):
            return _build_dollar_error(f"[DEFAULT] {opt.dest}", place)
    return None


def explain(exc: Exception) -> str:
    """Return in one line why a configuration cannot be read or used, without any line of a file."""
    if isinstance(exc, cfg.ConfigFilesNotFoundError):
        return f"{', '.join(exc.config_files)}: there is no such file"
    if isinstance(exc, cfg.ConfigFilesPermissionDeniedError):
        return f"{', '.join(exc.config_files)}: the file may not be read: permission denied"
    if isinstance(exc, cfg.ConfigDirNotFoundError):
        return f"{exc.config_dir}: there is no such folder"
    if isinstance(exc, cfg.ConfigFileParseError):
        return _explain_line(exc)
    if isinstance(exc, OSError):
        return f"{exc.filename}: {exc.strerror}"
    return " ".join(_explain_value(exc).split())


def list_assignments(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield ``(line number, group, option, value)`` for each option in a file; nothing when it cannot be read.

    A value of several lines ends with its first one.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    group = ""
    for number, line in enumerate(lines, 1):
        if header := _GROUP.fullmatch(line):
            group = header[1]
        elif found := _OPTION.fullmatch(line):
            yield number, group, found[1], found[2].strip()


def _explain_value(exc: Exception) -> str:
    if isinstance(exc, _SUBSTITUTION_FAULTS):
        return f"in the value of an option, {_DOLLAR}"
    bad = _BAD_VALUE.search(str(exc))
    if bad is None:
        return str(exc)
    is_secret = _SECRET_NAME.search(bad["name"]) or _CREDENTIALS.search(bad["words"])
    return f"{bad['name']}: {'the value is not valid' if is_secret else bad['words']}"


def _is_secret(opt: cfg.Opt, text: str) -> bool:
    """Return whether the value of ``opt``, which is in ``text``, must not be shown."""
    return bool(opt.secret or _SECRET_NAME.search(opt.dest) or _CREDENTIALS.search(text))


def _get_words(exc: Exception) -> str:
    bad = _BAD_VALUE.search(str(exc))
    return bad["words"] if bad else str(exc)


def _build_dollar_error(option: str, place: _Place | None) -> errors.ConfigInvalid:
    where = f" in {place.where.removesuffix(',')}" if place else ""
    return errors.ConfigInvalid(option + where, _DOLLAR)


def _explain_line(exc: cfg.ConfigFileParseError) -> str:
    found = _PARSE_ERROR.search(str(exc))
    if found is None:
        return f"{exc.config_file}: a line is not an option"
    if found["line"] == "1" and _has_byte_order_mark(Path(found["file"])):
        return f"{found['file']}: the file begins with a byte order mark (BOM); save it as UTF-8 without one"
    return f"{found['file']}, line {found['line']}: {_LINES.get(found['words'], 'the line is not an option')}"


def _has_byte_order_mark(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
    except OSError:
        return False


def _find_place(files: Iterable[Path], group: str, opt: cfg.Opt) -> _Place | None:
    """Return where ``opt`` gets its value: the environment wins over the files, a later line over an earlier."""
    variable = f"OS_{group.upper()}__{opt.dest.upper()}"
    if variable in os.environ:
        return _Place(f"the environment variable {variable}", os.environ[variable])
    names = {(group.lower(), _normalize(name)) for name in (opt.name, opt.dest)}
    names |= {((old.group or group).lower(), _normalize(old.name or opt.name)) for old in opt.deprecated_opts}
    place = None
    for path in files:
        for number, header, name, value in list_assignments(path):
            if (header.lower(), _normalize(name)) in names:
                place = _Place(f"{path}, line {number},", value)
    return place


def _normalize(name: str) -> str:
    return name.replace("-", "_")


def _describe(kind: object) -> str:
    """Return the allowed values of ``kind`` in words; "" when oslo.config's own text says more."""
    choices = getattr(kind, "choices", None)
    if choices:
        return f"one of {', '.join(map(str, choices))}"
    if isinstance(kind, types.Boolean):
        return "a boolean: true or false"
    if isinstance(kind, types.Number):
        return _describe_number(kind)
    if isinstance(kind, types.URI):
        schemes = kind.schemes or []
        return "a URL" + (f" that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}" if schemes else "")
    if isinstance(kind, types.HostAddress):
        return "an IP address or a host name"
    return ""


def _describe_number(kind: types.Number) -> str:
    name = "a TCP port" if isinstance(kind, types.Port) else "a number"
    if isinstance(kind, types.Integer) and not isinstance(kind, types.Port):
        name = "an integer"
    if kind.min is not None and kind.max is not None:
        return f"{name} from {kind.min} to {kind.max}"
    if kind.min is not None:
        return f"{name} of at least {kind.min}"
    return f"{name} of at most {kind.max}" if kind.max is not None else name

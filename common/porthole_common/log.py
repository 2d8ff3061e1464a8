# SPDX-License-Identifier: Apache-2.0
"""Logging through oslo.log: one line per event, with fields, and with console tokens kept out of every line.

Why: an operator greps for ``instance=``, and a log shipper indexes the field. So the text of an event never changes,
and its values are fields: ``LOG.info("Console opened", instance=uuid, client=address)``. In a text log they follow the
event as key=value; with ``[DEFAULT] use_json`` they are also keys of "extra". Values from a client or a guest are
quoted, so that they cannot imitate another line.

A token opens a screen, and libraries would log it (CVE-2015-9543): websockify in the line of a path, an HTTP server in
the line of a request, Python in a traceback. Porthole's own lines never contain one. :class:`RedactingFilter` is the
second guard, on the handlers, through which the records of every logger pass. :class:`RedactingFormatter` is the
third, since oslo.log's formatters write exceptions themselves, past any filter.

:func:`get_logger` is called by every module that logs, :func:`setup` by :mod:`porthole_common.service` at start.
"""

import contextlib
import functools
import json
import logging
import logging.handlers
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from datetime import datetime
from importlib import metadata
from typing import Any

from oslo_config import cfg
from oslo_log import formatters as oslo_log_formatters
from oslo_log import log as oslo_log

from porthole_common.redaction import RedactingFilter, redact

__all__ = ["EventLogger", "RedactingFilter", "RedactingFormatter", "build_line", "get_logger", "redact", "setup"]

# A broker's last messages on a channel that is being closed are not for operators.
_QUIET = ("amqp=ERROR",)
# The request, user and project of a line, with keys like those of the event's own fields. A missing value is "-".
_IDENTITY = "request_id=%(request_id)s global_request_id=%(global_request_id)s user=%(user)s project=%(project_id)s"
# Without oslo.log's own name of the instance, which is a field here.
_CONTEXT_FORMAT = "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s [%(user_identity)s] %(message)s"
# The keyword arguments of logging; every other one is a field of the event.
_LOGGING_ARGUMENTS = frozenset({"exc_info", "stack_info", "stacklevel", "extra"})
# A long value from a client must not fill the disk.
MAX_VALUE_CHARS = 1000
# Characters that would end a value without quotes, or make two fields of one.
_NEEDS_QUOTES = frozenset(' "=\\')
_QUOTED = frozenset('"\\')


class EventLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose keyword arguments are the fields of an event.

    An event is a constant text with fields, or with %-arguments; never with both, since a field may contain a percent
    sign. A field that is None is left out. ``context=`` is the RequestContext of a line that is written outside the
    thread of its request.
    """

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Return the event's line, and logging's arguments with the fields where oslo.log's formatters look."""
        arguments = {name: kwargs[name] for name in kwargs if name in _LOGGING_ARGUMENTS}
        fields = {
            name: _simplify(value)
            for name, value in kwargs.items()
            if value is not None and name != "context" and name not in _LOGGING_ARGUMENTS
        }
        extra: dict[str, Any] = {"extra": {"event": msg, **fields}, **(arguments.pop("extra", None) or {})}
        if kwargs.get("context") is not None:
            extra["context"] = kwargs["context"]
        return build_line(msg, fields), {**arguments, "extra": extra}


class RedactingFormatter(logging.Formatter):
    """Redacts the text that another formatter makes of a record, with its traceback and its summary of the exception.

    The control characters of every line are escaped, so that a client's newline does not begin a line of the log.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the other formatter's text, redacted and in one line; the lines of a traceback follow."""
        text = self.inner.format(record)
        line, traceback = text, ""
        if record.exc_text and text.endswith(record.exc_text):
            traceback = "\n" + record.exc_text
            line = text.removesuffix(record.exc_text).rstrip("\n")
        return redact(_escape(line) + traceback)

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's name)
        """Return the other formatter's traceback, redacted; the handler of systemd's journal calls this."""
        return redact(self.inner.formatException(ei))


def get_logger(name: str) -> EventLogger:
    """Return the logger of a module, whose name is ``name``."""
    return EventLogger(logging.getLogger(name), {})


def build_line(event: str, fields: Mapping[str, Any]) -> str:
    """Return ``event key=value key="quoted value"``: a value that is not one plain word is quoted."""
    return " ".join((str(event), *(f"{name}={_quote(value)}" for name, value in fields.items())))


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register oslo.log's options (debug, log_file, use_json, ...) with Porthole's formats and levels."""
    oslo_log.register_options(conf)
    oslo_log.set_defaults(_CONTEXT_FORMAT, [*oslo_log.get_default_log_levels(), *_QUIET])
    conf.set_default("logging_user_identity_format", _IDENTITY)


def list_opts(conf: cfg.ConfigOpts) -> list[cfg.Opt]:
    """Return those of oslo.log's options that are registered on ``conf``; they are all in [DEFAULT]."""
    return [opt for opt in _list_library_opts() if opt.dest in conf]


@functools.cache
def _list_library_opts() -> list[cfg.Opt]:
    """Return oslo.log's options; its entry point for oslo-config-generator is the public way to them."""
    found = metadata.entry_points(group="oslo.config.opts", name="oslo.log")
    return [opt for entry_point in found for _, opts in entry_point.load()() for opt in opts]


@contextlib.contextmanager
def held_back(name: str) -> Iterator[list[logging.LogRecord]]:
    """Keep the lines of the logger ``name`` out of the log within a block; yield them, for :func:`release`.

    Why: oslo.config says that an option's name is deprecated while it reads the options for the log itself.
    """
    handler = logging.handlers.MemoryHandler(sys.maxsize, flushLevel=sys.maxsize, flushOnClose=False)
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    was_propagated, logger.propagate = logger.propagate, False
    try:
        yield handler.buffer
    finally:
        logger.propagate = was_propagated
        logger.removeHandler(handler)


def release(records: Iterable[logging.LogRecord]) -> None:
    """Write lines that were held back."""
    for record in records:
        logging.getLogger(record.name).handle(record)


def is_plain_console() -> bool:
    """Whether the log is text on standard output or error, and nowhere else; so it is before :func:`setup`."""
    return all(_is_console(handler) and not _is_json(handler) for handler in logging.getLogger().handlers)


def is_json_console() -> bool:
    """Whether standard output or error must contain only JSON."""
    return any(_is_console(handler) and _is_json(handler) for handler in logging.getLogger().handlers)


def _is_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr)


def _is_json(handler: logging.Handler) -> bool:
    formatter = handler.formatter
    inner = formatter.inner if isinstance(formatter, RedactingFormatter) else formatter
    return isinstance(inner, oslo_log_formatters.JSONFormatter)


def setup(conf: cfg.ConfigOpts, program: str) -> None:
    """Configure logging of this process from ``conf``; ``program`` names it in the lines."""
    oslo_log.setup(conf, program)
    for handler in logging.getLogger().handlers:
        handler.addFilter(RedactingFilter())
        handler.setFormatter(RedactingFormatter(handler.formatter or logging.Formatter()))


def _simplify(value: Any) -> Any:
    """Return ``value`` as a JSON value: a float with three decimals, text up to the limit."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return round(value, 3)
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS] + "..."


def _quote(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if text and text.isprintable() and not _NEEDS_QUOTES.intersection(text):
        return text
    return f'"{_escape(text, also=_QUOTED)}"'


def _escape(text: str, also: frozenset[str] = frozenset()) -> str:
    """Return ``text`` with ``also`` and every unprintable character (Unicode's line ends too) escaped as in JSON."""
    # True of almost every line, at a hundredth of the cost.
    if text.isprintable() and also.isdisjoint(text):
        return text
    return "".join(char if char.isprintable() and char not in also else json.dumps(char)[1:-1] for char in text)

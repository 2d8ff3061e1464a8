# SPDX-License-Identifier: Apache-2.0
"""Logging through oslo.log, with console tokens kept out of every line.

Why: the token opens a screen, and other people's code (websockify's path line, an HTTP server's request
line, a traceback's repr) would write it down (CVE-2015-9543). Porthole's own lines never hold one;
:class:`RedactingFilter` is the second fence, on the handlers, where every logger of the process must pass, and
:class:`RedactingFormatter` the third: oslo.log's formatters write exceptions themselves, past any filter.
Called by :mod:`porthole_common.service` at start.
"""

import logging
from typing import Any

from oslo_config import cfg
from oslo_log import log as oslo_log

from porthole_common.redaction import RedactingFilter, redact

__all__ = ["RedactingFilter", "RedactingFormatter", "redact", "register_opts", "setup"]


# What a broker still says on a channel that is being closed is not for operators.
_QUIET = ("amqp=ERROR",)


class RedactingFormatter(logging.Formatter):
    """Redacts what another formatter makes of a record, its traceback and its summary of the exception included."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the other formatter's text, redacted."""
        return redact(self._inner.format(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's name)
        """Return the other formatter's traceback, redacted: the systemd journal's handler asks for it alone."""
        return redact(self._inner.formatException(ei))


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register oslo.log's options (debug, log_file, use_json, ...), without a library's warnings about nothing."""
    oslo_log.register_options(conf)
    oslo_log.set_defaults(default_log_levels=[*oslo_log.get_default_log_levels(), *_QUIET])


def setup(conf: cfg.ConfigOpts, program: str) -> None:
    """Configure logging of this process from ``conf``; ``program`` names it in the lines."""
    oslo_log.setup(conf, program)
    for handler in logging.getLogger().handlers:
        handler.addFilter(RedactingFilter())
        handler.setFormatter(RedactingFormatter(handler.formatter or logging.Formatter()))

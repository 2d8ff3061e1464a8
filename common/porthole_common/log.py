# SPDX-License-Identifier: Apache-2.0
"""Logging through oslo.log, with console tokens kept out of every line.

Why: the token opens a screen, and other people's code (websockify's path line, an HTTP server's request
line, a traceback's repr) would write it down (CVE-2015-9543). Porthole's own lines never hold one; this
filter is the second fence, on the handlers, where every logger of the process must pass.
Called by :mod:`porthole_common.service` at start.
"""

import logging
import re

from oslo_config import cfg
from oslo_log import log as oslo_log

# token=<uuid> as it stands in a URL, URL-encoded once or twice, as a cookie, and as a key of a dict or JSON.
_TOKEN = re.compile(
    r"""(token(?:=|%3D|%253D|\\?["']?\s*[:=]\s*\\?["']?))([^\s&;,"'\\<>)}\]]+)""",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return ``text`` with the value of every ``token=`` (also URL-encoded, or a dict's key) as ``***``."""
    return _TOKEN.sub(r"\1***", text)


class RedactingFilter(logging.Filter):
    """Rewrites each record that passes a handler; never drops one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Fold message and arguments into one redacted string, and the traceback's text likewise."""
        message = record.getMessage()
        redacted = redact(message)
        if redacted != message:
            record.msg, record.args = redacted, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        return True


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register oslo.log's options (debug, log_file, use_json, ...)."""
    oslo_log.register_options(conf)


def setup(conf: cfg.ConfigOpts, program: str) -> None:
    """Configure logging of this process from ``conf``; ``program`` names it in the lines."""
    oslo_log.setup(conf, program)
    for handler in logging.getLogger().handlers:
        handler.addFilter(RedactingFilter())

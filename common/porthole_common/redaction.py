# SPDX-License-Identifier: Apache-2.0
"""Takes console tokens out of text and out of log records.

Why apart from :mod:`porthole_common.log`: the ``porthole`` command redacts its debug lines as the daemons do,
and would wait for oslo.log's import at every start. No I/O; imports nothing beyond the standard library.
"""

import logging
import re

# token=<uuid> as it stands in a URL, URL-encoded once or twice, as a cookie, and as a key of a dict or JSON; not a
# JSON null, which would be JSON no more.
_TOKEN = re.compile(
    r"""(token(?:=|%3D|%253D|\\?["']?\s*[:=]\s*\\?["']?))(?!(?:null|None)(?:[,}]|$))([^\s&;,"'\\<>)}\]]+)""",
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

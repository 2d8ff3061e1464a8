# SPDX-License-Identifier: Apache-2.0
"""Takes console tokens out of text and out of log records.

Why apart from :mod:`porthole_common.log`: the ``porthole`` command redacts its debug lines as the daemons do, and
must not import oslo.log at every start. No I/O; imports only the standard library.
"""

import logging
import re

# token=<uuid> in a URL, URL-encoded once or twice, in a cookie, and as a key of a dict or of JSON. A JSON null stays,
# since the text would no longer be JSON.
_TOKEN = re.compile(
    r"""(token(?:=|%3D|%253D|\\?["']?\s*[:=]\s*\\?["']?))(?!(?:null|None)(?:[,}]|$))([^\s&;,"'\\<>)}\]]+)""",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return ``text`` with the value of every ``token=`` (also URL-encoded, or a dict's key) as ``***``."""
    return _TOKEN.sub(r"\1***", text)


class RedactingFilter(logging.Filter):
    """Rewrites each record of a handler; drops none."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Make message and arguments one redacted string, and redact the text of the traceback."""
        message = record.getMessage()
        redacted = redact(message)
        if redacted != message:
            record.msg, record.args = redacted, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact(record.exc_text)
        return True

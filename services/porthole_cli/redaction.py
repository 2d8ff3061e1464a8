# SPDX-License-Identifier: Apache-2.0
"""Takes the user and the password of a URL out of what the ``porthole`` command prints.

Why: an endpoint may be ``http://user:password@host``, and nearly every message names the endpoint. Called by
:mod:`porthole_cli.main`; console tokens are :mod:`porthole_common.redaction`'s.
"""

import logging
import re

# RFC 3986 section 3.2.1: the user information stands between "//" and "@". Users write "@" into passwords as well.
_USER_INFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/?#]*@", re.IGNORECASE)


def redact_user_info(text: str) -> str:
    """Return ``text`` with the user information of each URL as ``***``."""
    return _USER_INFO.sub(r"\1***@", text)


class UserInfoFilter(logging.Filter):
    """Rewrites each record that passes a handler; never drops one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Fold message and arguments into one redacted string, and the traceback's text likewise."""
        record.msg, record.args = redact_user_info(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact_user_info(record.exc_text)
        return True

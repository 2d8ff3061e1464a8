# SPDX-License-Identifier: Apache-2.0
"""Removes the user and the password of a URL from the output of the ``porthole`` command.

Why: an endpoint may be ``http://user:password@host``, and nearly every message names the endpoint. Called by
:mod:`porthole_cli.main`; :mod:`porthole_common.redaction` removes console tokens.
"""

import logging
import re

# RFC 3986 section 3.2.1: the user information is between "//" and "@". A password may hold another "@".
_USER_INFO = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/?#]*@", re.IGNORECASE)


def redact_user_info(text: str) -> str:
    """Return ``text`` with the user information of each URL as ``***``."""
    return _USER_INFO.sub(r"\1***@", text)


class UserInfoFilter(logging.Filter):
    """Rewrites each record that passes a handler; never drops one."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Merge message and arguments into one redacted string, and redact the traceback's text."""
        record.msg, record.args = redact_user_info(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redact_user_info(record.exc_text)
        return True

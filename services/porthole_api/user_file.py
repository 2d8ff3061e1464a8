# SPDX-License-Identifier: Apache-2.0
"""Apache's file of users and passwords (htpasswd), of which only the bcrypt entries are served.

Why not oslo.middleware's reader: it refuses a whole file for one entry of another kind, and has no comments. Apache
skips blank lines and lines that begin with ``#``, and of several entries for one user the first counts (httpd's
mod_authn_file). Called by :mod:`porthole_api.http_basic`.
"""

import re
from pathlib import Path

from porthole_common.log import get_logger

LOG = get_logger(__name__)
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}", re.ASCII)
# What "surrogateescape" makes of bytes that are not UTF-8; no name in a request has them.
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
# The log names at most this many lines of a file that is not an htpasswd file at all.
_MAX_LINES_NAMED = 20


class UserFile:
    """The file, read anew at each call, so that users can change without a restart."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._skipped: list[int] = []

    def read(self) -> dict[str, str]:
        """Return ``{user: bcrypt hash}``; each set of lines that cannot be served is logged once.

        :raises OSError: when the file cannot be read.
        """
        users, skipped = parse_users(self._path.read_bytes())
        if skipped != self._skipped:
            self._skipped = skipped
            if skipped:
                LOG.warning("User entries skipped", file=self._path, lines=_name_lines(skipped))
        return users


def parse_users(content: bytes) -> tuple[dict[str, str], list[int]]:
    """Return ``{user: bcrypt hash}`` of an htpasswd file, and the numbers of the lines that are not served.

    A line is ``user:hash``; what follows a second colon is ignored, as Apache does.
    """
    users: dict[str, str] = {}
    refused: set[str] = set()
    skipped = []
    text = content.decode("utf-8-sig", "surrogateescape")
    for number, line in enumerate(text.split("\n"), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        user, _colon, rest = entry.partition(":")
        digest = rest.partition(":")[0]
        is_served = bool(user) and _NOT_UTF8.search(user) is None and _BCRYPT.fullmatch(digest) is not None
        if not is_served:
            skipped.append(number)
        if user in users or user in refused:
            continue
        if is_served:
            users[user] = digest
        else:
            refused.add(user)
    return users, skipped


def _name_lines(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MAX_LINES_NAMED]))
    return f"{shown}, ..." if len(numbers) > _MAX_LINES_NAMED else shown

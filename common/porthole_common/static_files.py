# SPDX-License-Identifier: Apache-2.0
"""A folder of files, served to browsers: which file a URL path names, if any, and what tells a cache that it changed.

Why here: a path that leaves its folder, or an address that a browser takes for another site's, is a fault of any server
(S7, S8), so the rules stand in one place. They answer with values; the caller sends.
Called by :mod:`porthole_novncproxy.front.pages`.
"""

import email.utils
import os
import pathlib
import re
import stat
import urllib.parse
from datetime import UTC, datetime

# Not the mimetypes module: it reads the machine's own tables, and a browser runs no module of another type than these.
_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gif": "image/gif",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".mp3": "audio/mpeg",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".otf": "font/otf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}
# 2011: no file here is older, so an earlier date is a packer's constant. npm's archives have 1985 in every version, and
# a browser that asked with it would keep its files of one noVNC beside those of another.
_FIRST_DATE_S = 1293840000


def is_harmless_target(raw_path: str, path: str) -> bool:
    """Whether the target is a path from the root, of printable ASCII, that no browser or proxy takes for ``//host``.

    Browsers read a backslash as a slash; a redirect or a relative link built on such a path would leave the site.
    """
    if not re.fullmatch(r"[!-~]+", raw_path):
        return False
    return path.startswith("/") and not path.startswith("//") and "\\" not in path and "%5c" not in path.lower()


def parse_names(path: str) -> list[str] | None:
    """Return the decoded parts of a URL path, below the root; None when they can name no file that is served."""
    try:
        names = [urllib.parse.unquote(part, errors="strict") for part in path[1:].split("/")]
    except UnicodeDecodeError:
        return None
    # The root itself has an empty name.
    return names if names == [""] or all(map(_is_file_name, names)) else None


def find_below(root: pathlib.Path, name: str) -> pathlib.Path | None:
    """Return the readable regular file ``name`` when, all links followed, it lies below ``root``."""
    try:
        file = pathlib.Path(os.path.realpath(root / name, strict=True))
        is_file = stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return None
    return file if is_file and file.is_relative_to(root) and os.access(file, os.R_OK) else None


def find_content_type(file: pathlib.Path) -> str:
    """Return the media type of a file by its name."""
    return _CONTENT_TYPES.get(file.suffix, "application/octet-stream")


def build_validators(status: os.stat_result) -> tuple[tuple[str, str], ...]:
    """Return the header Last-Modified (RFC 9110 section 8.8.2) of a file, or none where its date is no real one."""
    if not _is_dated(status):
        return ()
    return (("Last-Modified", email.utils.formatdate(int(status.st_mtime), usegmt=True)),)


def is_unmodified(status: os.stat_result, if_modified_since: str | None) -> bool:
    """Compare in whole seconds, as in HTTP dates; an invalid date does not count (RFC 9110 section 13.1.3).

    For equality: an older noVNC in the place of a newer one has older dates, and is another file all the same.
    """
    if not if_modified_since or not _is_dated(status):
        return False
    try:
        since = email.utils.parsedate_to_datetime(if_modified_since)
    except (ValueError, OverflowError):
        return False
    since = since if since.tzinfo else since.replace(tzinfo=UTC)
    return datetime.fromtimestamp(int(status.st_mtime), UTC) == since


def _is_dated(status: os.stat_result) -> bool:
    return status.st_mtime >= _FIRST_DATE_S


def _is_file_name(name: str) -> bool:
    """Whether a decoded part of a path may name a file: no way up, no hidden file, no slash or control character."""
    return bool(name) and not name.startswith(".") and "/" not in name and name.isprintable()

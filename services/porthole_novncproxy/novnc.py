# SPDX-License-Identifier: Apache-2.0
"""Whether the web root holds noVNC, what of it, and of which version.

Why: pages and noVNC come from different packages, and a console page that cannot load ``core/rfb.js`` stays blank.
noVNC is a library and an application of a few pages. Its releases and the packages of distributions have both; npm's
package has the library alone: as ES modules in 1.3, 1.4 and from 1.7 on, in 1.5 and 1.6 as CommonJS only.
noVNC's own releases have the version in ``package.json``, and so has npm's package; Debian's package leaves that file
out, and dpkg's database has the version.
Called by :mod:`porthole_novncproxy.front.pages`, :mod:`porthole_novncproxy.endpoint` and ``porthole doctor``.
"""

import json
import os
import re
from pathlib import Path

# The folder of Debian's and Ubuntu's package: the package's version is that of this web root alone.
DEBIAN_ROOT = Path("/usr/share/novnc")
_DPKG_STATUS = Path("/var/lib/dpkg/status")
_DPKG_VERSION = re.compile(r"^Package: novnc\n(?:.+\n)*?Version: (?:\d+:)?([^\n-]+)", re.MULTILINE)
# package.json has 2 KiB; dpkg's database some MiB.
_MAX_PACKAGE_BYTES = 1024 * 1024
_MAX_STATUS_BYTES = 64 * 1024 * 1024
# A package.json may be anybody's, and its version goes to an operator's terminal.
_VERSION = re.compile(r"[\w.+-]{1,64}", re.ASCII)
# What the console page loads, and the same in a form that no browser loads.
_LIBRARY, _COMMONJS = ("core", "rfb.js"), ("lib", "rfb.js")
# The pages of the application.
_PAGES = ("vnc.html", "vnc_lite.html")


def is_there(web_root: str | None) -> bool:
    """Whether ``web_root`` holds the noVNC that the console page needs: the library, as ES modules."""
    return bool(web_root) and _is_readable(web_root, *_LIBRARY)


def has_application(web_root: str) -> bool:
    """Whether ``web_root`` holds pages of noVNC's own, and not the library alone."""
    return any(_is_readable(web_root, name) for name in _PAGES)


def explain_absence(web_root: str) -> str:
    """Return, in words that follow the folder's name, why :func:`is_there` is false for it."""
    if _is_readable(web_root, *_COMMONJS):
        return (
            "has noVNC as CommonJS alone (lib/rfb.js), which no browser loads; npm's package has core/rfb.js in "
            "versions 1.3, 1.4 and from 1.7 on, and noVNC's own releases have it always"
        )
    return "has no noVNC in it: core/rfb.js is looked for, and must be readable"


def find_version(web_root: str | None, dpkg_status: Path = _DPKG_STATUS) -> str | None:
    """Return the version of the noVNC in ``web_root``, as ``1.3.0``; None when it is not known."""
    if not web_root or not is_there(web_root):
        return None
    text = _read(Path(web_root) / "package.json", _MAX_PACKAGE_BYTES)
    if text is not None:
        try:
            package = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return _find_version_of(package)
    if Path(web_root).resolve() != DEBIAN_ROOT:
        return None
    found = _DPKG_VERSION.search(_read(dpkg_status, _MAX_STATUS_BYTES) or "")
    return found[1] if found else None


def _find_version_of(package: object) -> str | None:
    """Return the version in the content of a ``package.json``; None when it is not noVNC's, or has none."""
    if not isinstance(package, dict):
        return None
    name, version = package.get("name"), package.get("version")
    if not isinstance(name, str) or "novnc" not in name.lower():
        return None
    return version if isinstance(version, str) and _VERSION.fullmatch(version) else None


def _is_readable(web_root: str | None, *names: str) -> bool:
    """Whether the file is there for this user; never an error, whatever the path."""
    path = os.path.join(web_root or "", *names)
    return os.path.isfile(path) and os.access(path, os.R_OK)


def _read(path: Path, limit_bytes: int) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(limit_bytes).decode("utf-8", "replace")
    except OSError:
        return None

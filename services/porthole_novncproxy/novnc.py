# SPDX-License-Identifier: Apache-2.0
"""Whether the web root holds noVNC, and of which version.

Why: pages and noVNC come from different packages, and a console page that cannot load ``core/rfb.js`` stays blank.
noVNC's own releases have the version in ``package.json``; Debian's package leaves that file out, and dpkg's database
has the version. Called by :mod:`porthole_novncproxy.endpoint` and ``porthole doctor``.
"""

import json
import re
from pathlib import Path

# The folder of Debian's and Ubuntu's package: the package's version is that of this web root alone.
DEBIAN_ROOT = Path("/usr/share/novnc")
_DPKG_STATUS = Path("/var/lib/dpkg/status")
_DPKG_VERSION = re.compile(r"^Package: novnc\n(?:.+\n)*?Version: (?:\d+:)?([^\n-]+)", re.MULTILINE)
# package.json has 2 KiB; dpkg's database some MiB.
_MAX_PACKAGE_BYTES = 1024 * 1024
_MAX_STATUS_BYTES = 64 * 1024 * 1024


def is_there(web_root: str | None) -> bool:
    """Whether ``web_root`` holds the files of noVNC that the pages need."""
    if not web_root:
        return False
    root = Path(web_root)
    has_page = any((root / name).is_file() for name in ("vnc.html", "vnc_lite.html"))
    return has_page and (root / "core" / "rfb.js").is_file()


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
        version = package.get("version") if isinstance(package, dict) else None
        return version if isinstance(version, str) else None
    if Path(web_root).resolve() != DEBIAN_ROOT:
        return None
    found = _DPKG_VERSION.search(_read(dpkg_status, _MAX_STATUS_BYTES) or "")
    return found[1] if found else None


def _read(path: Path, limit_bytes: int) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(limit_bytes).decode("utf-8", "replace")
    except OSError:
        return None

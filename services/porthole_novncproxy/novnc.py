# SPDX-License-Identifier: Apache-2.0
"""Whether there is a noVNC in the web root, and which.

Why: pages and noVNC come from different packages, and a console page that cannot load ``core/rfb.js`` is a blank one.
noVNC's own releases carry ``package.json``; Debian's package leaves it out, and there dpkg's database says the
version. Called by :mod:`porthole_novncproxy.endpoint` and ``porthole doctor``.
"""

import json
import re
from pathlib import Path

# As Debian's and Ubuntu's package has it, to know whether its version is that of the web root.
DEBIAN_ROOT = Path("/usr/share/novnc")
_DPKG_STATUS = Path("/var/lib/dpkg/status")
_DPKG_VERSION = re.compile(r"^Package: novnc\n(?:.+\n)*?Version: (?:\d+:)?([^\n-]+)", re.MULTILINE)
# package.json has 2 KiB; dpkg's database some MiB.
_MAX_PACKAGE_BYTES = 1024 * 1024
_MAX_STATUS_BYTES = 64 * 1024 * 1024


def is_there(web_root: str | None) -> bool:
    """Say whether ``web_root`` holds what the pages need of noVNC."""
    if not web_root:
        return False
    root = Path(web_root)
    has_page = any((root / name).is_file() for name in ("vnc.html", "vnc_lite.html"))
    return has_page and (root / "core" / "rfb.js").is_file()


def find_version(web_root: str | None, dpkg_status: Path = _DPKG_STATUS) -> str | None:
    """Return the version of the noVNC in ``web_root``, as ``1.3.0``; None when nothing says it."""
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

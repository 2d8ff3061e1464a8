# SPDX-License-Identifier: Apache-2.0
"""Says once, in the log, that a private part of a library is gone which Porthole makes use of.

Why: a few things that operators need have no public way. Each such use stands in one module per library, tests whether
the part is there, and does without it where it is not: the library may change with any release, and a daemon must
start all the same. Called by those modules: ``oslo_messaging_patches``, ``context`` (oslo.context), ``broker``
(py-amqp), ``memcached_node`` (pymemcache) and ``http_server`` (waitress).
"""

import threading
from importlib import metadata

from porthole_common.log import get_logger

LOG = get_logger(__name__)
_lock = threading.Lock()
_reported: set[tuple[str, str]] = set()


def report_missing(library: str, part: str, effect: str) -> None:
    """Log that ``part`` of ``library``, a distribution's name, is missing, and its ``effect``: once for each part."""
    with _lock:
        if (library, part) in _reported:
            return
        _reported.add((library, part))
    LOG.warning(
        "Private part of a library not found",
        library=library,
        version=_find_version(library),
        part=part,
        effect=effect,
        mend="Install a version that setup.cfg of Porthole allows, or report the version to Porthole's developers.",
    )


def forget_reports() -> None:
    """Report everything anew; for tests."""
    with _lock:
        _reported.clear()


def _find_version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"

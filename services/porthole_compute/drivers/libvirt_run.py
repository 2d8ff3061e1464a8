# SPDX-License-Identifier: Apache-2.0
"""The name of one run of a domain: another one after each start of its QEMU, whoever watched the start.

Why: a guest that was destroyed and started again has the same UUID, and often the same port, but it may be another
user's by then. libvirt has no start time for a domain. It has an id (virDomainGetID), counted up by its daemon; but a
daemon that starts counts on from the highest id in use, and after a reboot from 1, so that an id comes again. The
second part of the name is the time at which libvirt wrote the pid file of the domain: once per start, and not when its
daemon restarts. It is readable by every user of the host, and is looked at but not read.

Where there is no such file (another hypervisor than QEMU, a container without libvirt's folder), the second part is the
id of the host's boot; and nothing where libvirt is on another host. doc/source/decisions.rst says what that misses.
Uses no library; called by :mod:`porthole_compute.drivers.libvirt_host`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

# The folder of libvirt's daemons, by default (runstatedir of its build).
SYSTEM_DIRECTORY = Path("/run/libvirt")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOCAL_TRANSPORTS = {"", "unix"}


def find_pid_directory(uri: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder where the libvirt at ``uri`` keeps the pid files of its QEMUs; None when it is elsewhere.

    Source: virQEMUDriverConfigNew of libvirt: ``qemu`` below its folder, or ``qemu/run`` for a session's daemon.
    """
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] != "qemu" or not is_local(uri):
        return None
    is_session = parts.path == "/session"
    if socket := parse_qs(parts.query).get("socket"):
        directory = Path(socket[0]).parent
    elif not is_session:
        directory = SYSTEM_DIRECTORY
    elif runtime := environment.get("XDG_RUNTIME_DIR"):
        directory = Path(runtime) / "libvirt"
    else:
        return None
    return directory / "qemu" / "run" if is_session else directory / "qemu"


def is_local(uri: str) -> bool:
    """Whether the libvirt at ``uri`` runs on this host (libvirt's remote URIs: ``driver+transport://host/path``)."""
    parts = urlsplit(uri)
    return not parts.netloc and parts.scheme.partition("+")[2] in _LOCAL_TRANSPORTS


def read_boot_id(path: Path = BOOT_ID) -> str:
    """Return the id of the host's boot (random(4)); "" where it cannot be read."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


class Runs:
    """The runs of the domains of one libvirt. Thread-safe, and asks libvirt nothing."""

    def __init__(self, pid_directory: Path | None, boot_id: str) -> None:
        self._directory = pid_directory
        self._boot_id = boot_id

    def build(self, name: str, domain_id: int) -> str:
        """Return the run of the domain ``name``, which has ``domain_id`` (virDomainGetID)."""
        return f"{domain_id}/{self._read_start(name) or self._boot_id}"

    def _read_start(self, name: str) -> str:
        # libvirt allows no slash in a name; with one, the path could lead elsewhere.
        if self._directory is None or "/" in name:
            return ""
        try:
            return str((self._directory / f"{name}.pid").stat().st_mtime_ns)
        except (OSError, ValueError):
            return ""


def build_runs(uri: str) -> Runs:
    """Return the runs of the libvirt at ``uri``."""
    return Runs(find_pid_directory(uri), read_boot_id() if is_local(uri) else "")

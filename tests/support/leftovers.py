# SPDX-License-Identifier: Apache-2.0
"""What a killed test or run has left behind: processes, network namespaces, a folder. Found by the run's folder.

Every process that a test starts has that folder in its environment (TMPDIR) or in its command line, a QEMU of libvirtd
included; every namespace of ``hosts.py`` has the process id of its maker in its name. Called by ``suite.py``.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

_END_TIMEOUT_S = 20
_POLL_S = 0.05
_IP_TIMEOUT_S = 30
_NAMESPACES = Path("/run/netns")
_PREFIX = "ph"


def make_folder() -> Path:
    """Make the folder of a run; its name has this process's id, so that the next run knows when it is left over.

    It is short: a UNIX socket's path has 107 bytes, and libvirt adds 62 to that of a guest. Other users may traverse
    it, since root starts a libvirtd as one of them.

    :raises OSError: when it cannot be made, or is another user's.
    """
    folder = Path(tempfile.gettempdir(), f"{_PREFIX}{os.getpid()}")
    folder.mkdir(exist_ok=True)
    if folder.lstat().st_uid != os.geteuid() or folder.is_symlink():
        raise PermissionError(f"{folder} belongs to another user")
    # mkdir(2) leaves out what the umask does.
    folder.chmod(0o711)
    return folder


def end_dead_runs() -> list[str]:
    """End what is left of runs that were killed themselves; return the command lines and namespaces."""
    ended = []
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = re.fullmatch(rf"{_PREFIX}(\d+)", path.name)
        if owner and path.lstat().st_uid == os.geteuid() and not Path("/proc", owner[1]).exists():
            ended += end_run(path)
    return ended


def find_processes(folder: Path) -> dict[int, str]:
    """Return the command lines of the processes that have ``folder`` in theirs or in their environment, by id.

    This process and those it descends from are left out, and so is a zombie, which has neither.
    """
    ours = _ancestors()
    # A longer name that begins like ``folder`` is another folder.
    named = re.compile(re.escape(os.fsencode(folder)) + rb"(?![\w.-])")
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) in ours:
            continue
        # It has ended meanwhile, or is another user's.
        with contextlib.suppress(OSError):
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            if command and named.search(command + b"\0" + environment):
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def end_processes(folder: Path) -> list[str]:
    """End every process of ``folder`` by SIGKILL, and return their command lines once they are gone.

    :raises TimeoutError: when some are still there after 20 s.
    """
    ended: dict[int, str] = {}
    deadline = time.monotonic() + _END_TIMEOUT_S
    # One that is about to be ended may start another meanwhile.
    while found := find_processes(folder):
        if time.monotonic() > deadline:
            raise TimeoutError(f"these do not end by SIGKILL: {found}")
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended.update(found)
        time.sleep(_POLL_S)
    return list(ended.values())


def remove_namespaces() -> list[str]:
    """Remove the network namespaces whose maker is gone, and return their names."""
    removed = []
    for path in _NAMESPACES.glob("porthole-*"):
        owner = re.fullmatch(r"porthole-(\d+)-\d+-.+", path.name)
        if not owner or Path("/proc", owner[1]).exists():
            continue
        done = subprocess.run(
            ["ip", "netns", "del", path.name],
            env={**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"},
            check=False,
            capture_output=True,
            timeout=_IP_TIMEOUT_S,
        )
        # Another run may remove it at the same moment.
        if done.returncode == 0:
            removed.append(path.name)
    return removed


def end_run(folder: Path) -> list[str]:
    """End and remove everything that a run with ``folder`` has left; return the command lines and namespaces.

    :raises TimeoutError: when a process does not end.
    """
    ended = end_processes(folder) + remove_namespaces()
    shutil.rmtree(folder, ignore_errors=True)
    return ended


def _ancestors() -> set[int]:
    """Return this process's id and those of its parents, up to the first process."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0:
        found.add(pid)
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        pid = int(stat.rpartition(")")[2].split()[1])
    return found

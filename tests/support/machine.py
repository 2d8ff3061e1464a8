# SPDX-License-Identifier: Apache-2.0
"""A whole machine with a systemd of its own: a clean root of this machine's distribution, booted in namespaces.

Why: what deploy/install.sh does to a host, and whether the units start, is seen on a host that has nothing and may be
changed. mmdebstrap makes the root from the archive that apt is set up with here; systemd-nspawn boots it, whatever
process 1 of the real machine is. A booted one has no way out of its network: what it installs, packages and wheels,
was fetched before. Needs root.
"""

import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.hosts import Host
from support.processes import Process

CHECKOUT = Path(__file__).parents[2]
# Where a machine finds the checkout and the wheels.
SOURCES, WHEELS = "/src", "/wheels"
_BOOT_TIMEOUT_S = 120
_BUILD_TIMEOUT_S = 600
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENV = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}
# The packages are fetched with the archive's own tool and put where the machine's apt-get looks first.
_FETCH = 'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -q -y --download-only --no-install-recommends install '


def build_root(root: Path, profiles: Sequence[str]) -> None:
    """Make a minimal system with systemd in ``root``, with the packages of bindep's ``profiles`` fetched for it."""
    listed = _run(
        [sys.executable, "-m", "bindep", "--list_all", "newline", "--file", str(CHECKOUT / "bindep.txt"), *profiles],
        allowed=(0, 1),
    )
    packages = [line for line in listed.splitlines() if line]
    sources = root.with_name("sources.list")
    sources.write_text(_read_sources(), encoding="utf-8")
    _run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", "--include=systemd,systemd-sysv,dbus"),
            # A test's root may be lost in a power cut, and dpkg need not wait for the disk.
            *("--dpkgopt=force-unsafe-io", "--aptopt=Acquire::Retries 0", "--skip=cleanup/apt"),
            f"--customize-hook={_FETCH}{' '.join(packages)}",
            *(_codename(), str(root), str(sources)),
        ]
    )


def build_wheels(folder: Path) -> None:
    """Put what Porthole, install.sh and Ansible need of Python into ``folder``, for the python3 of the distribution."""
    requirements = [line.partition(";")[0] for line in importlib.metadata.requires("porthole") or ()]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", "/usr/bin/python3"]
    _run([*pip, "wheel", "--wheel-dir", str(folder), *requirements, "setuptools>=68", "bindep", "ansible-core"])


class Machine:
    """Boots ``root``, which stays as it is: what changes goes into ``directory``. ``host`` is its network."""

    def __init__(self, root: Path, directory: Path, wheels: Path, host: Host) -> None:
        self.name = host.name
        self.address = host.address
        self._directory = directory
        self._leader = 0
        mount = f"mount -t overlay overlay -o lowerdir={root},upperdir={self.changes},workdir={directory}/work"
        boot = [
            *("systemd-nspawn", "--quiet", "--boot", f"--directory={directory}/root", f"--hostname={self.name}"),
            # Nobody but us is to know of it: this machine may have no systemd.
            *("--register=no", "--keep-unit", "--link-journal=no", "--console=pipe", "--resolv-conf=off"),
            f"--network-namespace-path={host.namespace_path}",
            *(f"--bind-ro={CHECKOUT}:{SOURCES}", f"--bind-ro={wheels}:{WHEELS}"),
        ]
        script = f'{mount} {directory}/root && exec "$@"'
        self._process = Process(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *boot],
            directory / "console.log",
            name=f"machine {self.name}",
        )

    @property
    def changes(self) -> Path:
        """What differs from the root that it was booted from."""
        return self._directory / "changes"

    @property
    def files(self) -> Path:
        """The machine's own root folder, while it runs."""
        return Path(f"/proc/{self._leader}/root")

    def start(self, like: "Machine | None" = None) -> None:
        """Boot; return once all that starts at a boot has. ``like``: begin with the files that one has by now."""
        for name in ("changes", "work", "root"):
            (self._directory / name).mkdir(parents=True)
        if like:
            # -a: with the markers of what was removed, too.
            _run(["cp", "-a", f"{like.changes}/.", str(self.changes)])
        self._process.start()
        self._process.wait_for(self._has_booted, _BOOT_TIMEOUT_S, "the end of the boot")

    def run(
        self, *argv: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout_s: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in it, as its root, and return what came of it, both outputs in one."""
        return subprocess.run(
            ["nsenter", "--target", str(self._leader), "--all", "--", *argv],
            input=stdin,
            env={**_ENV, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def read(self, *argv: str) -> str:
        """Run a command in it that must succeed, and return its output."""
        done = self.run(*argv)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """Return one property of a unit."""
        return self.read("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def stop(self) -> None:
        """Pull the plug: its first process takes all others along, and nothing is kept."""
        if self._process.running and self._leader:
            os.kill(self._leader, signal.SIGKILL)
        self._process.stop(60)
        shutil.rmtree(self._directory)

    def _has_booted(self) -> bool:
        """Whether systemd in there says so; degraded is an end too."""
        for pid in self._process.children():
            self._leader = pid
            if self.run("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}:
                return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _run(argv: Sequence[str], allowed: Sequence[int] = (0,)) -> str:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    done = subprocess.run(
        argv,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_BUILD_TIMEOUT_S,
        check=False,
    )
    assert done.returncode in allowed, f"{argv[0]}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def _codename() -> str:
    """Return the release that this machine runs."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)["VERSION_CODENAME"]


def _read_sources() -> str:
    """Return apt's sources of the distribution, as this machine has them: whatever mirror it uses, and none else."""
    fields = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    targets = _run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]).splitlines()
    own = [line for line in dict.fromkeys(targets) if line.split()[1].split("-")[0] == _codename()]
    assert own, f"apt has no source of {_codename()} here"
    return "".join(f"deb {line}\n" for line in own)

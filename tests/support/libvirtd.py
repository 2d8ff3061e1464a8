# SPDX-License-Identifier: Apache-2.0
"""A private libvirtd with QEMU guests of its own: no KVM, no root, no trace of it afterwards.

Why: what Porthole does with a hypervisor is tested on a real one, and the machine's own libvirtd is nobody's
business. It runs in session mode, which root cannot have: root starts it as the user nobody. Guests are driven
through virsh, in processes of their own, so that a test may stop libvirtd, or hold its own connection, meanwhile.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid as uuidlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.sax.saxutils import escape, quoteattr

from support.leftovers import find_processes
from support.ports import reserve_block
from support.processes import Process, wait_until

NOBODY = 65534
START_TIMEOUT_S = 30
GUEST_END_TIMEOUT_S = 15
VIRSH_TIMEOUT_S = 60
# A libvirtd that answers at all says its version and lists its guests at once, so that these may be given up sooner.
PROBE_TIMEOUT_S = 10
# Each daemon has a range of display ports of its own, which it holds: two libvirtd on one machine would otherwise race
# for 5900, and a test may put a server of its own on a port that a guest has left.
DISPLAY_PORT_COUNT = 32


class VirshFailed(AssertionError):
    """A virsh command failed; the text is what it printed."""


class VirshHung(VirshFailed):
    """A virsh command had no answer within its deadline, and was ended."""


def guest_xml(
    name: str,
    uuid: str | None = None,
    *,
    vnc: str | None = "<graphics type='vnc' autoport='yes' listen='127.0.0.1'/>",
    metadata: str = "",
    cdrom: Path | None = None,
    memory_mib: int = 64,
) -> str:
    """Return the XML of a small guest of ``type='qemu'``: a display, a keyboard, no network, no disk.

    ``vnc`` is its ``<graphics>`` element, or None; ``metadata`` the content of ``<metadata>``; ``cdrom`` an ISO
    image to boot from, readable by everybody. Without one the guest stands still at its BIOS.
    """
    disk = ""
    if cdrom:
        disk = (
            f"<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file={quoteattr(str(cdrom))}/>"
            "<target dev='hda' bus='ide'/><readonly/></disk>"
        )
    video = "<video><model type='vga'/></video>" if vnc else ""
    return (
        f"<domain type='qemu'><name>{escape(name)}</name><uuid>{uuid or uuidlib.uuid4()}</uuid>"
        f"<metadata>{metadata}</metadata><memory unit='MiB'>{memory_mib}</memory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='pc'>hvm</type><boot dev='{'cdrom' if cdrom else 'hd'}'/></os>"
        "<features><acpi/></features>"
        f"<devices>{disk}<controller type='usb' model='none'/><input type='keyboard' bus='ps2'/>{vnc or ''}{video}"
        "<memballoon model='none'/></devices></domain>"
    )


class Libvirtd:
    """One libvirtd in session mode, as ``process``; every path it uses lies in ``directory``.

    ``directory`` must be short (a UNIX socket's path ends at 107 bytes) and, for root, below directories that
    everybody may traverse. Without one it makes its own, which :meth:`close` removes.
    """

    def __init__(self, directory: Path | None = None, settings: Sequence[str] = ()) -> None:
        """``settings`` are further lines of qemu.conf; files they name lie in ``directory`` when it starts."""
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="lv"))
        self._settings = [*settings]
        self._display_ports = reserve_block(DISPLAY_PORT_COUNT)
        self._runtime = self.directory / "run"
        self._socket = self._runtime / "libvirt" / "libvirt-sock"
        self.uri = f"qemu+unix:///session?socket={self._socket}"
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        executable = shutil.which("libvirtd", path=path)
        assert executable, "libvirtd is not installed (see bindep.txt)"
        as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        environment = {
            "PATH": path,
            "LC_ALL": "C",
            "HOME": str(self.directory / "home"),
            "XDG_RUNTIME_DIR": str(self._runtime),
            "XDG_CONFIG_HOME": str(self.directory / "config"),
            "XDG_CACHE_HOME": str(self.directory / "cache"),
            "XDG_DATA_HOME": str(self.directory / "data"),
        }
        self.process = Process(
            [*(as_nobody if os.geteuid() == 0 else []), executable, "--timeout", "0"],
            self.directory / "libvirtd.log",
            environment,
            name="libvirtd",
        )

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self._prepare()
        self.process.start()
        self.process.wait_for(self._answers, START_TIMEOUT_S, f"an answer at {self.uri}")

    def stop(self) -> None:
        """End the daemon (SIGTERM); guests keep running."""
        self.process.stop()

    def kill(self) -> None:
        """End the daemon where it stands (SIGKILL); guests keep running."""
        self.process.kill()

    def restart(self) -> None:
        """Stop the daemon and start it again; guests keep running."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the daemon and every guest, and leave no file of its own."""
        self.stop()
        self._kill_guests()
        if self._own_directory:
            shutil.rmtree(self.directory)

    def pause(self) -> None:
        """Freeze the daemon (SIGSTOP): connections stay open and nothing answers."""
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen daemon go on."""
        self.process.signal(signal.SIGCONT)

    def virsh(self, *arguments: str, stdin: str | None = None, timeout_s: float = VIRSH_TIMEOUT_S) -> str:
        """Run one virsh command and return what it printed.

        :raises VirshFailed: when it failed.
        :raises VirshHung: when it had no answer after ``timeout_s``.
        """
        try:
            result = subprocess.run(
                ["virsh", "--quiet", "--connect", self.uri, *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                env={**os.environ, "LC_ALL": "C"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise VirshHung(f"virsh {' '.join(arguments)}: no answer after {timeout_s:g} s") from None
        if result.returncode:
            raise VirshFailed(f"virsh {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def create(self, xml: str, *, paused: bool = False) -> None:
        """Start a transient guest; ``paused`` holds it before its first instruction."""
        self.virsh("create", "/dev/stdin", *(["--paused"] if paused else []), stdin=xml)

    def define(self, xml: str) -> None:
        """Make a persistent guest, stopped; ``virsh start`` starts it."""
        self.virsh("define", "/dev/stdin", stdin=xml)

    def destroy(self, guest: str) -> None:
        """End a guest (name or UUID) as pulling its plug would; a transient one is then gone."""
        self.virsh("destroy", guest)

    def state(self, guest: str) -> str:
        """Return virsh's words for the guest's state, as ``running`` or ``shut off``."""
        return self.virsh("domstate", guest).strip()

    def vnc_port(self, guest: str) -> int:
        """Return the TCP port of a running guest's VNC server."""
        display = self.virsh("vncdisplay", guest).strip()
        return 5900 + int(display.rpartition(":")[2])

    def guest_pid(self, name: str) -> int:
        """Return the process id of a running guest's QEMU."""
        return int(self._find_pid_file(name).read_text())

    def _find_pid_file(self, name: str) -> Path:
        return self._runtime / "libvirt" / "qemu" / "run" / f"{name}.pid"

    def screenshot(self, guest: str, path: Path) -> Path:
        """Write what the guest shows to ``path`` (PNG or PPM, as the first bytes say) and return it."""
        self.virsh("screenshot", guest, str(path))
        return path

    def send_key(self, guest: str, *keys: str) -> None:
        """Press ``keys`` together, by their Linux names (``KEY_A``)."""
        self.virsh("send-key", guest, *keys)

    def remove_guests(self, timeout_s: float = PROBE_TIMEOUT_S) -> None:
        """End and forget every guest, so that the next test starts from nothing.

        A libvirtd that leaves a question open for ``timeout_s``, or cannot end a guest, is killed with its guests and
        started anew.
        """
        try:
            for uuid in self.virsh("list", "--uuid", timeout_s=timeout_s).split():
                self.virsh("destroy", uuid, timeout_s=timeout_s + GUEST_END_TIMEOUT_S)
            for uuid in self.virsh("list", "--all", "--uuid", timeout_s=timeout_s).split():
                self.virsh("undefine", uuid, "--managed-save", timeout_s=timeout_s)
        except VirshFailed as exc:
            sys.stderr.write(f"libvirtd is started anew: {exc}\n")
            self._start_anew()

    def _start_anew(self) -> None:
        self.kill()
        self._kill_guests()
        # The definitions and the saved states of the guests, and what libvirtd noted of the running ones.
        for pattern in ("config/libvirt/qemu/*.xml", "config/libvirt/qemu/save/*", "run/libvirt/qemu/run/*.xml"):
            for path in self.directory.glob(pattern):
                path.unlink()
        self.start()

    def _kill_guests(self) -> None:
        """Kill every QEMU of this daemon, also one that libvirtd has not noted yet; the daemon is dead by now."""
        pids = self._find_guests()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # They are no children of ours: whoever reaps them may take a while, and until then they are zombies.
        wait_until(lambda: not any(map(is_running, pids)), GUEST_END_TIMEOUT_S, f"the end of the guests {pids}")
        for path in self._runtime.glob("libvirt/qemu/run/*.pid"):
            path.unlink()

    def _find_guests(self) -> list[int]:
        """Return the process ids of the QEMUs whose monitors lie in this daemon's directory."""
        found = find_processes(self.directory)
        return [pid for pid, command in found.items() if os.path.basename(command.split()[0]).startswith("qemu")]

    def _prepare(self) -> None:
        if (self.directory / "config").exists():
            return
        if os.geteuid() == 0:
            self.directory.chmod(0o711)
        settings = self.directory / "config" / "libvirt" / "qemu.conf"
        settings.parent.mkdir(parents=True)
        # "file": libvirtd opens the guests' logs itself and starts no virtlogd that somebody would have to stop.
        first, last = self._display_ports[0], self._display_ports[-1]
        ports = [f"remote_display_port_min = {first}", f"remote_display_port_max = {last}"]
        settings.write_text("\n".join(['stdio_handler = "file"', *ports, *self._settings, ""]))
        # Two on one machine are two hosts to each other, so that a guest may move between them.
        (settings.parent / "libvirtd.conf").write_text(f'host_uuid = "{uuidlib.uuid4()}"\n')
        for name in ("run", "cache", "data", "home"):
            (self.directory / name).mkdir()
        if os.geteuid() == 0:
            for path in (self.directory, *self.directory.rglob("*")):
                shutil.chown(path, NOBODY, NOBODY)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            # The queue of a daemon that takes no connections may be full.
            probe.settimeout(PROBE_TIMEOUT_S)
            if probe.connect_ex(str(self._socket)) != 0:
                return False
        try:
            self.virsh("version", timeout_s=PROBE_TIMEOUT_S)
        except VirshFailed:
            return False
        return True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_running(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False

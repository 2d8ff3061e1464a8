# SPDX-License-Identifier: Apache-2.0
"""A QEMU on its own, without libvirt: a guest that never moves, and the VNC server that a test wants of it.

Why beside ``libvirtd.py``: how QEMU's VNC server encrypts is an option of each QEMU here, where libvirt has one setting
for all guests of a host.
"""

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.certificates import Authority, Certificate
from support.ports import free_port
from support.processes import Process
from support.vnc_servers import greets

_READY_TIMEOUT_S = 30


class QemuVnc:
    """A running QEMU whose VNC server listens on ``host``, as ``name`` in its ServerInit ("QEMU (name)")."""

    def __init__(
        self, directory: Path, tls: Sequence[str] = (), password: str | None = None, host: str = "127.0.0.1"
    ) -> None:
        """``tls`` is what follows ``-object``: :func:`x509` or :func:`anonymous`."""
        program = shutil.which("qemu-system-x86_64")
        assert program, "QEMU is not installed (see bindep.txt)"
        directory.mkdir(parents=True, exist_ok=True)
        self.host = host
        self.port = self._free_display_port()
        self.name = directory.name
        vnc = f"{f'[{host}]' if ':' in host else host}:{self.port - 5900}{',tls-creds=tls0' if tls else ''}"
        self._monitor = directory / "monitor"
        # Held before its first instruction, so that its screen, which says so, stays as it is.
        argv = [program, "-name", self.name, "-nodefaults", "-accel", "tcg", "-m", "32", "-vga", "std", "-S"]
        argv += ["-monitor", f"unix:{self._monitor},server=on,wait=off"]
        argv += [word for text in tls for word in ("-object", text)]
        if password is not None:
            (directory / "password").write_text(password, encoding="ascii")
            argv += ["-object", f"secret,id=password,file={directory / 'password'}"]
            vnc += ",password-secret=password"
        self.process = Process([*argv, "-vnc", vnc], directory / "qemu.log", name="QEMU")

    @staticmethod
    def _free_display_port() -> int:
        while (port := free_port()) < 5900:
            continue
        return port

    def start(self) -> None:
        """Start it and return once its VNC server greets."""
        self.process.start()
        self.process.wait_for(lambda: greets(self.host, self.port), _READY_TIMEOUT_S, "an RFB greeting")

    def screenshot(self, path: Path) -> Path:
        """Write what the guest shows to ``path`` (PPM), as QEMU itself has it, and return it."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_READY_TIMEOUT_S)
            sock.connect(str(self._monitor))
            _read_to_prompt(sock)
            sock.sendall(f"screendump {path}\n".encode())
            _read_to_prompt(sock)
        return path

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _read_to_prompt(sock: socket.socket) -> None:
    received = b""
    while not received.endswith(b"(qemu) "):
        data = sock.recv(4096)
        assert data, "QEMU's monitor went away"
        received += data


def x509(directory: Path, authority: Authority, certificate: Certificate, *, verify_peer: bool = False) -> list[str]:
    """Return QEMU's credentials with a certificate, laid out in ``directory`` as QEMU looks for them."""
    directory.mkdir(parents=True)
    shutil.copy(authority.cert, directory / "ca-cert.pem")
    shutil.copy(certificate.cert, directory / "server-cert.pem")
    shutil.copy(certificate.key, directory / "server-key.pem")
    verify = "yes" if verify_peer else "no"
    return [f"tls-creds-x509,id=tls0,dir={directory},endpoint=server,verify-peer={verify}"]


def anonymous() -> list[str]:
    """Return QEMU's credentials without a certificate."""
    return ["tls-creds-anon,id=tls0,endpoint=server"]

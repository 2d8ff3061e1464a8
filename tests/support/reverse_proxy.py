# SPDX-License-Identifier: Apache-2.0
"""haproxy and nginx with the samples of ``deploy/proxy/``, as an operator runs them, on free ports of loopback.

Why the samples themselves: what stands in them is what people copy. Here only addresses, paths and, where a test says
so, a number are other than in the file; whatever is to be replaced must be there.
"""

import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from support.certificates import Authority
from support.ports import free_port
from support.processes import Process, wait_until

SAMPLES = Path(__file__).parents[2] / "deploy" / "proxy"
START_TIMEOUT_S = 30


# What every haproxy of a test has otherwise than the sample: descriptors that a test's shell may not have, no user.
HAPROXY_REPLACEMENTS = {"maxconn 20000": "maxconn 1000", "    user haproxy\n    group haproxy\n": ""}
HAPROXY_SOCKET = "/run/haproxy/admin.sock"


def fill_sample(name: str, replacements: Mapping[str, str]) -> str:
    """Return the text of a sample with everything replaced.

    :raises AssertionError: when it lacks one of the texts.
    """
    text = (SAMPLES / name).read_text(encoding="utf-8")
    for old, new in replacements.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


class ReverseProxy:
    """What both have in common: ports, a certificate for localhost, and the sample with its replacements."""

    sample: str

    def __init__(self, directory: Path, replacements: Mapping[str, str]) -> None:
        """Prepare ``directory``; ``replacements`` of texts in the sample come on top of this class's own."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        authority = Authority(directory, "authority")
        self._certificate = authority.issue("localhost")
        pem = self._certificate.cert.read_bytes() + self._certificate.key.read_bytes()
        (directory / "porthole.pem").write_bytes(pem)
        self.tls = ssl.create_default_context(cafile=authority.cert)
        self.url = f"https://localhost:{self.port}"
        self._replacements = dict(replacements)

    def build_conf(self, own: Mapping[str, str]) -> str:
        """Return the sample with everything replaced.

        :raises AssertionError: when the sample lacks one of the texts.
        """
        return fill_sample(self.sample, {**own, **self._replacements})

    def wait_ready(self, process: Process) -> None:
        """Return once the port is open."""
        process.wait_for(lambda: _accepts(self.port), START_TIMEOUT_S, f"port {self.port}")


class Haproxy(ReverseProxy):
    """haproxy in master-worker mode, as Debian's unit starts it: a reload lets open consoles go on."""

    sample = "haproxy.cfg"

    def __init__(self, directory: Path, replacements: Mapping[str, str] | None = None) -> None:
        super().__init__(directory, replacements or {})
        self.xvp_port = free_port()
        self._path = directory / "haproxy.cfg"
        self._reloads = 0
        argv = [find("haproxy"), "-W", "-f", str(self._path)]
        self.process = Process(argv, directory / "haproxy.log", name="haproxy")

    def write(self, apis: Sequence[int], proxies: Sequence[int], xvps: Sequence[int] = ()) -> None:
        """Write the configuration for controllers at these ports of 127.0.0.1, two or more of each kind."""
        socket_path = self.directory / "admin.sock"
        text = self.build_conf(
            {
                "/etc/haproxy/porthole.pem": str(self.directory / "porthole.pem"),
                **HAPROXY_REPLACEMENTS,
                HAPROXY_SOCKET: str(socket_path),
                "bind :443": f"bind 127.0.0.1:{self.port}",
                "bind :6081": f"bind 127.0.0.1:{self.xvp_port}",
            }
        )
        for sample_port, ports in ((8774, apis), (6080, proxies), (6081, xvps or proxies)):
            text = _replace_servers(text, sample_port, ports, proxies)
        self._path.write_text(text, encoding="utf-8")
        check([find("haproxy"), "-c", "-f", str(self._path)])

    def start(self) -> None:
        """Start, and return once it takes connections."""
        self.process.start()
        self.wait_ready(self.process)

    def reload(self) -> None:
        """Take over what :meth:`write` wrote, as ``systemctl reload haproxy`` does; return once that is done."""
        self._reloads += 1
        self.process.signal(signal.SIGUSR2)
        wait_until(
            lambda: self.process.log().count("Loading success.") >= self._reloads + 1,
            START_TIMEOUT_S,
            "haproxy's new worker",
            self.process.log,
        )

    def stop(self) -> None:
        """End it, old workers with open consoles too."""
        self.process.stop()

    def logs(self) -> str:
        """Everything it wrote."""
        return self.process.log()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Nginx(ReverseProxy):
    """nginx with the sample as the only file in its conf.d."""

    sample = "nginx.conf"

    def __init__(self, directory: Path, replacements: Mapping[str, str] | None = None) -> None:
        super().__init__(directory, replacements or {})
        self._path = directory / "nginx.conf"
        argv = [find("nginx"), "-c", str(self._path), "-g", "daemon off;"]
        self.process = Process(argv, directory / "nginx.out", name="nginx")

    def write(self, apis: Sequence[int], proxies: Sequence[int]) -> None:
        """Write the configuration for two controllers at these ports of 127.0.0.1."""
        sample = self.build_conf(
            {
                "/etc/nginx/porthole.pem": str(self._certificate.cert),
                "/etc/nginx/porthole.key": str(self._certificate.key),
                "/var/log/nginx": str(self.directory),
                "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
                "server_name cloud.example": "server_name localhost",
                **{f"192.0.2.1{n}:8774": f"127.0.0.1:{port}" for n, port in enumerate(apis, 1)},
                **{f"192.0.2.1{n}:6080": f"127.0.0.1:{port}" for n, port in enumerate(proxies, 1)},
            }
        )
        (self.directory / "porthole.conf").write_text(sample, encoding="utf-8")
        temporary = "".join(
            f"{name}_temp_path {self.directory / name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self._path.write_text(
            f"pid {self.directory / 'nginx.pid'};\nerror_log {self.directory / 'error.log'};\n"
            f"{'user root;' if os.geteuid() == 0 else ''}\nworker_processes 1;\nevents {{}}\n"
            f"http {{\n{temporary}include {self.directory / 'porthole.conf'};\n}}\n",
            encoding="utf-8",
        )
        check([find("nginx"), "-t", "-c", str(self._path)])

    def logs(self) -> str:
        """Everything it wrote."""
        paths = (path for path in self.directory.iterdir() if path.suffix in (".log", ".out"))
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)

    def __enter__(self) -> Self:
        self.process.start()
        self.wait_ready(self.process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()


def find(program: str) -> str:
    """Return the program's path; Debian keeps both in /usr/sbin."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    assert path, f"{program} is not installed (see bindep.txt)"
    return path


def check(argv: Sequence[str]) -> None:
    """Run a configuration check.

    :raises AssertionError: when it finds fault; a warning is one.
    """
    result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "WARNING" not in output, output
    assert "[warn]" not in output, output


def _replace_servers(text: str, sample_port: int, ports: Sequence[int], checked: Sequence[int]) -> str:
    """Put as many controllers as there are ``ports`` in place of the sample's two; xvp's are checked elsewhere."""
    checks = [f" check port {port}" for port in checked] if sample_port == 6081 else [""] * len(ports)
    first = f"    server controller1 192.0.2.11:{sample_port}"
    start = text.index(first)
    end = text.index("\n", text.index(f"    server controller2 192.0.2.12:{sample_port}")) + 1
    lines = [
        f"    server controller{n} 127.0.0.1:{port}{check}\n"
        for n, (port, check) in enumerate(zip(ports, checks, strict=True), 1)
    ]
    return text[:start] + "".join(lines) + text[end:]


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False

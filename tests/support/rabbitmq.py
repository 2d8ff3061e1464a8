# SPDX-License-Identifier: Apache-2.0
"""A RabbitMQ of the tests' own: private node name, ports, epmd and directories, on loopback unless told otherwise.

Why not the one of the machine: a test stops, restarts and freezes its broker. One that already runs here is
neither used nor disturbed. Works as root and as an ordinary user: Debian's wrapper in /usr/sbin would change
to the user rabbitmq, so the script it wraps is called.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from support.certificates import Certificate
from support.ports import free_port
from support.processes import Process

_ESTABLISHED = "01"
LOOPBACK = "127.0.0.1"


class RabbitMQ:
    """One broker below ``directory``, which is the broker's alone; a restart keeps port and transport_url.

    On loopback its user is guest, as it comes; on another ``host`` one of its own, since guest is let in from nowhere
    else.
    """

    def __init__(
        self,
        directory: Path,
        host: str = LOOPBACK,
        certificate: Certificate | None = None,
        seed: Self | None = None,
    ) -> None:
        """Prepare; with ``certificate`` it speaks TLS alone, and with ``seed`` it joins that one's cluster."""
        self.port = free_port()
        self._certificate = certificate
        self._seed = seed
        self.node_name = f"porthole-{secrets.token_hex(4)}@localhost"
        # What lets one node talk to another, and nobody else.
        self._cookie: str = seed._cookie if seed else secrets.token_hex(16)
        self._host = host
        self._password = "guest" if host == LOOPBACK else secrets.token_urlsafe(16)
        self._user = "guest" if host == LOOPBACK else "porthole"
        self.transport_url = f"rabbit://{self._user}:{self._password}@{host}:{self.port}/"
        self._directory = directory
        # Nodes of a cluster find each other through one epmd.
        self._epmd_port: int = seed._epmd_port if seed else free_port()
        epmd_port = self._epmd_port
        self._distribution_port = free_port()
        # Of Erlang itself, and on loopback.
        self.private_ports = {epmd_port, self._distribution_port}
        self._env = self._build_environment(epmd_port)
        # epmd in the foreground as a child of ours: the one that erl would start is a daemon that outlives it.
        self._epmd = Process(
            [_find("epmd"), "-address", "127.0.0.1", "-port", str(epmd_port)], directory / "epmd.log", self._env
        )
        self.process = Process(
            [str(_find_server())], directory / "rabbitmq.log", self._env, name="rabbitmq-server", new_session=True
        )

    def _build_environment(self, epmd_port: int) -> dict[str, str]:
        directory = self._directory
        return {
            "HOME": str(directory),  # where the Erlang cookie goes
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
            "RABBITMQ_NODENAME": self.node_name,
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_PLUGINS_DIR": str(directory / "plugins"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(directory / "config"),
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_BYTES": "0",
            # Few threads that do not spin: the machine has other work, and with one scheduler a start costs a seventh
            # less processor time. The distribution port on loopback too.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +SDcpu 1:1 +SDio 1 +A 4 +sbwt none -start_epmd false"
            " -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def start(self) -> None:
        """Start, and return once it speaks AMQP."""
        self._directory.mkdir(parents=True, exist_ok=True)
        (self._directory / "enabled_plugins").write_text("[].\n", encoding="ascii")
        self._link_libraries()
        # A test's disk may well be nearly full, and a broker that blocks its publishers would look like a hang.
        (self._directory / "rabbitmq.conf").write_text(self._build_conf(), encoding="ascii")
        cookie = self._directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(self._cookie, encoding="ascii")
            cookie.chmod(0o400)
        if not self._seed and not self._epmd.running:
            self._epmd.start()
            self._epmd.wait_for(lambda: _accepts(self._epmd_port), 20, "epmd's port")
        self.process.start()
        self.process.wait_for(self._speaks_amqp, 120, f"AMQP at port {self.port}")

    def _link_libraries(self) -> None:
        """Leave the plugins out, which no test uses: the broker would look through all of them, at a fifth of a start.

        Its own code and what that needs lie among them, and not in a folder of their own.
        """
        libraries = self._directory / "plugins"
        libraries.mkdir(exist_ok=True)
        for path in (_find_server().resolve().parents[1] / "plugins").iterdir():
            link = libraries / path.name
            if not link.exists() and (not path.name.startswith("rabbitmq_") or "_prelaunch-" in path.name):
                link.symlink_to(path)

    def _build_conf(self) -> str:
        lines = ["disk_free_limit.absolute = 1MB", f"default_user = {self._user}", f"default_pass = {self._password}"]
        if self._certificate:
            lines += [
                "listeners.tcp = none",
                f"listeners.ssl.1 = {self._host}:{self.port}",
                f"ssl_options.certfile = {self._certificate.cert}",
                f"ssl_options.keyfile = {self._certificate.key}",
            ]
        else:
            lines.append(f"listeners.tcp.1 = {self._host}:{self.port}")
        if self._seed:
            lines += [
                "cluster_formation.peer_discovery_backend = classic_config",
                f"cluster_formation.classic_config.nodes.1 = {self._seed.node_name}",
            ]
        return "\n".join(lines) + "\n"

    def stop(self) -> None:
        """End the broker: its connections are closed and its queues gone."""
        self.process.stop(timeout_s=60)

    def kill(self) -> None:
        """End the broker as a power cut would."""
        self.process.kill()

    def restart(self) -> None:
        """Stop and start on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: the kernel still accepts connections and bytes, and nothing answers."""
        self.process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen one go on."""
        self.process.signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop everything, and leave no file."""
        self.stop()
        self._epmd.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def change_password(self, password: str) -> None:
        """Have the user log in with ``password`` from now on; open connections stay, and so does transport_url."""
        self._control("change_password", self._user, password)

    @contextlib.contextmanager
    def memory_alarm(self) -> Iterator[None]:
        """Raise the memory alarm, and end it if the broker still runs.

        Meanwhile the broker reads nothing more from a connection that sends a message.
        """
        self._control("set_vm_memory_high_watermark", "absolute", "1000000")
        try:
            yield
        finally:
            if self.process.running:
                self._control("set_vm_memory_high_watermark", "0.9")

    def count_broker_connections(self) -> int:
        """Return how many connections the broker itself counts, also those whose client has gone unnoticed."""
        return len(self._control("--quiet", "list_connections", "--no-table-headers", "pid").splitlines())

    def _control(self, *command: str) -> str:
        script = _find_server().with_name("rabbitmqctl")
        environment = {**os.environ, **self._env}
        argv = [str(script), "--node", self.node_name, *command]
        done = subprocess.run(argv, env=environment, check=True, timeout=60, capture_output=True, text=True)
        return done.stdout

    def connection_count(self) -> int:
        """Return how many TCP connections to the AMQP port are established."""
        return sum(1 for line in _tcp_lines() if line[1].endswith(f":{self.port:04X}") and line[3] == _ESTABLISHED)

    def _speaks_amqp(self) -> bool:
        """A broker that is up answers a header of a version it does not speak with its own (AMQP 0-9-1 §4.2.2)."""
        try:
            if self._certificate:
                return _accepts(self.port)
            with socket.create_connection((self._host, self.port), timeout=5) as sock:
                sock.sendall(b"AMQP\x00\x09\x09\x09")
                return sock.recv(4) == b"AMQP"
        except OSError:
            return False

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _tcp_lines() -> list[list[str]]:
    """Return /proc/net/tcp's rows: number, local address:port, remote address:port, state, ... in hexadecimal."""
    rows = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    return [row.split() for row in rows]


def _find(program: str) -> str:
    path = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    assert path, f"{program} is not installed (see bindep.txt)"
    return path


def _find_server() -> Path:
    """Return the script behind Debian's wrapper, which stands in the same folder as the wrapper itself."""
    resolved = Path(_find("rabbitmq-server")).resolve()
    return resolved.with_name("rabbitmq-server")


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False

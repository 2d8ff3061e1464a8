# SPDX-License-Identifier: Apache-2.0
"""A site as an operator has it: two controllers, two computes and a user, each a host of its own (``hosts.py``).

On the user's host there may be haproxy too, in front of the controllers (``balancer.py``).

Every controller runs porthole-api, -consoleauth, -novncproxy and memcached; the first one RabbitMQ too. Every compute
runs porthole-compute with VNC servers that say who they are (``screens.py``), and, where a test asks for it, a
second porthole-compute beside a libvirtd of its own with QEMU guests.
"""

import contextlib
import secrets
import signal
import uuid as uuidlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from support.balancer import Balancer
from support.daemons import Options, Porthole
from support.hosts import Host, Network
from support.libvirtd import Libvirtd, guest_xml
from support.memcached import Memcached
from support.processes import Process
from support.rabbitmq import RabbitMQ
from support.screens import Screens

CONTROLLER_DAEMONS = ("consoleauth", "api", "novncproxy")
# RabbitMQ's own deadline for its start is shorter, and says more.
_BROKER_TIMEOUT_S = 180
# The same on every host, as an operator would have it.
API_PORT, NOVNC_PORT, XVP_PORT = 8774, 6080, 6081


@dataclass(frozen=True)
class Instance:
    """What a console has to show: ``guest`` is the name of the QEMU guest, None for a stand-in, which says its UUID."""

    uuid: str
    compute: int
    guest: str | None = None


@dataclass(frozen=True)
class Part:
    """A process of the site that a test may kill, freeze and start again. ``start`` returns once it serves."""

    name: str
    host: Host
    process: Process
    start: Callable[[], object]


@dataclass
class Controller:
    """One controller."""

    host: Host
    porthole: Porthole
    memcached: Memcached


@dataclass
class Compute:
    """One compute; ``instances_file`` is what its porthole-compute with the stand-ins reads."""

    host: Host
    porthole: Porthole
    screens: Screens
    instances_file: Path
    libvirtd: Libvirtd | None


class Site:
    """The whole; it starts when entered and leaves nothing behind.

    ``screens`` VNC servers stand in for guests on each compute; with ``guests`` each also has that many real ones. With
    ``store_apart`` the second memcached has a host of its own, :attr:`store`. ``options`` go to every daemon.
    """

    def __init__(
        self,
        directory: Path,
        screens: int = 4,
        guests: int = 0,
        options: Options | None = None,
        store_apart: bool = False,
    ) -> None:
        self._directory, self._store_apart = directory, store_apart
        self._screens, self._guests = screens, guests
        self._options = options or {}
        self._stack = contextlib.ExitStack()
        self.instances: list[Instance] = []
        self.controllers: list[Controller] = []
        self.computes: list[Compute] = []
        self._balancer: Balancer | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        self.network = self._stack.enter_context(Network())
        names = ("controller-1", "controller-2", "compute-1", "compute-2", "user")
        hosts = [self.network.add_host(name) for name in names]
        self.user = hosts[4]
        self.store = self.network.add_host("store") if self._store_apart else hosts[1]
        with hosts[0].entered():
            self.rabbitmq = RabbitMQ(self._directory / "rabbitmq", hosts[0].address)
        # The broker takes as long to start as everything else together.
        with ThreadPoolExecutor(1) as pool:
            broker = pool.submit(self._start_rabbitmq, hosts[0])
            self._stores = [self._start_memcached(host) for host in (hosts[0], self.store)]
            self.controllers = [self._add_controller(*pair) for pair in zip(hosts[:2], self._stores, strict=True)]
            self.computes = [self._add_compute(index, host) for index, host in enumerate(hosts[2:4])]
            broker.result(_BROKER_TIMEOUT_S)
        nodes: tuple[Controller | Compute, ...] = (*self.controllers, *self.computes)
        self._stack.callback(self._stop_daemons, nodes)
        for node in nodes:
            with node.host.entered():
                for name in self._daemons_of(node):
                    node.porthole.processes[name].start()
        for node in nodes:
            for name in self._daemons_of(node):
                node.porthole.wait_ready(name)

    def start_balancer(self) -> Balancer:
        """Start haproxy on the user's host, unless it runs."""
        if self._balancer is None:
            addresses = [controller.host.address for controller in self.controllers]
            self._balancer = Balancer(self._directory / "balancer", self.user.address, addresses)
            with self.user.entered():
                self._balancer.start()
            self._stack.callback(self._balancer.process.stop)
        return self._balancer

    def _start_rabbitmq(self, host: Host) -> None:
        with host.entered():
            self._stack.enter_context(self.rabbitmq)

    @staticmethod
    def _stop_daemons(nodes: Sequence[Controller | Compute]) -> None:
        """Stop them all at once: each may have to wait for its broker's answer."""
        processes = [process for node in nodes for process in node.porthole.processes.values() if process.running]
        for process in processes:
            process.signal(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        for process in processes:
            process.stop()

    @staticmethod
    def _daemons_of(node: Controller | Compute) -> tuple[str, ...]:
        if isinstance(node, Controller):
            return CONTROLLER_DAEMONS
        return ("compute", "compute-libvirt") if node.libvirtd else ("compute",)

    def _start_memcached(self, host: Host) -> Memcached:
        with host.entered():
            return self._stack.enter_context(Memcached(host=host.address))

    def _add_controller(self, host: Host, memcached: Memcached) -> Controller:
        porthole = self._add_porthole(host, {})
        return Controller(host, porthole, memcached)

    def _add_porthole(self, host: Host, options: Options, instances_file: Path | None = None) -> Porthole:
        front = f"http://{host.address}"
        own: dict[str, dict[str, object]] = {
            # As operators run it; what DEBUG says of a console takes a quarter of its time.
            "DEFAULT": {"debug": False},
            "api": {"bind_host": host.address, "bind_port": API_PORT, "allow_noauth_anywhere": True},
            "vnc": {
                "server_proxyclient_address": host.address,
                "novncproxy_host": host.address,
                "novncproxy_port": NOVNC_PORT,
                "novncproxy_base_url": f"{front}:{NOVNC_PORT}/console.html",
                "xvpvncproxy_host": host.address,
                "xvpvncproxy_port": XVP_PORT,
                "xvpvncproxy_base_url": f"{front}:{XVP_PORT}/console",
            },
        }
        for given in (options, self._options):
            for group, values in given.items():
                own.setdefault(group, {}).update(values)
        return Porthole(
            self._directory / host.name,
            self.rabbitmq,
            self._stores,
            instances_file=instances_file,
            host=host.name,
            options=own,
        )

    def _add_compute(self, index: int, host: Host) -> Compute:
        instances = [Instance(str(uuidlib.uuid4()), index) for _ in range(self._screens)]
        self.instances += instances
        with host.entered():
            screens = self._stack.enter_context(Screens(host.address, [instance.uuid for instance in instances]))
        path = self._directory / f"{host.name}.yaml"
        # The user finds the first controller's proxy in the URL, wherever the API that answered is.
        front = f"http://{self.controllers[0].host.address}"
        urls = {
            "novncproxy_base_url": f"{front}:{NOVNC_PORT}/console.html",
            "xvpvncproxy_base_url": f"{front}:{XVP_PORT}/console",
        }
        libvirtd = self._start_libvirtd(index, host) if self._guests else None
        porthole = self._add_porthole(host, {"vnc": urls}, path)
        compute = Compute(host, porthole, screens, path, libvirtd)
        if libvirtd:
            options: Options = {
                "DEFAULT": {"host": f"{host.name}-libvirt"},
                "compute": {"driver": "libvirt"},
                "libvirt": {"connection_uri": libvirtd.uri},
            }
            porthole.add("compute", "compute-libvirt", options)
        self.write_instances(compute)
        return compute

    def _start_libvirtd(self, index: int, host: Host) -> Libvirtd:
        with host.entered():
            libvirtd = self._stack.enter_context(Libvirtd())
        graphics = f"<graphics type='vnc' autoport='yes' listen='{host.address}'/>"
        for _ in range(self._guests):
            name, uuid = f"guest-{secrets.token_hex(3)}", str(uuidlib.uuid4())
            libvirtd.create(guest_xml(name, uuid, vnc=graphics))
            self.instances.append(Instance(uuid, index, name))
        return libvirtd

    def write_instances(self, compute: Compute, ports: dict[str, int] | None = None) -> None:
        """Write what porthole-compute reads at SIGHUP: every stand-in at its port, or at that of ``ports``."""
        entries = [
            {
                "uuid": uuid,
                "name": f"screen-{uuid[:8]}",
                "host": compute.host.address,
                "port": (ports or {}).get(uuid, port),
            }
            for uuid, port in compute.screens.ports.items()
        ]
        compute.instances_file.write_text(yaml.safe_dump({"instances": entries}), encoding="utf-8")

    def part(self, kind: str, index: int = 0) -> Part:
        """Return the process ``kind`` (``api``, ``memcached``, ``libvirtd``, ...) of the first or second node."""
        if kind == "rabbitmq":
            return self._build_part(kind, self.controllers[0].host, self.rabbitmq.process, self.rabbitmq.start)
        if kind == "memcached":
            controller = self.controllers[index]
            host = (controller.host, self.store)[index]
            return self._build_part(kind, host, controller.memcached.process, controller.memcached.start)
        node: Controller | Compute = (
            self.computes[index] if kind.startswith(("compute", "libvirtd")) else self.controllers[index]
        )
        if kind == "libvirtd":
            assert isinstance(node, Compute)
            assert node.libvirtd
            return self._build_part(kind, node.host, node.libvirtd.process, node.libvirtd.start)
        return self._build_part(
            kind, node.host, node.porthole.processes[kind], lambda: node.porthole.start_daemon(kind)
        )

    @staticmethod
    def _build_part(name: str, host: Host, process: Process, start: Callable[[], object]) -> Part:
        def start_there() -> None:
            with host.entered():
                start()

        return Part(f"{name} of {host.name}", host, process, start_there)

# SPDX-License-Identifier: Apache-2.0
"""The four services in one process: the wiring of ``porthole standalone``.

Why: someone with one hypervisor wants its screens without a broker, a memcached and four units. Everything that
decides or relays is the daemons' own; what differs is that messages and tokens stay in memory, and that no
address off this machine is listened on, since nobody authenticates. Called by :mod:`porthole_cli.standalone`,
which imports this module late, for what it pulls in.
"""

import argparse
import errno
import ipaddress
import sys
from collections.abc import Callable, Sequence

from oslo_config import cfg

import porthole_api.main
import porthole_compute.main
import porthole_consoleauth.main
import porthole_novncproxy.main
from porthole_api.consoles import CALLS_PER_REQUEST
from porthole_cli.cloud import DEFAULT_ENDPOINT
from porthole_cli.examinee import Examinee
from porthole_cli.invocation import find_command
from porthole_common import errors, service
from porthole_common.rpc import Rpc

PROGRAM = "porthole standalone"
# oslo.messaging's driver within one process.
TRANSPORT_URL = "fake://"
LOOPBACK = "127.0.0.1"
# The options that say where something listens.
_ADDRESSES = (("api", "bind_host"), ("vnc", "novncproxy_host"), ("vnc", "xvpvncproxy_host"))
# Flag of the command -> the option that it stands in for.
_FLAGS = {
    "libvirt_uri": ("libvirt", "connection_uri"),
    "driver": ("compute", "driver"),
    "instances_file": ("static", "instances_file"),
    "api_port": ("api", "bind_port"),
    "novnc_port": ("vnc", "novncproxy_port"),
    "xvp_port": ("vnc", "xvpvncproxy_port"),
}
_PORT_FLAGS = ("api_port", "novnc_port", "xvp_port")


class Listening:
    """One of the daemons' services; when a port is taken, its error names the flag that chooses another."""

    def __init__(self, listening: service.Service) -> None:
        self._service = listening
        self.name = listening.name
        self.stop_timeout_s = listening.stop_timeout_s

    def start(self) -> None:
        """Start the service.

        :raises ConfigInvalid: when an option does not do.
        """
        try:
            self._service.start()
        except errors.ConfigInvalid as exc:
            raise name_flag(exc) from exc

    def waits_for(self) -> str:
        """Return what the service waits for."""
        return self._service.waits_for()

    def is_alive(self) -> bool:
        """Whether the service is alive."""
        return self._service.is_alive()

    def reload(self) -> None:
        """Have the service reread."""
        self._service.reload()

    def stop(self) -> None:
        """Stop the service."""
        self._service.stop()


class Announcement(service.Service):
    """The last service to start: tells the user that the others serve, where, and what to type.

    ``waits_for`` is compute's: what it returns does not answer yet.
    """

    name = "announcement"
    stop_timeout_s = 0.0

    def __init__(self, conf: cfg.ConfigOpts, waits_for: Callable[[], str]) -> None:
        self._conf = conf
        self._hypervisor_waits_for = waits_for

    def start(self) -> None:
        """Print the addresses and the next command on stdout."""
        vnc = self._conf.vnc
        endpoint = build_endpoint(self._conf)
        command = find_command() if endpoint == DEFAULT_ENDPOINT else f"{find_command()} --os-endpoint {endpoint}"
        lines = [f"The API is at          {endpoint}", f"Browsers open          {vnc.novncproxy_base_url}"]
        if vnc.xvpvncproxy_enabled:
            lines.append(f"Native viewers open    {vnc.xvpvncproxy_base_url}")
        if away := self._hypervisor_waits_for():
            lines.append(f"{away} does not answer; {find_command()} doctor says why")
        lines += ["Next, in another terminal:", f"    {command} list", f"    {command} get-vnc-console SERVER"]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()


class Bus(service.Service):
    """The first service to start, and so the last to stop: closes what all the others speak through."""

    name = "bus"

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    def stop(self) -> None:
        """Close the transport."""
        self._rpc.close()


def run(arguments: argparse.Namespace, debug: bool) -> int:
    """Run the services until a signal and return the exit status, as the daemons do (78: configuration).

    ``arguments`` are those of :class:`porthole_cli.standalone.Standalone`.
    """
    argv = [f"--config-file={path}" for path in arguments.config_file] + (["--debug"] if debug else [])

    def build(conf: cfg.ConfigOpts) -> Sequence[service.Service]:
        configure(conf, arguments)
        return build_services(conf)

    # What /etc/porthole says is for this node's daemons.
    return service.main(PROGRAM, build, argv, cfg.CONF, default_config_files=[], default_config_dirs=[])


def configure(conf: cfg.ConfigOpts, arguments: argparse.Namespace) -> None:
    """Bring the flags and standalone's own defaults into ``conf``, before any service has seen it.

    A flag wins over the configuration file, and the file over the defaults.

    :raises ConfigInvalid: when a flag's value does not do, or an address is not on loopback.
    """
    for flag, (group, option) in _FLAGS.items():
        value = getattr(arguments, flag)
        if value is not None:
            _override(conf, group, option, value, flag)
    if arguments.instances_file and not arguments.driver:
        conf.set_override("driver", "static", group="compute")
    conf.set_default("novncproxy_host", LOOPBACK, group="vnc")
    conf.set_default("xvpvncproxy_host", LOOPBACK, group="vnc")
    # Ctrl-C ends the open consoles too: whoever types it sits beside them.
    conf.set_default("graceful_shutdown_timeout", 0)
    for group, option in _ADDRESSES:
        if not _is_loopback(conf[group][option]):
            raise errors.ConfigInvalid(
                f"[{group}] {option}",
                f"standalone authenticates nobody and listens on loopback only, not on {conf[group][option]}",
            )
    vnc = conf.vnc
    novnc, xvp = (_format_host(host) for host in (vnc.novncproxy_host, vnc.xvpvncproxy_host))
    scheme = "https" if conf.cert else "http"
    conf.set_default("novncproxy_base_url", f"{scheme}://{novnc}:{vnc.novncproxy_port}/console.html", group="vnc")
    conf.set_default("xvpvncproxy_base_url", f"{scheme}://{xvp}:{vnc.xvpvncproxy_port}/console", group="vnc")


def build_services(conf: cfg.ConfigOpts) -> Sequence[service.Service]:
    """Return the services in the order they start in: each after those that it calls.

    :raises ConfigInvalid: when an option does not do.
    """
    rpc = Rpc(conf, conf.rpc.call_timeout / CALLS_PER_REQUEST, TRANSPORT_URL)
    compute = porthole_compute.main.build_standalone(conf, rpc)
    return [
        Bus(rpc),
        porthole_consoleauth.main.build_standalone(conf, rpc),
        compute,
        Listening(porthole_api.main.build_standalone(conf, rpc)),
        Listening(porthole_novncproxy.main.build_service(conf, rpc)),
        Examinee(conf, rpc, build_endpoint(conf)),
        Announcement(conf, compute.waits_for),
    ]


def build_endpoint(conf: cfg.ConfigOpts) -> str:
    """Return the URL of the API."""
    return f"http://{_format_host(conf.api.bind_host)}:{conf.api.bind_port}/v2.1"


def name_flag(exc: errors.ConfigInvalid) -> errors.ConfigInvalid:
    """Return the error of a port that is taken with the flag beside its option; any other error as it is."""
    if isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EADDRNOTAVAIL:
        return exc
    for flag in _PORT_FLAGS:
        group, option = _FLAGS[flag]
        if exc.option.startswith(f"[{group}]") and exc.option.endswith(option):
            return errors.ConfigInvalid(f"{_format_flag(flag)} ({exc.option})", exc.reason)
    return exc


def _format_flag(flag: str) -> str:
    return f"--{flag.replace('_', '-')}"


def _override(conf: cfg.ConfigOpts, group: str, option: str, value: object, flag: str) -> None:
    try:
        conf.set_override(option, value, group=group)
    except (ValueError, cfg.Error) as exc:
        raise errors.ConfigInvalid(f"{_format_flag(flag)} ([{group}] {option})", str(exc)) from exc


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name is looked up when it is bound, and may mean anything by then; this one never does.
        return host == "localhost"


def _format_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host

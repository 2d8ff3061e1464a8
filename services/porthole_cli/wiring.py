# SPDX-License-Identifier: Apache-2.0
"""The four services in one process: the wiring of ``porthole standalone``.

Why: the owner of one hypervisor wants its screens without a broker, a memcached and four units. The code that decides
or relays is the daemons' own. Two things differ: messages and tokens stay in memory, and all listeners are on loopback,
since no user logs in. Called by :mod:`porthole_cli.standalone`, which imports this module late, since it imports
all services.
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
from porthole_cli.doctor_socket import DoctorSocket
from porthole_cli.invocation import find_command
from porthole_common import errors, service
from porthole_common.rpc import Rpc

PROGRAM = "porthole standalone"
# oslo.messaging's driver within one process.
TRANSPORT_URL = "fake://"
LOOPBACK = "127.0.0.1"
# The options with the address of a listener.
_ADDRESSES = (
    ("api", "bind_host"),
    ("metrics", "bind_host"),
    ("vnc", "novncproxy_host"),
    ("vnc", "xvpvncproxy_host"),
)
# Flag of the command -> the option that it sets.
_FLAGS = {
    "libvirt_uri": ("libvirt", "connection_uri"),
    "driver": ("compute", "driver"),
    "instances_file": ("static", "instances_file"),
    "api_port": ("api", "bind_port"),
    "novnc_port": ("vnc", "novncproxy_port"),
    "xvp_port": ("vnc", "xvpvncproxy_port"),
}
ListenError = errors.ConfigInvalid | errors.AddressUnavailable
_PORT_FLAGS = ("api_port", "novnc_port", "xvp_port")


class FlaggedService:
    """A daemon's service; when its port is taken, the error names the flag that chooses another port."""

    def __init__(self, daemon: service.Service) -> None:
        self._service = daemon
        self.name = daemon.name
        self.stop_timeout_s = daemon.stop_timeout_s

    def start(self) -> None:
        """Start the service.

        :raises ConfigInvalid: when an option is wrong.
        :raises AddressUnavailable: when it cannot listen now.
        """
        try:
            self._service.start()
        except (errors.ConfigInvalid, errors.AddressUnavailable) as exc:
            raise name_flag(exc) from exc

    def waits_for(self) -> str:
        """Return what the service waits for, or ""."""
        return self._service.waits_for()

    def is_alive(self) -> bool:
        """Whether the service is alive."""
        return self._service.is_alive()

    def reload(self) -> None:
        """Let the service reread its configuration."""
        self._service.reload()

    def stop(self) -> None:
        """Stop the service."""
        self._service.stop()


class Announcement(service.Service):
    """The last service to start: prints where the other services listen, and what to type next.

    ``waits_for`` is compute's method: it names the hypervisor that does not answer yet.
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


class RpcCloser(service.Service):
    """The first service to start, and so the last to stop: closes the RPC that all other services share."""

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

    # The files in /etc/porthole are for the daemons of this node.
    return service.main(PROGRAM, build, argv, cfg.CONF, default_config_files=[], default_config_dirs=[])


def configure(conf: cfg.ConfigOpts, arguments: argparse.Namespace) -> None:
    """Put the flags and standalone's own defaults into ``conf``, before any service uses it.

    A flag wins over the configuration file, and the file over the defaults.

    :raises ConfigInvalid: when the value of a flag is wrong, or an address is not on loopback.
    """
    for flag, (group, option) in _FLAGS.items():
        value = getattr(arguments, flag)
        if value is not None:
            _override(conf, group, option, value, flag)
    if arguments.instances_file and not arguments.driver:
        conf.set_override("driver", "static", group="compute")
    conf.set_default("novncproxy_host", LOOPBACK, group="vnc")
    conf.set_default("xvpvncproxy_host", LOOPBACK, group="vnc")
    # Its tokens and sessions end with this process too.
    conf.set_default("runs_directory", "", group="static")
    # Ctrl-C ends the open consoles at once: they belong to the user who types it.
    conf.set_default("graceful_shutdown_timeout", 0)
    for group, option in _ADDRESSES:
        if not _is_loopback(conf[group][option]):
            raise errors.ConfigInvalid(
                f"[{group}] {option}",
                f"standalone has no authentication and listens only on loopback, not on {conf[group][option]}",
            )
    vnc = conf.vnc
    novnc, xvp = (_format_host(host) for host in (vnc.novncproxy_host, vnc.xvpvncproxy_host))
    scheme = "https" if conf.cert else "http"
    conf.set_default("novncproxy_base_url", f"{scheme}://{novnc}:{vnc.novncproxy_port}/console.html", group="vnc")
    conf.set_default("xvpvncproxy_base_url", f"{scheme}://{xvp}:{vnc.xvpvncproxy_port}/console", group="vnc")


def build_services(conf: cfg.ConfigOpts) -> Sequence[service.Service]:
    """Return the services in the order of their start: each after the services that it calls.

    :raises ConfigInvalid: when an option is wrong.
    """
    rpc = Rpc(conf, conf.rpc.call_timeout / CALLS_PER_REQUEST, TRANSPORT_URL)
    compute = porthole_compute.main.build_standalone(conf, rpc)
    return [
        RpcCloser(rpc),
        porthole_consoleauth.main.build_standalone(conf, rpc),
        compute,
        FlaggedService(porthole_api.main.build_standalone(conf, rpc)),
        FlaggedService(porthole_novncproxy.main.build_service(conf, rpc)),
        DoctorSocket(conf, rpc, build_endpoint(conf)),
        Announcement(conf, compute.waits_for),
    ]


def build_endpoint(conf: cfg.ConfigOpts) -> str:
    """Return the URL of the API."""
    return f"http://{_format_host(conf.api.bind_host)}:{conf.api.bind_port}/v2.1"


def name_flag(exc: ListenError) -> ListenError:
    """Add the flag to the error of a port that is taken; return any other error as it is."""
    if isinstance(exc.__cause__, OSError) and exc.__cause__.errno == errno.EADDRNOTAVAIL:
        return exc
    for flag in _PORT_FLAGS:
        group, option = _FLAGS[flag]
        if exc.option.startswith(f"[{group}]") and exc.option.endswith(option):
            return type(exc)(f"{_format_flag(flag)} ({exc.option})", exc.reason)
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
        # Any other name is resolved only when it is bound, and may then be any address.
        return host == "localhost"


def _format_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host

# SPDX-License-Identifier: Apache-2.0
"""One process of the proxy, from its configuration: its doors, the relay, and the subscription to revocations.

Why apart from :mod:`porthole_novncproxy.main`: the daemon may be this process alone or several of it
(:mod:`porthole_novncproxy.process.supervisor`), and ``porthole standalone`` puts it beside the other services.
"""

import contextlib
import ipaddress
import resource
import socket
import time
from collections.abc import Mapping

from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import errors, notifications
from porthole_common.conf.history import keeps_history
from porthole_common.context import build_daemon_context
from porthole_common.discovery import DiscoveryEndpoint, build_process_id
from porthole_common.forwarded import normalize_address
from porthole_common.listening import map_bind_error
from porthole_common.log import get_logger
from porthole_common.model import Target
from porthole_common.rpc import Rpc
from porthole_compute.rpcapi import ComputeAPI
from porthole_consoleauth.rpcapi import ConsoleAuthAPI
from porthole_novncproxy.admission.access import OriginPolicy
from porthole_novncproxy.admission.circuit_breaker import HostCircuitBreaker
from porthole_novncproxy.admission.dialler import Dialler
from porthole_novncproxy.admission.gate import Gate
from porthole_novncproxy.admission.host_questions import HostQuestions
from porthole_novncproxy.admission.limits import Limits, SessionCounter
from porthole_novncproxy.admission.token_failures import TokenFailures
from porthole_novncproxy.admission.vencrypt import build_security
from porthole_novncproxy.doors import DOORS, Door
from porthole_novncproxy.endpoint import ProxyEndpoint
from porthole_novncproxy.front.pages import Pages
from porthole_novncproxy.front.waiting import WaitingLimits
from porthole_novncproxy.measures import Measures
from porthole_novncproxy.server import ProxyServer
from porthole_novncproxy.sessions.endpoint import SessionsEndpoint
from porthole_novncproxy.sessions.history import SessionHistory, build_reporter
from porthole_novncproxy.sessions.recheck import Recheck
from porthole_novncproxy.sessions.registry import SessionRegistry
from porthole_novncproxy.sessions.schedule import Schedule
from porthole_novncproxy.tls_options import build_context
from porthole_relay.liveness import LivenessPolicy
from porthole_relay.loop import Loop
from porthole_relay.pipe import Watermarks

LOG = get_logger(__name__)
PROGRAM = "porthole-novncproxy"
# Connections the kernel keeps while the loop is busy.
_LISTEN_BACKLOG = 1024
# How often a host or a VNC server that did not answer is tried: the longest time that it is back and not used yet.
_SILENCE_PAUSE_S = 2.0
# How long a session whose VNC server has ended waits for the reason: a revocation's way from libvirt, on a busy site.
_CLOSE_GRACE_S = 5.0
# How long the end of requests in flight, sessions and the RPC may take beyond the drain.
END_S = 41.0


class NovncProxyService:
    """The daemon: its doors, and the subscription to revocations."""

    name = PROGRAM

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        rpc: Rpc,
        owns_rpc: bool,
        listeners: Mapping[Door, socket.socket] | None = None,
        number: int = 0,
    ) -> None:
        """Prepare every part that an error of the configuration may concern.

        ``owns_rpc`` says whether :meth:`stop` closes ``rpc`` too. ``listeners``: sockets that listen already, by door;
        without them :meth:`start` opens its own. ``number`` tells the processes behind one port apart.

        :raises ConfigInvalid: when the web root, the certificate or an option is wrong.
        """
        options = conf.novncproxy
        if options.relay_low_mark > options.relay_high_mark:
            raise errors.ConfigInvalid("[novncproxy] relay_low_mark", "it is above relay_high_mark")
        self._conf = conf
        self.stop_timeout_s = conf.graceful_shutdown_timeout + END_S
        self._rpc, self._owns_rpc = rpc, owns_rpc
        loop = Loop("relay")
        # Each process has its own name, the same at each start: the broker keeps a queue for every name.
        server = f"{conf.host}-{conf.vnc.novncproxy_port}-{number}"
        process = build_process_id()
        consoleauth = ConsoleAuthAPI(rpc)
        is_kept = keeps_history(conf, is_standalone=not owns_rpc)
        self._reporter = reporter = build_reporter(conf, consoleauth) if is_kept else None
        history = SessionHistory(reporter.report, server, process) if reporter else None
        self._sessions = SessionRegistry(
            loop,
            Watermarks(high_bytes=options.relay_high_mark, low_bytes=options.relay_low_mark),
            LivenessPolicy(
                ping_interval_s=options.ping_interval,
                idle_timeout_s=options.idle_timeout,
                max_session_time_s=options.max_session_time,
            ),
            enforce_session_timeout=conf.consoleauth.enforce_session_timeout,
            security_timeout_s=options.security_timeout,
            close_grace_s=_CLOSE_GRACE_S,
            force_shared=conf.console.force_shared,
            observer=history,
        )
        compute = ComputeAPI(rpc)
        self._gate = Gate(
            consoleauth=consoleauth,
            questions=HostQuestions(compute, conf.rpc.call_timeout),
            counter=SessionCounter(build_limits(conf)),
            circuit_breaker=HostCircuitBreaker(time.monotonic, _SILENCE_PAUSE_S),
            origins=_origins(conf),
            token_failures=TokenFailures(time.monotonic),
            dialler=Dialler(options.dial_timeout, options.handshake_threads, _SILENCE_PAUSE_S),
            security=build_security(conf),
            on_refused=history.on_refused if history else None,
        )
        self._server = ProxyServer(
            loop=loop,
            sessions=self._sessions,
            gate=self._gate,
            pages=Pages(conf.web, conf.console.frame_ancestors),
            tls_context=build_context(conf),
            ssl_only=conf.ssl_only,
            request_timeout_s=options.request_timeout,
            handshake_threads=options.handshake_threads,
            handshake_backlog=options.handshake_backlog,
            max_header_bytes=options.max_header_bytes,
            waiting_limits=build_waiting_limits(conf),
        )
        # It tells of itself at the start, so that an api knows it before it asks again.
        self._discovery = DiscoveryEndpoint(rpc, "novncproxy", conf.host, server, process)
        self._subscription = rpc.get_server(
            notifications.REVOCATIONS_TOPIC,
            server,
            [
                notifications.RevocationEndpoint(self._on_revoked),
                notifications.HostStartEndpoint(self._on_host_started),
                ProxyEndpoint(conf, find_spool_fill=lambda: reporter.fill if reporter else 0.0),
                SessionsEndpoint(self._sessions, server, history.on_ended if history else None),
                self._discovery,
            ],
        )
        self._recheck = Recheck(
            self._sessions, compute, Schedule(options.recheck_interval), self._subscription.get_subscription
        )
        self._measures = Measures(conf, loop, self._sessions.tally)
        self._listeners = dict(listeners or {})

    def start(self) -> None:
        """Open the doors, then subscribe.

        :raises ConfigInvalid: when an address cannot be listened on.
        """
        self._listeners = self._listeners or open_listeners(self._conf)
        self._subscription.start()
        self._discovery.report_presence(build_daemon_context())
        self._server.start(self._listeners)
        self._recheck.start()
        if self._reporter:
            self._reporter.start()
        self._measures.start()
        for door, listener in self._listeners.items():
            LOG.info("Listening", door=door.name, address=str(Target(*listener.getsockname()[:2])))

    def waits_for(self) -> str:
        """Return "": the start returns when the doors are open and revocations are subscribed to."""
        return ""

    def is_alive(self) -> bool:
        """Whether the event loop, which every console goes through, has turned since the last call."""
        return self._server.is_alive()

    def reload(self) -> None:
        """Reread limits, origins and certificates; open consoles go on. One error leaves all of them as they were."""
        try:
            self._conf.mutate_config_files()
            porthole_conf.check_values(self._conf)
            context = build_context(self._conf)
            security = build_security(self._conf)
        except (cfg.Error, ValueError, errors.ConfigInvalid) as exc:
            LOG.error("Configuration not reread", reason=exc)
            return
        self._server.set_tls_context(context)
        self._server.set_waiting_limits(build_waiting_limits(self._conf))
        self._gate.set_policy(build_limits(self._conf), _origins(self._conf), security)
        self._measures.read_certificates()
        LOG.info("Configuration reread")

    def _on_revoked(self, revocation: notifications.Revocation) -> None:
        self._sessions.close_instance(revocation.instance_uuid, revocation.compute_host, revocation.reason)

    def _on_host_started(self, host: str) -> None:
        self._recheck.on_host_started(host)

    def stop(self) -> None:
        """Close the doors, give open consoles ``graceful_shutdown_timeout`` to end, then end them."""
        self._server.stop(self._conf.graceful_shutdown_timeout)
        self._recheck.stop()
        if self._reporter:
            self._reporter.stop()
        self._measures.stop()
        self._subscription.stop()
        for listener in self._listeners.values():
            listener.close()
        if self._owns_rpc:
            self._rpc.close()


def open_listeners(conf: cfg.ConfigOpts, reuse_port: bool = False) -> dict[Door, socket.socket]:
    """Return a listening socket for each door that is open; with ``reuse_port`` a port may have several.

    :raises ConfigInvalid: when an address cannot be listened on.
    """
    listeners = {}
    with contextlib.ExitStack() as opened:
        for door in DOORS:
            options = conf[door.group]
            if door.switch is None or options[door.switch]:
                names = f"[{door.group}] {door.host_option}, {door.port_option}"
                host, port = options[door.host_option], options[door.port_option]
                listeners[door] = opened.enter_context(_listen(names, host, port, reuse_port))
        opened.pop_all()
    return listeners


def build_limits(conf: cfg.ConfigOpts) -> Limits:
    """Return the limits of open consoles that the options ask for."""
    options = conf.novncproxy
    return Limits(
        total=options.max_sessions,
        per_source=options.max_sessions_per_source,
        per_token=options.max_sessions_per_token,
        per_instance=options.max_sessions_per_instance,
        per_user=options.max_sessions_per_user or None,
    )


def build_waiting_limits(conf: cfg.ConfigOpts) -> WaitingLimits:
    """Return the limits of connections that are not admitted, by the options and the process's descriptors."""
    options = conf.novncproxy
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    # A process with few descriptors still needs most of them for its clients.
    mark = descriptors - min(options.reserved_descriptors, descriptors // 4)
    return WaitingLimits(
        total=options.max_waiting_connections,
        per_source=options.max_waiting_connections_per_source,
        descriptor_mark=None if descriptors == resource.RLIM_INFINITY else mark,
    )


def _origins(conf: cfg.ConfigOpts) -> OriginPolicy:
    return OriginPolicy(
        tuple(conf.console.allowed_origins), tuple(map(normalize_address, conf.console.trusted_proxies))
    )


def _listen(names: str, host: str, port: int, reuse_port: bool) -> socket.socket:
    """Return a listening socket; the IPv6 wildcard address takes IPv4 clients too. ``names``: of the options.

    :raises ConfigInvalid: when this process may never listen there.
    :raises AddressUnavailable: when the port is in use, or the address is not this machine's yet.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server(
            (host, port),
            family=family,
            backlog=_LISTEN_BACKLOG,
            reuse_port=reuse_port,
            dualstack_ipv6=_is_ipv6_wildcard(host),
        )
    except OSError as exc:
        raise map_bind_error(names, str(Target(host, port)), exc) from exc


def _is_ipv6_wildcard(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.version == 6 and address.is_unspecified

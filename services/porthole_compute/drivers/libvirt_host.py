# SPDX-License-Identifier: Apache-2.0
"""The instances of a libvirt daemon: the only module, beside ``libvirt_state``, that imports libvirt.

Why: a process has one read-only connection, which is kept alive, and made again when libvirt's daemon restarts or
hangs. Its lifecycle events arrive here. The state and the live XML of a domain are read anew for every console. No
libvirtError leaves this module. Made by :mod:`porthole_compute.main`.

Three kinds of threads call it. The thread of libvirt's event loop, one per process, runs the callbacks, so a callback
makes no call of libvirt. One thread of the driver connects. RPC threads call the methods that read. When a libvirt
daemon stops answering, its keepalive messages stop too; libvirt then breaks the connection, and with it every call
that waits.
"""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import libvirt
from oslo_config import cfg

from porthole_common import errors
from porthole_common.diagnosis import Display
from porthole_common.log import get_logger
from porthole_common.model import ConsoleType, Instance, InstanceState, RevocationReason, Target
from porthole_compute.domain_xml import Domain, DomainXmlInvalid, get_proxy_host, parse_domain
from porthole_compute.drivers import DriverEvents, get_offered_types, require_screen
from porthole_compute.drivers.libvirt_state import read_state
from porthole_compute.drivers.reconnect import Reconnector
from porthole_compute.drivers.running_domains import RunningDomains

LOG = get_logger(__name__)
# libvirt breaks the connection (COUNT + 1) * INTERVAL = 6 s after the last keepalive message: before the deadline of
# the RPC, so that its caller learns the reason.
KEEPALIVE_INTERVAL_S = 2
KEEPALIVE_COUNT = 2
# How long start and stop wait for a connection attempt. Opening one has no deadline of its own in libvirt.
ATTEMPT_TIMEOUT_S = 10.0
# How often libvirt's event loop sets the mark that it runs.
TICK_MS = 1000

# A domain that is undefined, or crashes with <on_crash>preserve</on_crash>, may keep its process.
_MAY_END_CONSOLES = {libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED}
# The id of a domain without a process (virDomainGetID).
_NO_PROCESS = -1

_event_loop_lock = threading.Lock()
_event_loop_started = False
_ticked = threading.Event()


def start_event_loop() -> None:
    """Run libvirt's event loop in a thread of its own; once per process, before the first connection.

    Source: virEventRegisterDefaultImpl. The loop has no end; the thread is a daemon.
    """
    global _event_loop_started  # noqa: PLW0603 (libvirt's loop is global to the process too)
    with _event_loop_lock:
        if _event_loop_started:
            return
        # Errors arrive as exceptions; libvirt would also print them to stderr.
        libvirt.registerErrorHandler(lambda *_: None, None)
        libvirt.virEventRegisterDefaultImpl()
        _ticked.set()
        libvirt.virEventAddTimeout(TICK_MS, lambda *_: _ticked.set(), None)
        threading.Thread(target=_run_event_loop, name="libvirt-events", daemon=True).start()
        _event_loop_started = True


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            LOG.exception("libvirt event loop failed")


class LibvirtDriver:
    """A :class:`porthole_compute.drivers.ComputeDriver` over one libvirt daemon."""

    def __init__(self, conf: cfg.ConfigOpts, open_connection: Callable[[str], Any] = libvirt.openReadOnly) -> None:
        """Prepare; ``open_connection`` takes the URI and returns a virConnect."""
        self._host = conf.host
        self._uri = conf.libvirt.connection_uri
        self._proxyclient_address = conf.vnc.server_proxyclient_address
        self._offered = get_offered_types(conf)
        self._open = open_connection
        self._link = Reconnector(
            f"libvirt at {self._uri}",
            self._open_watched,
            self._close,
            self._tell_changed,
            conf.libvirt.reconnect_interval,
        )
        self._events: DriverEvents | None = None
        self._running = RunningDomains()
        self._callback_ids: list[int] = []

    def start(self, events: DriverEvents) -> None:
        """Connect, and keep trying when that fails; return after the first attempt."""
        self._events = events
        start_event_loop()
        self._link.start(ATTEMPT_TIMEOUT_S)

    def waits_for(self) -> str:
        """Return the name of libvirt's daemon while there is no connection."""
        return "" if self._link.current is not None else f"libvirt at {self._uri}"

    def is_alive(self) -> bool:
        """Whether libvirt's event loop has run since the last question: without it, no event and no outage is seen."""
        ticked = _ticked.is_set()
        _ticked.clear()
        return ticked

    def reload(self) -> None:
        """Do nothing: the options of [libvirt] are read at start."""

    def stop(self) -> None:
        """Close the connection."""
        self._link.stop(ATTEMPT_TIMEOUT_S)

    def list_instances(self) -> list[Instance]:
        """Return every domain, without those that are undefined meanwhile.

        :raises HypervisorUnavailable: when libvirt does not answer.
        """
        with self._asking() as connection:
            domains = connection.listAllDomains(0)
        instances = (self._read_instance(domain) for domain in domains)
        return [instance for instance in instances if instance is not None]

    def get_vnc_target(self, instance_uuid: str, console_type: ConsoleType) -> Target:
        """Return the address in the live XML, by the rule of :func:`porthole_compute.domain_xml.get_proxy_host`.

        :raises InstanceNotFound: when libvirt has no such domain.
        :raises InstanceNotReady: when it is starting or migrating.
        :raises InstanceNotRunning: when its QEMU does not run.
        :raises ConsoleTypeUnavailable: when it has no VNC server on TCP, or this host does not offer the type.
        :raises HypervisorUnavailable: when libvirt does not answer.
        """
        with self._asking(instance_uuid) as connection:
            domain = connection.lookupByUUIDString(instance_uuid)
            state = read_state(domain)
            require_screen(instance_uuid, state, _has_process(domain))
            vnc = parse_domain(domain.XMLDesc(0)).vnc
        if vnc is None or console_type not in self._offered:
            raise errors.ConsoleTypeUnavailable(str(console_type))
        if vnc.port is None:
            # It ended between the two calls, or has just started and has no port yet.
            raise errors.InstanceNotReady(instance_uuid, str(state))
        return Target(get_proxy_host(vnc.listen, self._proxyclient_address), vnc.port)

    def list_displays(self, limit: int) -> list[Display]:
        """Return the VNC servers in the live XML of running domains, without those that end meanwhile.

        :raises HypervisorUnavailable: when libvirt does not answer.
        """
        with self._asking() as connection:
            domains = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        displays = (self._read_display(domain) for domain in domains)
        return list(itertools.islice((display for display in displays if display is not None), limit))

    def _read_display(self, domain: Any) -> Display | None:
        uuid = domain.UUIDString()
        try:
            with self._asking(uuid):
                details = _read_details(domain)
        except (errors.InstanceNotFound, errors.InstanceNotRunning):
            return None
        vnc = details.vnc
        if vnc is None or vnc.port is None:
            return None
        target = Target(get_proxy_host(vnc.listen, self._proxyclient_address), vnc.port)
        return Display(uuid, details.name, vnc.listen, target, vnc.share_policy)

    def _read_instance(self, domain: Any) -> Instance | None:
        uuid = domain.UUIDString()
        try:
            with self._asking(uuid):
                state = read_state(domain)
                details = _read_details(domain)
        except errors.InstanceNotFound:
            return None
        except errors.InstanceNotRunning:
            # It stopped between two calls; the event of that will make a new inventory.
            return None
        return Instance(
            uuid=uuid,
            name=details.name,
            state=state,
            project_id=details.project_id,
            user_id=details.user_id,
            console_types=self._offered if details.vnc else (),
            created_at=details.created_at,
        )

    @contextlib.contextmanager
    def _asking(self, instance_uuid: str = "") -> Iterator[Any]:
        """Give the connection to a block, and map the errors that libvirt raises in the block."""
        connection = self._link.current
        if connection is None:
            raise errors.HypervisorUnavailable(self._host)
        try:
            yield connection
        except DomainXmlInvalid as exc:
            LOG.error("Domain XML is not understood", instance=instance_uuid, reason=exc)
            raise errors.HypervisorUnavailable(self._host) from exc
        except libvirt.libvirtError as exc:
            if not _is_alive(connection):
                # The keepalive broke it. libvirt does not call back then if a call was under way.
                self._link.drop(connection)
            raise self._map(exc, instance_uuid) from exc

    def _map(self, exc: libvirt.libvirtError, instance_uuid: str) -> errors.PortholeError:
        code = exc.get_error_code()
        if code == libvirt.VIR_ERR_NO_DOMAIN:
            return errors.InstanceNotFound(instance_uuid)
        if code == libvirt.VIR_ERR_OPERATION_INVALID:
            # libvirt's answer to a call that needs a running domain.
            return errors.InstanceNotRunning(instance_uuid, str(InstanceState.SHUTOFF))
        LOG.warning("libvirt call failed", uri=self._uri, instance=instance_uuid or None, reason=exc)
        return errors.HypervisorUnavailable(self._host)

    def _open_watched(self, lost: threading.Event) -> Any:
        """Return a new connection whose events arrive here, and whose end sets ``lost``.

        :raises HypervisorUnavailable: when libvirt does not answer.
        """
        connection = None
        try:
            connection = self._open(self._uri)
            self._watch(connection, lost)
            active = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            for uuid in self._running.complete({domain.UUIDString(): domain.ID() for domain in active}):
                self._tell_ended(uuid, RevocationReason.ENDED)
        except libvirt.libvirtError as exc:
            if connection is not None:
                self._close(connection)
            raise errors.HypervisorUnavailable(self._host) from exc
        return connection

    def _watch(self, connection: Any, lost: threading.Event) -> None:
        self._running.begin_connection()
        connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        connection.registerCloseCallback(lambda *_: lost.set(), None)
        self._callback_ids = [
            connection.domainEventRegisterAny(None, event_id, callback, None)
            for event_id, callback in (
                (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
                (libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, lambda *_: self._tell_changed()),
            )
        ]

    def _on_lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object) -> None:
        uuid = domain.UUIDString()
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            self._running.add(uuid, domain.ID())
        is_stopped = event == libvirt.VIR_DOMAIN_EVENT_STOPPED
        if is_stopped:
            self._running.discard(uuid)
        if is_stopped or (event in _MAY_END_CONSOLES and not _has_process(domain)):
            moved = is_stopped and detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED
            self._tell_ended(uuid, RevocationReason.MOVED if moved else RevocationReason.ENDED)
        self._tell_changed()

    def _tell_changed(self) -> None:
        if self._events:
            self._events.inventory_changed()

    def _tell_ended(self, instance_uuid: str, reason: RevocationReason) -> None:
        LOG.info("Instance stopped or moved; its consoles end", instance=instance_uuid, reason=reason)
        if self._events:
            self._events.consoles_ended(instance_uuid, reason)

    def _close(self, connection: Any) -> None:
        # Each callback holds a reference to the connection, and the last reference holds the socket. On a lost
        # connection libvirt removes the callback and raises an error all the same.
        for callback_id in self._callback_ids:
            with contextlib.suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(callback_id)
        self._callback_ids = []
        with contextlib.suppress(libvirt.libvirtError):
            connection.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            connection.close()


def _is_alive(connection: Any) -> bool:
    """Whether the library takes the connection for alive (virConnectIsAlive); the daemon is not asked."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _has_process(domain: Any) -> bool:
    """Whether the domain had a process when libvirt made this object; libvirt is not asked again."""
    return bool(domain.ID() != _NO_PROCESS)


def _read_details(domain: Any) -> Domain:
    try:
        return parse_domain(domain.XMLDesc(0))
    except DomainXmlInvalid as exc:
        # One odd domain must not hide the others; without an owner only administrators see it.
        LOG.warning("Domain XML is not understood", instance=domain.UUIDString(), reason=exc)
        return Domain(domain.name(), None, None, None, None)

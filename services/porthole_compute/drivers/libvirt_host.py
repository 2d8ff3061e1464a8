# SPDX-License-Identifier: Apache-2.0
"""The instances of a libvirt daemon: the only module that imports libvirt.

Why: one read-only connection per process, kept alive and made again when libvirt's daemon restarts or hangs; its
lifecycle events; the state and the live XML of its domains, asked anew for every console. Every libvirtError
ends here. Made by :mod:`porthole_compute.main`.

Three sorts of threads meet here: libvirt's event loop (one per process) runs the callbacks, which therefore ask
libvirt nothing and only pass on; one thread of the driver connects; RPC threads ask. A libvirt daemon that stops
answering is found out by keepalive messages, which break the connection and with it every call that waits.
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
from porthole_compute.drivers.reconnect import Reconnector

LOG = get_logger(__name__)
# The connection is broken (COUNT + 1) * INTERVAL = 6 s after the last sign of life: sooner than the RPC's caller
# gives up, so that it is told the reason.
KEEPALIVE_INTERVAL_S = 2
KEEPALIVE_COUNT = 2
# How long start and stop wait for a connection attempt. Opening one has no deadline of its own in libvirt.
ATTEMPT_TIMEOUT_S = 10.0
# How often libvirt's event loop shows that it runs.
TICK_MS = 1000

_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: InstanceState.BUILDING,
    libvirt.VIR_DOMAIN_RUNNING: InstanceState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: InstanceState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: InstanceState.PAUSED,
    # Its operating system has ended and QEMU is about to.
    libvirt.VIR_DOMAIN_SHUTDOWN: InstanceState.SHUTOFF,
    libvirt.VIR_DOMAIN_SHUTOFF: InstanceState.SHUTOFF,
    libvirt.VIR_DOMAIN_CRASHED: InstanceState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: InstanceState.SUSPENDED,
}
_MIGRATING = {
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION),
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY),
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED),
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED),
}
_MIGRATION_JOBS = {libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT}
_CONSOLES_END = {libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED}

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
        # Errors arrive as exceptions; libvirt would print them to stderr as well.
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
            LOG.exception("libvirt's event loop met an error")


def read_state(domain: Any) -> InstanceState:
    """Return what a virDomain is doing.

    :raises libvirtError: when libvirt does not answer.
    """
    state, reason = domain.state()
    if (state, reason) in _MIGRATING:
        return InstanceState.MIGRATING
    if state == libvirt.VIR_DOMAIN_PAUSED and _is_before_its_start(domain, reason):
        return InstanceState.BUILDING
    if state == libvirt.VIR_DOMAIN_RUNNING and _is_being_migrated(domain):
        return InstanceState.MIGRATING
    return _STATES.get(state, InstanceState.UNKNOWN)


def _is_before_its_start(domain: Any, reason: int) -> bool:
    if reason == libvirt.VIR_DOMAIN_PAUSED_STARTING_UP:
        return True
    # A domain that is created paused and one that a user paused bear the same reason. What tells them apart is
    # whether a virtual processor ever ran.
    return reason == libvirt.VIR_DOMAIN_PAUSED_USER and all(cpu[2] == 0 for cpu in domain.vcpus()[0])


def _is_being_migrated(domain: Any) -> bool:
    try:
        # jobStats waits up to 30 s for a monitor that is stuck in another call; controlInfo waits for nothing.
        if domain.controlInfo()[0] in {libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, libvirt.VIR_DOMAIN_CONTROL_ERROR}:
            return False
        return domain.jobStats().get("operation") in _MIGRATION_JOBS
    except libvirt.libvirtError as exc:
        if exc.get_error_code() in {libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_UNSUPPORTED}:
            # So says the host where a domain is arriving, as long as it is: only the one that it leaves has numbers.
            return True
        if exc.get_error_code() in {libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_NO_SUPPORT}:
            return False
        raise


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
        # The domains that run, by UUID, with the id that libvirt gave this run of theirs; and those that ran when
        # the connection was lost. Events come in while the list of a new connection is still under way.
        self._running: dict[str, int] = {}
        self._ran_before: dict[str, int] = {}
        self._lock = threading.Lock()
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
        """Whether libvirt's event loop has come round: without it no event arrives, and no outage is found out."""
        ticked = _ticked.is_set()
        _ticked.clear()
        return ticked

    def reload(self) -> None:
        """Do nothing: the options of [libvirt] are read at start."""

    def stop(self) -> None:
        """Close the connection."""
        self._link.stop(ATTEMPT_TIMEOUT_S)

    def list_instances(self) -> list[Instance]:
        """Return every domain; one that is undefined meanwhile is left out.

        :raises HypervisorUnavailable: when libvirt does not answer.
        """
        with self._asking() as connection:
            domains = connection.listAllDomains(0)
        instances = (self._read_instance(domain) for domain in domains)
        return [instance for instance in instances if instance is not None]

    def get_vnc_target(self, instance_uuid: str, console_type: ConsoleType) -> Target:
        """Return the address in the live XML, by the rule of :func:`porthole_compute.domain_xml.get_proxy_host`.

        :raises InstanceNotFound: when libvirt has no such domain.
        :raises InstanceNotReady: when it is starting, migrating, or was created paused and never ran.
        :raises InstanceNotRunning: when it is stopped or crashed.
        :raises ConsoleTypeUnavailable: when it has no VNC server on TCP, or this host does not offer the type.
        :raises HypervisorUnavailable: when libvirt does not answer.
        """
        with self._asking(instance_uuid) as connection:
            domain = connection.lookupByUUIDString(instance_uuid)
            state = read_state(domain)
            require_screen(instance_uuid, state)
            vnc = parse_domain(domain.XMLDesc(0)).vnc
        if vnc is None or console_type not in self._offered:
            raise errors.ConsoleTypeUnavailable(str(console_type))
        if vnc.port is None:
            # It ended between the two questions, or is so young that it has no port.
            raise errors.InstanceNotReady(instance_uuid, str(state))
        return Target(get_proxy_host(vnc.listen, self._proxyclient_address), vnc.port)

    def list_displays(self, limit: int) -> list[Display]:
        """Return where the VNC servers of running domains listen by their live XML; one that ends meanwhile is not.

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
            # It stopped between two questions, and an event that makes a new inventory is on its way.
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
        """Give the connection to a block, and map what libvirt raises in it."""
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
                # The keepalive broke it. libvirt does not always call back then: not when a call was under way.
                self._link.drop(connection)
            raise self._map(exc, instance_uuid) from exc

    def _map(self, exc: libvirt.libvirtError, instance_uuid: str) -> errors.PortholeError:
        code = exc.get_error_code()
        if code == libvirt.VIR_ERR_NO_DOMAIN:
            return errors.InstanceNotFound(instance_uuid)
        if code == libvirt.VIR_ERR_OPERATION_INVALID:
            # Said of a question that only a running domain can be asked.
            return errors.InstanceNotRunning(instance_uuid, str(InstanceState.SHUTOFF))
        LOG.warning("libvirt refused", uri=self._uri, instance=instance_uuid or None, reason=exc)
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
            self._compare_running({domain.UUIDString(): domain.ID() for domain in active})
        except libvirt.libvirtError as exc:
            if connection is not None:
                self._close(connection)
            raise errors.HypervisorUnavailable(self._host) from exc
        return connection

    def _watch(self, connection: Any, lost: threading.Event) -> None:
        with self._lock:
            self._ran_before.update(self._running)
            self._running = {}
        connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        connection.registerCloseCallback(lambda *_: lost.set(), None)
        self._callback_ids = [
            connection.domainEventRegisterAny(None, event_id, callback, None)
            for event_id, callback in (
                (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
                (libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE, lambda *_: self._tell_changed()),
            )
        ]

    def _compare_running(self, running: dict[str, int]) -> None:
        """Take over the list of a new connection; end the consoles of what stopped while there was none."""
        with self._lock:
            # An event of the new connection is younger than its list.
            self._running = {**running, **self._running}
            ended = [uuid for uuid, run in self._ran_before.items() if self._running.get(uuid) != run]
            self._ran_before = {}
        for uuid in ended:
            self._tell_ended(uuid, RevocationReason.ENDED)

    def _on_lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object) -> None:
        uuid = domain.UUIDString()
        with self._lock:
            if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
                self._running[uuid] = domain.ID()
            elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
                self._running.pop(uuid, None)
        if event in _CONSOLES_END:
            moved = (event, detail) == (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED)
            self._tell_ended(uuid, RevocationReason.MOVED if moved else RevocationReason.ENDED)
        self._tell_changed()

    def _tell_changed(self) -> None:
        if self._events:
            self._events.inventory_changed()

    def _tell_ended(self, instance_uuid: str, reason: RevocationReason) -> None:
        LOG.info("Instance runs here no more: its consoles end", instance=instance_uuid, reason=reason)
        if self._events:
            self._events.consoles_ended(instance_uuid, reason)

    def _close(self, connection: Any) -> None:
        # Each callback holds a reference, and the last reference the socket. A connection that is lost takes the
        # callback off and complains all the same.
        for callback_id in self._callback_ids:
            with contextlib.suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(callback_id)
        self._callback_ids = []
        with contextlib.suppress(libvirt.libvirtError):
            connection.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            connection.close()


def _is_alive(connection: Any) -> bool:
    """Ask the library, which knows without asking the daemon (virConnectIsAlive)."""
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _read_details(domain: Any) -> Domain:
    try:
        return parse_domain(domain.XMLDesc(0))
    except DomainXmlInvalid as exc:
        # One odd domain must not hide the others; without an owner only administrators see it.
        LOG.warning("Domain XML is not understood", instance=domain.UUIDString(), reason=exc)
        return Domain(domain.name(), None, None, None, None)

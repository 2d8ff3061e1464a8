# SPDX-License-Identifier: Apache-2.0
"""The instances of a libvirt daemon: its domains, their screens, and what happens to them.

Why: a process has one read-only connection for lifecycle events, which is kept alive, and made again when libvirt's
daemon restarts or hangs. The state and the live XML of a domain are read anew for every console. No
libvirtError leaves this module. Made by :mod:`porthole_compute.main`.

Three kinds of threads call it. The thread of libvirt's event loop, one per process, runs the callbacks, so a callback
makes no call of libvirt. One thread of the driver connects. RPC threads call the methods that read, and each question
is asked in a thread of :mod:`porthole_compute.drivers.questions`.

Two things may leave a question open. When a libvirt daemon stops answering, its keepalive messages stop too; libvirt
then breaks the connection, and with it every call that waits. When the daemon holds the lock of one domain, the
keepalives go on. Then the questions about that domain have no answer, and neither has a list of domains. So each domain
is asked about by its UUID, and while the list has no answer the domains are those of the last list and of the events
since.
"""

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import libvirt
from oslo_config import cfg

from porthole_common import errors
from porthole_common.diagnosis import Display
from porthole_common.log import get_logger
from porthole_common.model import ConsoleType, Instance, InstanceState, Owner, RevocationReason, Target, is_uuid
from porthole_compute.domain_xml import Domain, DomainXmlInvalid, get_proxy_host, parse_domain
from porthole_compute.drivers import DriverEvents, VncServer, get_offered_types, require_screen, require_vnc_type
from porthole_compute.drivers.libvirt_connections import (
    ThreadConnections,
    has_event_loop_run,
    is_connection_alive,
    open_kept_alive,
    start_event_loop,
)
from porthole_compute.drivers.libvirt_run import build_runs
from porthole_compute.drivers.libvirt_state import has_process, read_details, read_instance, read_state
from porthole_compute.drivers.questions import NoAnswer, Questions
from porthole_compute.drivers.reconnect import Reconnector
from porthole_compute.drivers.running_domains import RunningDomains

LOG = get_logger(__name__)
Result = TypeVar("Result")
# One wait for a turn and one for an answer end before the deadline of the RPC.
ANSWER_TIMEOUT_S = 4.0
# As many connections are opened. libvirtd has 20 workers (max_workers), and each question about a held guest keeps one.
MAX_QUESTIONS = 8
# How long start and stop wait for a connection attempt. Opening one has no deadline of its own in libvirt.
ATTEMPT_TIMEOUT_S = 10.0

# A domain that is undefined, or crashes with <on_crash>preserve</on_crash>, may keep its process.
_MAY_END_CONSOLES = {libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED}


class LibvirtDriver:
    """A :class:`porthole_compute.drivers.ComputeDriver` over one libvirt daemon."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        open_connection: Callable[[str], Any] = libvirt.openReadOnly,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        """Prepare; ``open_connection`` takes the URI and returns a virConnect."""
        self._host = conf.host
        self._uri = conf.libvirt.connection_uri
        self._proxyclient_address = conf.vnc.server_proxyclient_address
        self._offered = get_offered_types(conf)
        self._open = functools.partial(open_kept_alive, open_connection, self._uri)
        self._link = Reconnector(
            f"libvirt at {self._uri}",
            self._open_watched,
            self._close,
            self._tell_changed,
            conf.libvirt.reconnect_interval,
        )
        self._events: DriverEvents | None = None
        self._running = RunningDomains()
        self._runs = build_runs(self._uri)
        self._questions = Questions(MAX_QUESTIONS, answer_timeout_s, self._tell_changed)
        # The domains of the last list and of the events since, with what was last read of them.
        self._known: dict[str, Instance | None] = {}
        self._is_listed = False
        # The number of the connection for events; connections that were opened before belong to a daemon that is gone.
        self._connections = 0
        self._asking = ThreadConnections(self._open)
        self._callback_ids: list[int] = []

    def start(self, events: DriverEvents) -> None:
        """Connect, and keep trying when that fails; return after the first attempt."""
        self._events = events
        start_event_loop()
        self._link.start(ATTEMPT_TIMEOUT_S)

    def waits_for(self) -> str:
        """Return the name of libvirt's daemon while there is no connection, or the questions that it leaves open."""
        if self._link.current is None:
            return f"libvirt at {self._uri}"
        if overdue := self._questions.get_overdue():
            return f"the answer of libvirt at {self._uri} about {', '.join(self.list_overdue() or overdue)}"
        return ""

    def is_alive(self) -> bool:
        """Whether libvirt's event loop has run since the last health check: it sees events and outages."""
        return has_event_loop_run()

    def reload(self) -> None:
        """Do nothing: the options of [libvirt] are read at start."""

    def stop(self) -> None:
        """Close the connection."""
        self._link.stop(ATTEMPT_TIMEOUT_S)
        self._questions.close()
        self._asking.close()

    def list_instances(self) -> list[Instance]:
        """Return every domain, without those that are undefined meanwhile.

        :raises HypervisorUnavailable: when libvirt does not answer, or has not given a list of its domains yet.
        """
        instances = (self._read_instance(uuid) for uuid in self._list_uuids())
        return [instance for instance in instances if instance is not None]

    def get_vnc_server(self, instance_uuid: str, console_type: ConsoleType) -> VncServer:
        """Return what the live XML says, with the address by the rule of ``domain_xml.get_proxy_host``.

        :raises InstanceNotFound: when libvirt has no such domain.
        :raises InstanceNotReady: when it is starting or migrating.
        :raises InstanceNotRunning: when its QEMU does not run.
        :raises ConsoleTypeUnavailable: when it has no VNC server on TCP, or this host does not offer the type.
        :raises HypervisorUnavailable: when libvirt does not answer, at all or about this domain.
        """

        def read_running(connection: Any) -> tuple[InstanceState, Domain, str]:
            domain = connection.lookupByUUIDString(instance_uuid)
            state = read_state(domain)
            require_screen(instance_uuid, state, has_process(domain))
            details = parse_domain(domain.XMLDesc(0))
            # Read last: a domain that started again meanwhile is another run than its id says.
            return state, details, self._build_run(domain)

        require_vnc_type(console_type, self._offered)
        state, details, run = self._ask(instance_uuid, read_running)
        vnc = details.vnc
        if vnc is None:
            raise errors.ConsoleTypeUnavailable(str(console_type))
        if vnc.port is None:
            # It ended between the two calls, or has just started and has no port yet.
            raise errors.InstanceNotReady(instance_uuid, str(state))
        target = Target(get_proxy_host(vnc.listen, self._proxyclient_address), vnc.port)
        return VncServer(target, run, Owner(details.project_id, details.user_id))

    def list_displays(self, limit: int) -> list[Display]:
        """Return the VNC servers in the live XML of running domains, without those that end meanwhile.

        :raises HypervisorUnavailable: when libvirt does not answer.
        """
        displays = (self._read_display(uuid) for uuid in self._list_uuids())
        return list(itertools.islice((display for display in displays if display is not None), limit))

    def list_overdue(self) -> list[str]:
        """Return the UUIDs of domains whose lock libvirt holds."""
        return [subject for subject in self._questions.get_overdue() if is_uuid(subject)]

    def _list_uuids(self) -> list[str]:
        """Return the domains of libvirt's list; while it has no answer, those that are known."""
        listed: list[str] = []
        if not (self._is_listed and self._questions.get_overdue()):
            try:
                listed = self._ask(
                    self._list_name, lambda connection: [domain.UUIDString() for domain in connection.listAllDomains(0)]
                )
            except errors.HypervisorUnavailable:
                if not (self._is_listed and self._is_connected()):
                    raise
            else:
                self._is_listed = True
        for uuid in listed:
            self._known.setdefault(uuid, None)
        return list(dict.fromkeys([*listed, *self._known]))

    def _is_connected(self) -> bool:
        return self._link.current is not None and is_connection_alive(self._link.current)

    def _read_display(self, uuid: str) -> Display | None:
        def read_running(connection: Any) -> Domain | None:
            domain = connection.lookupByUUIDString(uuid)
            return read_details(domain) if has_process(domain) else None

        try:
            details = self._ask(uuid, read_running)
        except (errors.Conflict, errors.NotFound):
            return None
        except errors.HypervisorUnavailable:
            if not self._is_connected():
                raise
            return None
        vnc = details.vnc if details else None
        if details is None or vnc is None or vnc.port is None:
            return None
        target = Target(get_proxy_host(vnc.listen, self._proxyclient_address), vnc.port)
        return Display(uuid, details.name, vnc.listen, target, vnc.share_policy)

    def _read_instance(self, uuid: str) -> Instance | None:
        """Return the domain; None when it is gone. An error about it is its own: it stays, in state UNKNOWN."""
        try:
            instance = self._ask(
                uuid, lambda connection: read_instance(connection.lookupByUUIDString(uuid), self._offered)
            )
        except errors.InstanceNotFound:
            self._known.pop(uuid, None)
            return None
        except (errors.InstanceNotRunning, errors.HypervisorUnavailable):
            if not self._is_connected():
                raise errors.HypervisorUnavailable(self._host) from None
            return replace(
                self._known.get(uuid) or Instance(uuid, uuid, InstanceState.UNKNOWN), state=InstanceState.UNKNOWN
            )
        self._known[uuid] = instance
        return instance

    def _ask(self, subject: str, work: Callable[[Any], Result]) -> Result:
        """Return the result of ``work(connection)`` about a domain's UUID, or the list; map the errors of libvirt."""
        watched = self._link.current
        if watched is None:
            raise errors.HypervisorUnavailable(self._host)
        instance_uuid = subject if is_uuid(subject) else ""
        try:
            return self._questions.ask(subject, lambda: work(self._asking.get(self._connections)))
        except NoAnswer as exc:
            raise errors.HypervisorUnavailable(self._host) from exc
        except DomainXmlInvalid as exc:
            LOG.error("Domain XML not parsed", instance=instance_uuid, reason=exc)
            raise errors.HypervisorUnavailable(self._host) from exc
        except libvirt.libvirtError as exc:
            if not is_connection_alive(watched):
                # libvirt may break it without calling back.
                self._link.drop(watched)
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
            connection = self._open()
            self._watch(connection, lost)
            self._begin_list(lost)
        except (libvirt.libvirtError, NoAnswer) as exc:
            if connection is not None:
                self._close(connection)
            raise errors.HypervisorUnavailable(self._host) from exc
        return connection

    def _begin_list(self, lost: threading.Event) -> None:
        try:
            self._questions.ask(self._list_name, lambda: self._list_running(lost))
        except NoAnswer:
            # A list that is overdue does its work when it arrives, and other domains are served meanwhile.
            if self._list_name not in self._questions.get_overdue():
                raise

    def _list_running(self, lost: threading.Event) -> None:
        try:
            active = self._asking.get(self._connections).listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        except libvirt.libvirtError:
            lost.set()
            raise
        if lost.is_set():
            return
        for uuid in self._running.complete({domain.UUIDString(): self._build_run(domain) for domain in active}):
            self._tell_ended(uuid, RevocationReason.ENDED)

    @property
    def _list_name(self) -> str:
        """The subject of the list; each connection has its own, since the old one's may be open when it is lost."""
        return f"the list of domains ({self._connections})"

    def _watch(self, connection: Any, lost: threading.Event) -> None:
        self._connections += 1
        self._running.begin_connection()
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
        if event != libvirt.VIR_DOMAIN_EVENT_UNDEFINED:
            self._known.setdefault(uuid, None)
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            self._running.add(uuid, self._build_run(domain))
        is_stopped = event == libvirt.VIR_DOMAIN_EVENT_STOPPED
        if is_stopped:
            self._running.discard(uuid)
        if is_stopped or (event in _MAY_END_CONSOLES and not has_process(domain)):
            moved = is_stopped and detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED
            self._tell_ended(uuid, RevocationReason.MOVED if moved else RevocationReason.ENDED)
        self._tell_changed()

    def _build_run(self, domain: Any) -> str:
        return self._runs.build(domain.name(), domain.ID())

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

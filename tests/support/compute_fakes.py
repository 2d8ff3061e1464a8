# SPDX-License-Identifier: Apache-2.0
"""Fakes at compute's ports: a driver, the listener of its events, and a libvirt connection that is a dictionary.

Why: the endpoint's decisions and the libvirt driver's mapping are tested for every state a domain can be in,
which no real hypervisor would show on demand. Called by the unit tests of porthole_compute.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any

import libvirt
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.diagnosis import Display
from porthole_common.model import ConsoleType, Instance, Owner, RevocationReason, Target
from porthole_compute.drivers import DriverEvents, VncServer

TIMEOUT_S = 10
UUID = "c0ffee00-0000-4000-8000-000000000001"
OTHER_UUID = "c0ffee00-0000-4000-8000-000000000002"
# Of a domain that arrives, and of one that was restored or migrated while paused, until it is resumed.
PAUSED_BY_MIGRATION = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)


def make_conf(**groups: dict[str, Any]) -> cfg.ConfigOpts:
    """Return a configuration with the defaults, host ``node1``, and ``groups`` (``vnc={"enabled": False}``)."""
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "test", [], default_config_files=[], default_config_dirs=[])
    conf.set_override("host", "node1")
    for group, values in groups.items():
        for name, value in values.items():
            conf.set_override(name, value, group=None if group == "DEFAULT" else group)
    return conf


class RecordedEvents:
    """A DriverEvents that keeps what it is told; ``wait_*`` return the next of it, within a deadline."""

    def __init__(self) -> None:
        self.changes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.reasons: dict[str, RevocationReason] = {}

    def inventory_changed(self) -> None:
        self.changes.put(None)

    def consoles_ended(self, instance_uuid: str, reason: RevocationReason) -> None:
        self.reasons[instance_uuid] = reason
        self.ended.put(instance_uuid)

    def wait_changed(self) -> None:
        self.changes.get(timeout=TIMEOUT_S)

    def wait_ended(self) -> str:
        return self.ended.get(timeout=TIMEOUT_S)

    def take_ended(self) -> list[str]:
        """Return what has come in until now."""
        taken = []
        while not self.ended.empty():
            taken.append(self.ended.get_nowait())
        return taken


class FakeDriver:
    """A ComputeDriver; ``target`` and ``instances`` are what it answers, or the error that it raises.

    ``targets``: of single instances, by UUID.
    """

    def __init__(self) -> None:
        self.target: Target | errors.PortholeError = Target("192.0.2.1", 5900)
        self.targets: dict[str, Target | errors.PortholeError] = {}
        self.run: str | None = "run-1"
        self.owner = Owner("project-1", "user-1")
        self.instances: list[Instance] | errors.PortholeError = []
        self.displays: list[Display] | errors.PortholeError = []
        self.asked: list[tuple[str, ConsoleType]] = []
        self.calls: list[str] = []
        self.events: DriverEvents | None = None
        self.awaited = ""
        self.overdue: list[str] = []
        self.alive = True

    def start(self, events: DriverEvents) -> None:
        self.calls.append("start")
        self.events = events

    def waits_for(self) -> str:
        return self.awaited

    def is_alive(self) -> bool:
        return self.alive

    def reload(self) -> None:
        self.calls.append("reload")

    def stop(self) -> None:
        self.calls.append("stop")

    def list_instances(self) -> list[Instance]:
        if isinstance(self.instances, Exception):
            raise self.instances
        return self.instances

    def get_vnc_server(self, instance_uuid: str, console_type: ConsoleType) -> VncServer:
        self.asked.append((instance_uuid, console_type))
        target = self.targets.get(instance_uuid, self.target)
        if isinstance(target, Exception):
            raise target
        return VncServer(target, self.run, self.owner)

    def list_overdue(self) -> list[str]:
        return self.overdue

    def list_displays(self, limit: int) -> list[Display]:
        if isinstance(self.displays, Exception):
            raise self.displays
        return self.displays[:limit]


def build_libvirt_error(code: int) -> libvirt.libvirtError:
    """Return a libvirtError with ``code`` (VIR_ERR_...)."""
    error = libvirt.libvirtError("made for a test")
    error.err = (code, 0, "made for a test", 2, None, None, None, 0, 0)
    return error


class FakeDomain:
    """A virDomain."""

    def __init__(self, uuid: str, xml: str, state: tuple[int, int] = (libvirt.VIR_DOMAIN_RUNNING, 1)) -> None:
        self.uuid = uuid
        self.xml = xml
        self.current = state
        self.run_id = 1
        # Whether its process is kept after a crash (<on_crash>preserve</on_crash>).
        self.preserved = False
        self.control = libvirt.VIR_DOMAIN_CONTROL_OK
        self.job_operation: int | None = None
        # While it is not set, libvirt holds the domain's lock: a question about it, or a list, has no answer.
        self.unlocked = threading.Event()
        self.unlocked.set()
        self.error: libvirt.libvirtError | None = None
        self.job_error: libvirt.libvirtError | None = None

    def UUIDString(self) -> str:  # noqa: N802
        return self.uuid

    def has_process(self) -> bool:
        ended = self.current[0] == libvirt.VIR_DOMAIN_SHUTOFF
        return not ended and (self.preserved or self.current[0] != libvirt.VIR_DOMAIN_CRASHED)

    def ID(self) -> int:  # noqa: N802
        return self.run_id if self.has_process() else -1

    def name(self) -> str:
        return "domain-name"

    def state(self) -> list[int]:
        if self.error:
            raise self.error
        return list(self.current)

    def controlInfo(self) -> list[int]:  # noqa: N802
        return [self.control, 0, 0]

    def jobStats(self) -> dict[str, int]:  # noqa: N802
        if self.job_error:
            raise self.job_error
        stuck = {libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, libvirt.VIR_DOMAIN_CONTROL_ERROR}
        assert self.control not in stuck, "asked a monitor that is stuck"
        return {"type": 0} if self.job_operation is None else {"type": 2, "operation": self.job_operation}

    def XMLDesc(self, flags: int) -> str:  # noqa: N802
        return self.xml


class FakeConnection:
    """A virConnect over ``domains`` (by UUID).

    One that nobody watches, on which questions are asked, has the trouble of ``get_watched()``, that for events.
    """

    def __init__(
        self, domains: dict[str, FakeDomain], get_watched: Callable[[], "FakeConnection"] | None = None
    ) -> None:
        self.domains = domains
        self.is_watched = False
        self._get_watched = get_watched
        self.error: libvirt.libvirtError | None = None
        self.keepalive: tuple[int, int] | None = None
        self.callbacks: dict[int, Callable[..., None]] = {}
        self.on_close: Callable[..., None] | None = None
        self.closed = False
        self.alive = True
        # How often it was asked for a list or a domain.
        self.calls = 0

    def setKeepAlive(self, interval_s: int, count: int) -> int:  # noqa: N802
        self.keepalive = interval_s, count
        return 0

    def _find_trouble(self) -> "FakeConnection":
        return self if self.is_watched or self._get_watched is None else self._get_watched()

    def isAlive(self) -> bool:  # noqa: N802
        return self._find_trouble().alive

    def registerCloseCallback(self, callback: Callable[..., None], opaque: object) -> None:  # noqa: N802
        self.on_close = callback
        self.is_watched = True

    def unregisterCloseCallback(self) -> None:  # noqa: N802
        self.on_close = None

    def domainEventRegisterAny(  # noqa: N802
        self, domain: object, event_id: int, callback: Callable[..., None], opaque: object
    ) -> int:
        self.callbacks[event_id] = callback
        return event_id

    def domainEventDeregisterAny(self, callback_id: int) -> None:  # noqa: N802
        del self.callbacks[callback_id]

    def listAllDomains(self, flags: int) -> list[FakeDomain]:  # noqa: N802
        if error := self._find_trouble().error:
            raise error
        self.calls += 1
        for domain in list(self.domains.values()):
            assert domain.unlocked.wait(TIMEOUT_S)
        only_active = bool(flags & libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        return [each for each in self.domains.values() if not only_active or each.has_process()]

    def lookupByUUIDString(self, uuid: str) -> FakeDomain:  # noqa: N802
        if error := self._find_trouble().error:
            raise error
        if uuid not in self.domains:
            raise build_libvirt_error(libvirt.VIR_ERR_NO_DOMAIN)
        self.calls += 1
        assert self.domains[uuid].unlocked.wait(TIMEOUT_S)
        return self.domains[uuid]

    def close(self) -> int:
        self.closed = True
        return 0

    def send_lifecycle(self, uuid: str, event: int, detail: int = 0) -> None:
        """Deliver one lifecycle event as libvirt's event loop does."""
        domain = self.domains.get(uuid) or FakeDomain(uuid, "")
        self.callbacks[libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE](self, domain, event, detail, None)

    def lose(self) -> None:
        """Say that the connection is gone, as the close callback does."""
        assert self.on_close, "nobody listens"
        self.on_close(self, libvirt.VIR_CONNECT_CLOSE_REASON_EOF, None)

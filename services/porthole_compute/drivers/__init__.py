# SPDX-License-Identifier: Apache-2.0
"""The port to the instances of this host.

Why: instances come from libvirt, from a YAML file, or from a fake in a test. The endpoint, the inventory and the
revocations know only this protocol. A driver is made by :mod:`porthole_compute.main`, and no foreign error leaves it.

* :mod:`libvirt_host` is the driver of libvirt: :mod:`libvirt_state` reads the state of a domain, :mod:`questions` gives
  each question a deadline, :mod:`libvirt_connections` and :mod:`reconnect` keep the connections,
  :mod:`running_domains` finds the domains that ended while there was none, and :mod:`libvirt_run` names each run.
* :mod:`static` is the driver of the file; :mod:`static_runs` keeps the runs of its entries.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, assert_never

from oslo_config import cfg

from porthole_common import errors
from porthole_common.diagnosis import Display
from porthole_common.model import ConsoleType, Instance, InstanceState, Owner, RevocationReason, Target

# The states that pass: the VNC server is not there yet, moves to another host, or is about to end.
_PASSING = frozenset({InstanceState.BUILDING, InstanceState.MIGRATING, InstanceState.DELETING})


@dataclass(frozen=True)
class VncServer:
    """The VNC server of an instance: the address that the proxy must dial, and whose screen is behind it now.

    ``run`` and ``owner`` are those of :class:`porthole_common.model.Claim`.
    """

    target: Target
    run: str | None
    owner: Owner


class DriverEvents(Protocol):
    """The events of a driver. Called from any thread; both methods return at once and never raise."""

    def inventory_changed(self) -> None:
        """Note that the result of ``list_instances`` has changed."""

    def consoles_ended(self, instance_uuid: str, reason: RevocationReason) -> None:
        """Note that the instance's consoles on this host are over: it stopped, moved, or has another owner."""


class ComputeDriver(Protocol):
    """The instances of one host. Many threads call the methods ``list_`` and ``get_`` at once."""

    def start(self, events: DriverEvents) -> None:
        """Begin to watch the instances. A hypervisor that is down is not an error; the driver waits for it.

        :raises ConfigInvalid: when the driver cannot start with the value of an option.
        """

    def waits_for(self) -> str:
        """Return the name of what does not answer: the hypervisor, or a question about an instance; "" without any."""

    def is_alive(self) -> bool:
        """Whether the driver has made progress since the last call; an outage is no reason for False."""

    def reload(self) -> None:
        """Reread what can change while running; a bad value is logged and leaves the old one."""

    def stop(self) -> None:
        """Stop watching and release everything; also called after a ``start`` that failed."""

    def list_instances(self) -> list[Instance]:
        """Return every instance of this host, stopped ones included.

        An instance about which the hypervisor does not answer is returned as it was known, in state UNKNOWN.

        :raises HypervisorUnavailable: when the hypervisor does not answer.
        """

    def get_vnc_server(self, instance_uuid: str, console_type: ConsoleType) -> VncServer:
        """Return the instance's VNC server, with its run and its owner.

        The hypervisor is asked each time, since an address in a cache may belong to another instance by now.

        :raises InstanceNotFound: when this host does not have it.
        :raises InstanceNotReady: when it is building, migrating or being deleted.
        :raises InstanceNotRunning: when it has no process that could show a screen.
        :raises ConsoleTypeUnavailable: when it has no VNC server on TCP, or this host does not offer the type.
        :raises HypervisorUnavailable: when the hypervisor does not answer, at all or about this instance.
        """

    def list_overdue(self) -> list[str]:
        """Return the UUIDs of instances about which the hypervisor has not answered in time, and still does not."""

    def list_displays(self, limit: int) -> list[Display]:
        """Return the VNC servers of running instances as they listen now; ``limit`` of them at most.

        :raises HypervisorUnavailable: when the hypervisor does not answer.
        """


def require_screen(instance_uuid: str, state: InstanceState, has_process: bool) -> None:
    """Return when an instance has a screen to show: its QEMU runs, and ``state`` is not a state that passes.

    A guest that is paused, asleep or crashed has a screen too, and an operator wants to see it: the text of a kernel
    panic is the reason why the console is opened.

    :raises InstanceNotRunning: when its QEMU does not run.
    :raises InstanceNotReady: when it is building, migrating or being deleted.
    """
    if not has_process:
        raise errors.InstanceNotRunning(instance_uuid, str(state))
    if state in _PASSING:
        raise errors.InstanceNotReady(instance_uuid, str(state))


def require_vnc_type(console_type: ConsoleType, offered: Collection[ConsoleType]) -> None:
    """Return when a VNC server is what ``console_type`` shows, and the host offers the type.

    :raises ConsoleTypeUnavailable: when this host does not offer the type.
    """
    match console_type:
        case ConsoleType.NOVNC | ConsoleType.XVPVNC:
            if console_type not in offered:
                raise errors.ConsoleTypeUnavailable(str(console_type))
        case _:
            assert_never(console_type)


def get_offered_types(conf: cfg.ConfigOpts) -> tuple[ConsoleType, ...]:
    """Return the console types that the options of [vnc] leave to an instance with a VNC server."""
    if not conf.vnc.enabled:
        return ()
    # A URL of a closed port would be a console that can never open.
    return (ConsoleType.NOVNC, ConsoleType.XVPVNC) if conf.vnc.xvpvncproxy_enabled else (ConsoleType.NOVNC,)

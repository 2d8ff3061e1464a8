# SPDX-License-Identifier: Apache-2.0
"""The port to whatever runs the instances of this host.

Why: libvirt is one place where instances come from, a YAML list another, a fake in the tests a third; the
endpoint, the inventory and the revocations know this protocol and nothing behind it. A driver is made by
:mod:`porthole_compute.main`, and every foreign error ends inside it.
"""

from typing import Protocol

from oslo_config import cfg

from porthole_common import errors
from porthole_common.diagnosis import Display
from porthole_common.model import ConsoleType, Instance, InstanceState, RevocationReason, Target

# Frozen is a screen too: a paused guest, or one asleep in S3, is what an operator wants to look at.
_WITH_SCREEN = frozenset({InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.SUSPENDED})
_WITHOUT_SCREEN = frozenset({InstanceState.SHUTOFF, InstanceState.CRASHED})


class DriverEvents(Protocol):
    """What a driver tells the daemon. Called from any thread; both return at once and never raise."""

    def inventory_changed(self) -> None:
        """Say that ``list_instances`` would answer differently now."""

    def consoles_ended(self, instance_uuid: str, reason: RevocationReason) -> None:
        """Say that every console that the instance had here is over: it stopped, left or was removed."""


class ComputeDriver(Protocol):
    """The instances of one host. What lists and gets is called from many threads at once."""

    def start(self, events: DriverEvents) -> None:
        """Begin to watch the instances; a hypervisor that is down is no error, it is waited for.

        :raises ConfigInvalid: when an option holds a value it cannot start with.
        """

    def waits_for(self) -> str:
        """Return the name of the hypervisor when it does not answer; "" when it does."""

    def is_alive(self) -> bool:
        """Whether the driver has moved on since it was last asked; an outage is no reason for False."""

    def reload(self) -> None:
        """Reread what can change while running; a bad value is logged and leaves the old one."""

    def stop(self) -> None:
        """Stop watching and release everything; also called after a ``start`` that failed."""

    def list_instances(self) -> list[Instance]:
        """Return every instance of this host, stopped ones included.

        :raises HypervisorUnavailable: when the hypervisor does not answer.
        """

    def get_vnc_target(self, instance_uuid: str, console_type: ConsoleType) -> Target:
        """Return where the instance's VNC server listens at this moment, as the proxy has to dial it.

        The hypervisor is asked each time: an address from a cache may be another instance's by now.

        :raises InstanceNotFound: when this host does not have it.
        :raises InstanceNotReady: when it is building, migrating, being deleted, or was never started.
        :raises InstanceNotRunning: when it is stopped or crashed.
        :raises ConsoleTypeUnavailable: when it has no VNC server on TCP, or this host does not offer the type.
        :raises HypervisorUnavailable: when the hypervisor does not answer.
        """

    def list_displays(self, limit: int) -> list[Display]:
        """Return the VNC servers of running instances as they listen now; ``limit`` of them at most.

        :raises HypervisorUnavailable: when the hypervisor does not answer.
        """


def require_screen(instance_uuid: str, state: InstanceState) -> None:
    """Return when an instance in ``state`` has a screen to show: running, paused, suspended.

    :raises InstanceNotRunning: when it is stopped or crashed.
    :raises InstanceNotReady: when it is in any other state, which passes.
    """
    if state in _WITH_SCREEN:
        return
    if state in _WITHOUT_SCREEN:
        raise errors.InstanceNotRunning(instance_uuid, str(state))
    raise errors.InstanceNotReady(instance_uuid, str(state))


def get_offered_types(conf: cfg.ConfigOpts) -> tuple[ConsoleType, ...]:
    """Return the console types that the options of [vnc] leave to an instance with a VNC server."""
    if not conf.vnc.enabled:
        return ()
    # A URL to a door that is shut would be a console that can never open.
    return (ConsoleType.NOVNC, ConsoleType.XVPVNC) if conf.vnc.xvpvncproxy_enabled else (ConsoleType.NOVNC,)

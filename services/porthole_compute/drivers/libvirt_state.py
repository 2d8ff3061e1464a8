# SPDX-License-Identifier: Apache-2.0
"""What a domain of libvirt is doing, as an :class:`porthole_common.model.InstanceState`.

Why apart: virDomainGetState alone does not tell a migration, or a domain that was created paused, from other states.
Called by :mod:`porthole_compute.drivers.libvirt_host`.
"""

from typing import Any

import libvirt

from porthole_common.model import InstanceState

_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: InstanceState.BUILDING,
    libvirt.VIR_DOMAIN_RUNNING: InstanceState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: InstanceState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: InstanceState.PAUSED,
    # Its operating system has ended, and QEMU is about to end.
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
    # A domain that was created paused has the same reason as one that a user paused. But none of its virtual
    # processors has ever run.
    return reason == libvirt.VIR_DOMAIN_PAUSED_USER and all(cpu[2] == 0 for cpu in domain.vcpus()[0])


def _is_being_migrated(domain: Any) -> bool:
    try:
        # jobStats waits up to 30 s for a monitor that is stuck in another call; controlInfo does not wait.
        if domain.controlInfo()[0] in {libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, libvirt.VIR_DOMAIN_CONTROL_ERROR}:
            return False
        return domain.jobStats().get("operation") in _MIGRATION_JOBS
    except libvirt.libvirtError as exc:
        if exc.get_error_code() in {libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_OPERATION_UNSUPPORTED}:
            # The destination of a migration answers so while the domain arrives: only its source has statistics.
            return True
        if exc.get_error_code() in {libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_NO_SUPPORT}:
            return False
        raise

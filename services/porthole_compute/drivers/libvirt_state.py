# SPDX-License-Identifier: Apache-2.0
"""What a domain of libvirt is doing, as an :class:`porthole_common.model.InstanceState`.

Why apart: virDomainGetState alone does not tell a migration. Its reason is that of the last change, and may be out of
date: a domain that was restored or migrated while paused keeps the reason "migration" until it is resumed. So libvirt
is asked for the job under way. The reason counts only when libvirt does not answer that.
Called by :mod:`porthole_compute.drivers.libvirt_host`.
"""

from typing import Any

import libvirt

from porthole_common.log import get_logger
from porthole_common.model import ConsoleType, Instance, InstanceState
from porthole_compute.domain_xml import Domain, DomainXmlInvalid, parse_domain

LOG = get_logger(__name__)
# The id of a domain without a process (virDomainGetID).
_NO_PROCESS = -1
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
# In these the guest's memory is on two hosts; a post-copy that failed has no job any more.
_MIGRATING = {
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY),
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED),
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
    (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED),
}
# In these libvirt is asked for a migration job.
_MAY_MIGRATE = {libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_PAUSED}
_MIGRATION_JOBS = {libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT}


def read_state(domain: Any) -> InstanceState:
    """Return what a virDomain is doing.

    :raises libvirtError: when libvirt does not answer, or the domain is gone.
    """
    state, reason = domain.state()
    if (state, reason) in _MIGRATING:
        return InstanceState.MIGRATING
    if (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP):
        return InstanceState.BUILDING
    if state in _MAY_MIGRATE:
        is_migrating = _find_migration(domain)
        if is_migrating is None:
            is_migrating = (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
        if is_migrating:
            return InstanceState.MIGRATING
    return _STATES.get(state, InstanceState.UNKNOWN)


def _find_migration(domain: Any) -> bool | None:
    """Return whether a migration is under way; None when libvirt cannot tell."""
    try:
        # jobStats waits up to 30 s for a monitor that is stuck in another call; controlInfo does not wait.
        if domain.controlInfo()[0] in {libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, libvirt.VIR_DOMAIN_CONTROL_ERROR}:
            return None
        return domain.jobStats().get("operation") in _MIGRATION_JOBS
    except libvirt.libvirtError as exc:
        if exc.get_error_code() == libvirt.VIR_ERR_OPERATION_UNSUPPORTED:
            # The destination of a migration answers so while the domain arrives: only its source has statistics.
            return True
        if exc.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            raise
        # The statistics of another job may fail, as those of a backup do while it begins: "backup job data missing".
        LOG.debug("Job of a domain not read", instance=domain.UUIDString(), reason=exc)
        return None


def has_process(domain: Any) -> bool:
    """Whether the domain had a process when libvirt made this object; libvirt is not asked again."""
    return bool(domain.ID() != _NO_PROCESS)


def read_instance(domain: Any, offered: tuple[ConsoleType, ...]) -> Instance:
    """Return a virDomain as an instance, with the types in ``offered`` when it has a VNC server.

    :raises libvirtError: when libvirt does not answer, or the domain is gone.
    """
    state, details = read_state(domain), read_details(domain)
    return Instance(
        uuid=domain.UUIDString(),
        name=details.name,
        state=state,
        project_id=details.project_id,
        user_id=details.user_id,
        console_types=offered if details.vnc else (),
        created_at=details.created_at,
    )


def read_details(domain: Any) -> Domain:
    """Return what the live XML says; of XML that does not parse, the name alone."""
    try:
        return parse_domain(domain.XMLDesc(0))
    except DomainXmlInvalid as exc:
        # One odd domain must not hide the others; without an owner only administrators see it.
        LOG.warning("Domain XML not parsed", instance=domain.UUIDString(), reason=exc)
        return Domain(domain.name(), None, None, None, None)

# SPDX-License-Identifier: Apache-2.0


import libvirt
import pytest

from porthole_common.model import InstanceState
from porthole_compute.drivers.libvirt_state import read_state
from support.cases import naming
from support.compute_fakes import (
    PAUSED_BY_MIGRATION,
    UUID,
    FakeDomain,
    build_libvirt_error,
)


def test_the_state_of_a_domain() -> None:
    cases = [
        (libvirt.VIR_DOMAIN_NOSTATE, 0, InstanceState.BUILDING),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED, InstanceState.RUNNING),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATED, InstanceState.RUNNING),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY, InstanceState.MIGRATING),
        (libvirt.VIR_DOMAIN_BLOCKED, 0, InstanceState.RUNNING),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER, InstanceState.PAUSED),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, InstanceState.PAUSED),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, InstanceState.BUILDING),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION, InstanceState.PAUSED),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_CRASHED, InstanceState.PAUSED),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY, InstanceState.MIGRATING),
        (libvirt.VIR_DOMAIN_SHUTDOWN, 0, InstanceState.SHUTOFF),
        (libvirt.VIR_DOMAIN_SHUTOFF, 0, InstanceState.SHUTOFF),
        (libvirt.VIR_DOMAIN_CRASHED, 0, InstanceState.CRASHED),
        (libvirt.VIR_DOMAIN_PMSUSPENDED, 0, InstanceState.SUSPENDED),
        (99, 0, InstanceState.UNKNOWN),
    ]
    for state, reason, expected in cases:
        with naming(state, reason, expected):
            assert read_state(FakeDomain(UUID, "", (state, reason))) == expected


RUNNING = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED)
PAUSED = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER)


def test_a_domain_with_a_job() -> None:
    cases = [
        (RUNNING, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, InstanceState.MIGRATING),
        (RUNNING, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN, InstanceState.MIGRATING),
        (RUNNING, libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT, InstanceState.RUNNING),
        (RUNNING, libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP, InstanceState.RUNNING),
        (PAUSED, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, InstanceState.MIGRATING),
        (PAUSED, libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP, InstanceState.PAUSED),
        (PAUSED_BY_MIGRATION, libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN, InstanceState.MIGRATING),
    ]
    for state, operation, expected in cases:
        with naming(state, operation, expected):
            domain = FakeDomain(UUID, "", state)
            domain.job_operation = operation
            assert read_state(domain) == expected


def test_a_monitor_that_is_stuck_is_not_waited_for() -> None:
    """Then the reason is all there is."""
    states = [
        (RUNNING, InstanceState.RUNNING),
        (PAUSED, InstanceState.PAUSED),
        (PAUSED_BY_MIGRATION, InstanceState.MIGRATING),
    ]
    for control in (libvirt.VIR_DOMAIN_CONTROL_OCCUPIED, libvirt.VIR_DOMAIN_CONTROL_ERROR):
        for state, expected in states:
            with naming(control, state):
                domain = FakeDomain(UUID, "", state)
                domain.control = control
                assert read_state(domain) == expected


def test_a_job_that_libvirt_does_not_tell_of() -> None:
    cases = [
        (libvirt.VIR_ERR_OPERATION_UNSUPPORTED, InstanceState.MIGRATING),
        # "domain is not running": it has ended since its state was read.
        (libvirt.VIR_ERR_OPERATION_INVALID, InstanceState.RUNNING),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, InstanceState.RUNNING),
        (libvirt.VIR_ERR_NO_SUPPORT, InstanceState.RUNNING),
        # "backup job data missing", while a backup begins.
        (libvirt.VIR_ERR_INTERNAL_ERROR, InstanceState.RUNNING),
        (libvirt.VIR_ERR_RPC, InstanceState.RUNNING),
    ]
    for code, expected in cases:
        with naming(code, expected):
            domain = FakeDomain(UUID, "")
            domain.job_error = build_libvirt_error(code)
            assert read_state(domain) == expected
    domain = FakeDomain(UUID, "")
    domain.job_error = build_libvirt_error(libvirt.VIR_ERR_NO_DOMAIN)
    with pytest.raises(libvirt.libvirtError):
        read_state(domain)

# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver and what is around it; a file about another driver has a ``driver`` of its own."""

from collections.abc import Iterator

import pytest

from porthole_compute.drivers.libvirt_host import LibvirtDriver
from support.compute_fakes import RecordedEvents
from support.hypervisor import Hypervisor, running_driver


@pytest.fixture
def hypervisor() -> Hypervisor:
    return Hypervisor()


@pytest.fixture
def events() -> RecordedEvents:
    return RecordedEvents()


@pytest.fixture
def driver(hypervisor: Hypervisor, events: RecordedEvents) -> Iterator[LibvirtDriver]:
    with running_driver(hypervisor, events) as driver:
        yield driver

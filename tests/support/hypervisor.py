# SPDX-License-Identifier: Apache-2.0
"""A libvirt daemon that can go away, and the libvirt driver on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import libvirt

from porthole_compute.drivers.libvirt_host import LibvirtDriver
from support.compute_fakes import (
    OTHER_UUID,
    UUID,
    FakeConnection,
    FakeDomain,
    RecordedEvents,
    build_libvirt_error,
    make_conf,
)

VNC = "<graphics type='vnc' port='5901' listen='127.0.0.1'/>"
PATIENCE_S = 30
UNKNOWN_UUID = "c0ffee00-0000-4000-8000-00000000000f"


def build_xml(devices: str = VNC, metadata: str = "") -> str:
    return f"<domain><name>vm1</name><metadata>{metadata}</metadata><devices>{devices}</devices></domain>"


class Hypervisor:
    """A libvirt daemon that can go away: opens connections to ``domains``, or refuses."""

    def __init__(self) -> None:
        self.domains = {UUID: FakeDomain(UUID, build_xml()), OTHER_UUID: FakeDomain(OTHER_UUID, build_xml(""))}
        self.down = False
        self.opened: list[FakeConnection] = []

    def open(self, uri: str) -> FakeConnection:
        if self.down:
            raise build_libvirt_error(libvirt.VIR_ERR_SYSTEM_ERROR)
        self.opened.append(FakeConnection(self.domains, lambda: self.connection))
        return self.opened[-1]

    @property
    def connections(self) -> list[FakeConnection]:
        """Those for events."""
        return [connection for connection in self.opened if connection.is_watched]

    @property
    def connection(self) -> FakeConnection:
        return self.connections[-1]

    def count_calls(self) -> int:
        return sum(connection.calls for connection in self.opened)


def make_driver(hypervisor: Hypervisor, **vnc: Any) -> LibvirtDriver:
    conf = make_conf(vnc=vnc, libvirt={"reconnect_interval": 1})
    return LibvirtDriver(conf, hypervisor.open)


@contextmanager
def running_driver(hypervisor: Hypervisor, events: RecordedEvents, **vnc: Any) -> Iterator[LibvirtDriver]:
    driver = make_driver(hypervisor, **vnc)
    driver.start(events)
    try:
        events.wait_changed()
        yield driver
    finally:
        driver.stop()

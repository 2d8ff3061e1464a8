# SPDX-License-Identifier: Apache-2.0
"""The libvirt driver in this process, on a real libvirtd, with a deadline on each call."""

import socket

from porthole_common import errors
from porthole_common.model import ConsoleType, Instance, InstanceState, Target
from porthole_compute.drivers import DriverEvents, VncServer
from porthole_compute.drivers.libvirt_host import ATTEMPT_TIMEOUT_S, LibvirtDriver
from support.compute_fakes import make_conf
from support.deadlines import call_within
from support.libvirtd import Libvirtd

UUID = "5c1d3e00-0000-4000-8000-000000000001"

OTHER_UUID = "5c1d3e00-0000-4000-8000-000000000002"

NOVA = (
    "<nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:name>web-1</nova:name><nova:owner>"
    "<nova:user uuid='u-nova'>alice</nova:user><nova:project uuid='p-nova'>shop</nova:project></nova:owner>"
    "</nova:instance>"
)
# A libvirtd that is back is found within reconnect_interval, and a guest's events within milliseconds.
TIMEOUT_S = 30

# Libvirt's calls have no deadline. The driver's longest promise is that of an attempt to connect.
CALL_TIMEOUT_S = ATTEMPT_TIMEOUT_S + TIMEOUT_S


def read_greeting(target: Target) -> bytes:
    with socket.create_connection((target.host, target.port), timeout=TIMEOUT_S) as sock:
        return sock.recv(12)


class DriverWithDeadlines(LibvirtDriver):
    """The driver; a call that hangs within libvirt ends the test instead of holding it."""

    def start(self, events: DriverEvents) -> None:
        call_within(CALL_TIMEOUT_S, lambda: super(DriverWithDeadlines, self).start(events), "start")

    def stop(self) -> None:
        call_within(CALL_TIMEOUT_S, super().stop, "stop")

    def list_instances(self) -> list[Instance]:
        return call_within(CALL_TIMEOUT_S, super().list_instances, "list_instances")

    def get_vnc_server(self, instance_uuid: str, console_type: ConsoleType) -> VncServer:
        ask = super().get_vnc_server
        return call_within(CALL_TIMEOUT_S, lambda: ask(instance_uuid, console_type), "get_vnc_server")


def make_driver(libvirtd: Libvirtd, **options: dict[str, object]) -> LibvirtDriver:
    conf = make_conf(libvirt={"connection_uri": libvirtd.uri, "reconnect_interval": 1}, **options)
    return DriverWithDeadlines(conf)


def is_up(driver: LibvirtDriver) -> bool:
    try:
        driver.list_instances()
    except errors.HypervisorUnavailable:
        return False
    return not driver.waits_for()


def ask(driver: LibvirtDriver, uuid: str = UUID) -> Target:
    return driver.get_vnc_server(uuid, ConsoleType.NOVNC).target


def state_of(driver: LibvirtDriver, uuid: str = UUID) -> InstanceState:
    return next(instance.state for instance in driver.list_instances() if instance.uuid == uuid)

# SPDX-License-Identifier: Apache-2.0
"""porthole-compute as a process, with consoleauth, over a real broker: revocation, reload, start and end."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.model import ConnectInfo, Target
from porthole_common.rpc import Rpc
from porthole_compute.rpcapi import ComputeAPI
from porthole_consoleauth.rpcapi import ConsoleAuthAPI
from support.daemons import Porthole
from support.libvirtd import Libvirtd, guest_xml
from support.memcached import Memcached
from support.processes import wait_until
from support.rabbitmq import RabbitMQ

MakePorthole = Callable[..., Porthole]
CONTEXT = RequestContext(is_admin=True, overwrite=False)
UUID = "5c1d3e00-0000-4000-8000-00000000000a"
OTHER_UUID = "5c1d3e00-0000-4000-8000-00000000000b"
TIMEOUT_S = 30
DAEMONS = ("consoleauth", "compute")


class Bus:
    """The api's and the proxy's calls, made by the test."""

    def __init__(self, rpc: Rpc, host: str) -> None:
        self._compute, self._consoleauth, self._host = ComputeAPI(rpc), ConsoleAuthAPI(rpc), host

    def get_console(self, uuid: str = UUID) -> ConnectInfo:
        return self._compute.get_vnc_console(CONTEXT, self._host, uuid, "novnc")

    def issue(self, uuid: str = UUID) -> ConnectInfo:
        """Get a console and have it authorized, as the api does."""
        info = self.get_console(uuid)
        self._consoleauth.authorize_console(CONTEXT, info)
        assert self.opens(info)
        return info

    def opens(self, info: ConnectInfo) -> bool:
        assert info.token
        try:
            self._consoleauth.check_token(CONTEXT, info.token)
        except errors.TokenInvalid:
            return False
        return True

    def validate(self, info: ConnectInfo) -> Target:
        return self._compute.validate_console(CONTEXT, self._host, info.claim)


@pytest.fixture
def rpc(rabbitmq: RabbitMQ) -> Iterator[Rpc]:
    cfg.CONF([], project="porthole", default_config_files=[], default_config_dirs=[])
    rpc = Rpc(cfg.CONF, 10, rabbitmq.transport_url)
    yield rpc
    rpc.close()
    cfg.CONF.reset()


def write_instances(path: Path, *entries: tuple[str, object]) -> None:
    lines = [f"- {{uuid: {uuid}, name: vm, host: 127.0.0.1, port: {port}}}\n" for uuid, port in entries]
    path.write_text("instances:\n" + "".join(lines))


def test_sighup_rereads_the_instances(make_porthole: MakePorthole, rpc: Rpc, tmp_path: Path) -> None:
    path = tmp_path / "instances.yaml"
    write_instances(path, (UUID, 5901), (OTHER_UUID, 5902))
    porthole = make_porthole(instances_file=path, daemons=DAEMONS)
    bus = Bus(rpc, porthole.host)
    moved, kept = bus.issue(UUID), bus.issue(OTHER_UUID)
    assert bus.validate(moved) == Target("127.0.0.1", 5901)

    write_instances(path, (UUID, 5903), (OTHER_UUID, 5902))
    porthole.compute.signal(signal.SIGHUP)
    wait_until(lambda: not bus.opens(moved), TIMEOUT_S, "the revocation", porthole.logs)
    with pytest.raises(errors.TokenInvalid):
        bus.validate(moved)
    assert bus.opens(kept)
    assert bus.get_console(UUID).target == Target("127.0.0.1", 5903)

    write_instances(path, (UUID, "none"))
    porthole.compute.signal(signal.SIGHUP)
    porthole.compute.wait_for_line("[static] instances_file: entry 1: port", TIMEOUT_S)
    assert bus.get_console(UUID).target == Target("127.0.0.1", 5903)
    assert bus.opens(kept)


@pytest.mark.parametrize("end", ["destroy", "suspend to disk"])
def test_the_end_of_a_guest_revokes_its_tokens(
    make_porthole: MakePorthole, rpc: Rpc, libvirtd: Libvirtd, end: str
) -> None:
    libvirtd.define(guest_xml("ends", UUID))
    libvirtd.virsh("start", UUID)
    libvirtd.create(guest_xml("stays", OTHER_UUID))
    porthole = make_porthole(libvirt_uri=libvirtd.uri, daemons=DAEMONS)
    bus = Bus(rpc, porthole.host)
    ended, kept = bus.issue(UUID), bus.issue(OTHER_UUID)
    if end == "destroy":
        libvirtd.destroy(UUID)
    else:
        libvirtd.virsh("managedsave", UUID)
    wait_until(lambda: not bus.opens(ended), TIMEOUT_S, "the revocation", porthole.logs)
    assert bus.opens(kept)


def test_a_revocation_outlives_a_store_that_hangs(
    make_porthole: MakePorthole, rpc: Rpc, libvirtd: Libvirtd, own_memcached: Memcached
) -> None:
    libvirtd.create(guest_xml("guest", UUID))
    porthole = make_porthole(libvirt_uri=libvirtd.uri, memcached=own_memcached, daemons=DAEMONS)
    bus = Bus(rpc, porthole.host)
    info = bus.issue()
    own_memcached.pause()
    libvirtd.destroy(UUID)
    porthole.compute.wait_for_line("Revocations failing", TIMEOUT_S)
    own_memcached.resume()
    wait_until(lambda: not bus.opens(info), TIMEOUT_S, "the revocation", porthole.logs)


def test_compute_starts_before_libvirtd_and_ends_beside_a_frozen_one(
    make_porthole: MakePorthole, rpc: Rpc, libvirtd: Libvirtd
) -> None:
    libvirtd.stop()
    porthole = make_porthole(libvirt_uri=libvirtd.uri, daemons=["consoleauth"])
    porthole.start_waiting("compute")
    bus = Bus(rpc, porthole.host)
    with pytest.raises(errors.HypervisorUnavailable) as caught:
        bus.get_console()
    assert caught.value.host == porthole.host
    assert porthole.compute.log_of_run().count("Peer not connected; trying again") == 1
    libvirtd.start()
    libvirtd.create(guest_xml("guest", UUID))
    porthole.compute.wait_for_line("Peer connected", TIMEOUT_S)
    info = bus.get_console()
    assert bus.validate(info) == info.target
    libvirtd.pause()
    porthole.compute.signal(signal.SIGTERM)
    assert porthole.compute.wait(TIMEOUT_S) == 0


def test_no_token_is_in_computes_log(make_porthole: MakePorthole, rpc: Rpc, libvirtd: Libvirtd) -> None:
    libvirtd.create(guest_xml("guest", UUID))
    porthole = make_porthole(libvirt_uri=libvirtd.uri, daemons=DAEMONS)
    bus = Bus(rpc, porthole.host)
    info = bus.issue()
    bus.validate(info)
    libvirtd.destroy(UUID)
    wait_until(lambda: not bus.opens(info), TIMEOUT_S, "the revocation", porthole.logs)
    with pytest.raises(errors.TokenInvalid):
        bus.validate(info)
    assert info.token
    assert info.token not in porthole.logs()
    porthole.compute.wait_for_line("Revocation done", TIMEOUT_S)

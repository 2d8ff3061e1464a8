# SPDX-License-Identifier: Apache-2.0
"""The path of a console between hosts: two controllers, two computes with libvirt and QEMU, and a user elsewhere."""

import pytest

from support.processes import wait_until
from support.site import API_PORT, NOVNC_PORT, Site
from support.visitors import User


@pytest.fixture(scope="module")
def site(site_of_run: Site) -> Site:
    return site_of_run


def test_every_pair_of_controllers_opens_consoles_of_every_compute(site: Site, user: User) -> None:
    """Up to ServerInit with the guest's own name, whichever api and proxy the user meets."""
    for instance in site.instances:
        for api in range(2):
            for proxy in range(2):
                with_session = user.visit(instance, api, proxy)
                assert with_session, (instance, api, proxy)
                with_session.check()
                with_session.close()


def test_every_leg_crosses_the_network(site: Site, user: User) -> None:
    """Each daemon's connections go to the other host's address, and nothing listens for its own host alone."""
    sessions = [user.visit(instance, 0, 1) for instance in site.instances]
    assert all(sessions)
    first, second = site.controllers
    broker = (first.host.address, site.rabbitmq.port)
    for host in (second.host, *(compute.host for compute in site.computes)):
        assert broker in host.connections(), f"{host.name} to the broker"
    wait_until(lambda: (first.host.address, first.memcached.port) in second.host.connections(), 20, "memcached")
    proxied = second.host.connections()
    for compute in site.computes:
        assert compute.libvirtd
        guests = [i.guest for i in site.instances if i.guest and site.computes[i.compute] is compute]
        for port in (*compute.screens.ports.values(), *(compute.libvirtd.vnc_port(guest) for guest in guests)):
            assert (compute.host.address, port) in proxied
            assert (compute.host.address, port) in compute.host.listeners()
    assert (second.host.address, NOVNC_PORT) in site.user.connections()
    for host in site.network.hosts.values():
        # epmd and the distribution port of the broker's Erlang are its own.
        beyond = {port for address, port in host.listeners() if address != host.address}
        assert beyond <= site.rabbitmq.private_ports, host.name
    assert (first.host.address, API_PORT) in first.host.listeners()
    for session in sessions:
        assert session
        session.close()


def test_hosts_see_each_other_and_nothing_else(site: Site) -> None:
    """The machine's own network has nothing of it, and a cable that is cut and mended is."""
    one, other = site.computes[0].host, site.computes[1].host
    with pytest.raises(OSError, match=r"unreachable|refused|timed out"):
        one.reach("203.0.113.1", 1, timeout_s=1)
    port = next(iter(site.computes[1].screens.ports.values()))
    one.reach(other.address, port, timeout_s=5)
    one.cut(other)
    with pytest.raises(TimeoutError):
        one.reach(other.address, port, timeout_s=1)
    site.user.reach(other.address, port, timeout_s=5)
    one.mend(other)
    one.reach(other.address, port, timeout_s=5)

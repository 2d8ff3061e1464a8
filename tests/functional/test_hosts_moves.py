# SPDX-License-Identifier: Apache-2.0
"""A guest that goes from one compute to the other, and who meets the ports it had (S1, S2).

Stopped here and started there under the same UUID, as a cold migration does; live migration is tested elsewhere. Where
the guest was a trap listens: that nobody dials it is what this is about.
"""

import time
from collections.abc import Iterator

import pytest

from support.console import token_of
from support.libvirtd import guest_xml
from support.processes import wait_until
from support.site import Compute, Instance, Site
from support.visitors import Session, User
from support.vnc_servers import TrapServer

# Between two tries of a token that is refused: whoever tries more quickly is a stranger who guesses (429).
PAUSE_S = 0.2
# QEMU ended, or broke the connection, or the revocation was first.
ENDED = {1000, 1011, 4401}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site"), screens=1, guests=1) as running:
        yield running


def guest_on(site: Site, compute: int) -> Instance:
    return next(instance for instance in site.instances if instance.guest and instance.compute == compute)


def start(compute: Compute, instance: Instance, port: int | None = None) -> None:
    """Define and start the guest there, at ``port`` when one is given."""
    assert compute.libvirtd
    place = f"port='{port}' autoport='no'" if port else "autoport='yes'"
    graphics = f"<graphics type='vnc' {place} listen='{compute.host.address}'/>"
    compute.libvirtd.define(guest_xml(instance.guest or "", instance.uuid, vnc=graphics))
    compute.libvirtd.virsh("start", instance.uuid)


def open_when_there(user: User, instance: Instance) -> Session:
    """Return a session with the guest where it is now, once there is one."""
    opened: list[Session] = []

    def comes() -> bool:
        session = user.visit(instance, 0, 1)
        if session:
            opened.append(session)
        return bool(session)

    wait_until(comes, 20, f"a console of {instance.guest}")
    return opened[0]


def token_for(user: User, instance: Instance) -> str:
    outcome, url = user.ask(instance, 0)
    assert outcome == 200
    return token_of(url)


def test_a_guest_that_moves_takes_nobody_to_where_it_was(site: Site, user: User) -> None:
    """S2: its old token is refused, before and after it runs elsewhere; its old session is closed; a new URL opens."""
    here, there = site.computes
    assert here.libvirtd
    assert there.libvirtd
    guest = guest_on(site, 0)
    token = token_for(user, guest)
    session = user.open(guest, token, 0)[1]
    assert session
    session.check()
    port = here.libvirtd.vnc_port(guest.uuid)
    # The same port on the other host: only the host tells the two places apart.
    here.libvirtd.destroy(guest.uuid)
    with here.host.entered():
        trap = TrapServer(port, here.host.address)
    with trap:
        began = time.monotonic()
        while time.monotonic() - began < 3:
            assert user.open(guest, token, 1)[0] in {401, 503}
            time.sleep(PAUSE_S)
        assert session.read_end() in ENDED
        session.close()
        start(there, guest, port)
        moved = open_when_there(user, guest)
        for controller in range(2):
            assert user.open(guest, token, controller)[0] == 401
        moved.check()
        moved.close()
        assert trap.accepted == 0


def test_a_port_that_has_a_new_owner_shows_it_to_nobody_with_an_old_token(site: Site, user: User) -> None:
    """S1: the guest restarts at another port, and somebody else's VNC server takes the old one: no connection comes."""
    compute = site.computes[1]
    assert compute.libvirtd
    guest = guest_on(site, 1)
    tokens = [token_for(user, guest) for _ in range(3)]
    port = compute.libvirtd.vnc_port(guest.uuid)
    # Compute's daemon is away meanwhile: nothing is revoked, and the tokens' one flaw is what they say.
    daemon = compute.porthole.processes["compute-libvirt"]
    daemon.kill()
    compute.libvirtd.destroy(guest.uuid)
    with compute.host.entered():
        trap = TrapServer(port, compute.host.address)
    with trap:
        start(compute, guest)
        assert compute.libvirtd.vnc_port(guest.uuid) != port
        with compute.host.entered():
            compute.porthole.start_daemon("compute-libvirt")
        session = open_when_there(user, guest)
        session.check()
        session.close()
        for token in tokens:
            for controller in range(2):
                assert user.open(guest, token, controller)[0] == 401
        assert trap.accepted == 0

# SPDX-License-Identifier: Apache-2.0
"""A thousand open consoles, and every part of the site restarted but the proxies they run through."""

import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.console import token_of
from support.processes import wait_until
from support.site import Instance, Site
from support.visitors import Ledger, Session, User

SESSIONS = 1000
# Each of one instance, below [novncproxy] max_sessions_per_token and max_sessions_per_instance as they come.
PER_TOKEN = 10
PER_INSTANCE = 25
# Both of a kind, one after the other: what is left to hold a console is its proxy.
RESTARTED = [
    (kind, index)
    for kind in ("api", "consoleauth", "compute", "compute-libvirt", "rabbitmq", "memcached", "libvirtd")
    for index in range(1 if kind == "rabbitmq" else 2)
]


@pytest.fixture(scope="module")
def descriptors() -> Iterator[None]:
    """This process holds both ends of every console."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def site(descriptors: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site"), screens=SESSIONS // PER_INSTANCE // 2, guests=1) as running:
        yield running


def open_many(site: Site, job: tuple[Instance, int, int]) -> list[Session]:
    """Open some consoles of one instance through one proxy, with one token."""
    instance, controller, count = job
    with site.user.entered():
        user = User(site, Ledger())
        outcome, url = user.ask(instance, controller)
        assert outcome == 200, outcome
        opened = [user.open(instance, token_of(url), controller) for _ in range(count)]
    sessions = [session for _outcome, session in opened if session]
    assert len(sessions) == count, [outcome for outcome, _session in opened]
    return sessions


def count_alive(sessions: list[Session]) -> int:
    """Return how many show the screen they were opened for."""

    def is_alive(session: Session) -> bool:
        try:
            session.check()
        except OSError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        return sum(pool.map(is_alive, sessions))


# It restarts a whole site, part by part: 50 s on a quiet machine.
@pytest.mark.timeout(300)
def test_a_thousand_consoles_outlive_everything_but_their_proxy(site: Site, report: Callable[[str], None]) -> None:
    screens = [instance for instance in site.instances if not instance.guest]
    guests = [instance for instance in site.instances if instance.guest]
    jobs = [
        (instance, number % 2, min(PER_TOKEN, PER_INSTANCE - first))
        for number, instance in enumerate(screens)
        for first in range(0, PER_INSTANCE, PER_TOKEN)
    ]
    jobs += [(guest, number, 1) for number, guest in enumerate(guests)]
    with site.user.entered():
        wait_until(
            lambda: all(User(site, Ledger()).ask(i, c)[0] == 200 for i in guests for c in (0, 1)), 30, "the site"
        )
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        sessions = [session for opened in pool.map(lambda job: open_many(site, job), jobs) for session in opened]
    assert len(sessions) == SESSIONS + len(guests)
    report(f"{len(sessions)} consoles opened in {time.monotonic() - began:.0f} s")
    for kind, index in RESTARTED:
        part = site.part(kind, index)
        part.process.stop()
        part.start()
        alive = count_alive(sessions)
        report(f"restart {part.name}: {alive} of {len(sessions)} consoles live")
        assert alive == len(sessions)

    def opens_another() -> bool:
        with site.user.entered():
            session = User(site, Ledger()).visit(guests[0], 0, 1)
        if session:
            sessions.append(session)
        return session is not None

    wait_until(opens_another, 30, "new consoles")
    for session in sessions:
        session.close()

# SPDX-License-Identifier: Apache-2.0
"""Each part of a site killed, and restarted, one at a time, while users open and use consoles on all hosts.

What must hold is in ``support/trial.py``. Frozen parts are in test_hosts_frozen.py, cut cables in test_hosts_cut.py.
"""

import signal
import time
from collections.abc import Callable

import pytest

from support.site import Part, Site
from support.trial import RPC_TIMEOUT_S, Trial
from support.visitors import ENDED, OPEN, Request, Session

PARTS = ["api", "consoleauth", "compute", "novncproxy", "memcached", "rabbitmq", "libvirtd"]
# How long a part stays away before it is started again, as systemd would after RestartSec and a slow start.
AWAY_S = 3.0
# The broker for longer than a call: what it owes by then is of no use to anybody, and what is asked next must be.
BROKER_AWAY_S = RPC_TIMEOUT_S + 2.0
# Of which there are two, so that the loss of one costs nothing but what it had in its hands.
DOUBLED = {"api", "consoleauth", "novncproxy"}


@pytest.fixture(scope="module")
def site(site_of_run: Site) -> Site:
    return site_of_run


def kill(part: Part) -> None:
    """As a crash or the kernel's memory killer would."""
    part.process.wait(30)
    time.sleep(BROKER_AWAY_S if part.name.startswith("rabbitmq") else AWAY_S)


def restart(part: Part) -> None:
    """As systemctl would."""
    part.process.wait(30)


@pytest.mark.parametrize("end", [kill, restart])
@pytest.mark.parametrize("kind", PARTS)
def test_a_part_that_ends(site: Site, kind: str, end: Callable[[Part], None], report: Callable[[str], None]) -> None:
    part = site.part(kind)

    def ran_through(session: Session) -> bool:
        return kind == "novncproxy" and session.controller == 0

    def went_with_it(request: Request) -> bool:
        """A token that was memcached's, a console that was open already."""
        if kind == "novncproxy":
            return (request.controller, request.outcome) == (0, ENDED)
        return kind == "memcached" and (request.kind, request.outcome) == (OPEN, 401)

    trial = Trial(
        site,
        f"{end.__name__} {part.name}",
        report,
        runs_through=ran_through,
        is_excused=went_with_it,
        only_in_flight=kind in DOUBLED,
    )
    with (
        trial,
        trial.breaking(lambda: part.process.signal(signal.SIGKILL if end is kill else signal.SIGTERM), part.start),
    ):
        end(part)

# SPDX-License-Identifier: Apache-2.0
"""Hosts that lose each other for a while, both ways and without a word, under the same load and the same demands."""

import time
from collections.abc import Callable

import pytest

from support.hosts import Host
from support.site import Site
from support.trial import Trial
from support.visitors import Session

# TCP tries again after twice the time each time: what was sent into the cut would be on its way half a minute after.
CUT_S = 30.0


@pytest.fixture(scope="module")
def site(site_of_run: Site) -> Site:
    return site_of_run


def hosts_of(site: Site, what: str) -> tuple[Host, Host]:
    """The broker is on the first controller: the second one's cables carry what its own daemons say."""
    return {
        "proxy and compute": (site.controllers[1].host, site.computes[0].host),
        "controller and compute": (site.controllers[0].host, site.computes[0].host),
        "consoleauth and memcached": (site.controllers[1].host, site.store),
    }[what]


@pytest.mark.parametrize("what", ["proxy and compute", "controller and compute", "consoleauth and memcached"])
def test_a_cable_that_is_cut(site: Site, what: str, report: Callable[[str], None]) -> None:
    one, other = hosts_of(site, what)

    def ran_through(session: Session) -> bool:
        ends = site.controllers[session.controller].host, site.computes[session.instance.compute].host
        return ends == (one, other)

    trial = Trial(site, f"cut {one.name} from {other.name}", report, runs_through=ran_through, may_end=False)
    with trial, trial.breaking(lambda: one.cut(other), lambda: one.mend(other)):
        time.sleep(CUT_S)

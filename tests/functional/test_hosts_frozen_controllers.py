# SPDX-License-Identifier: Apache-2.0
"""Each part of the controllers frozen for 30 s, one at a time, while users open and use consoles on all hosts.

What must hold is in ``support/trial.py``. In two files, which the test runner works on side by side.
"""

from collections.abc import Callable

import pytest

from support.site import Site
from support.trial import freeze


@pytest.fixture(scope="module")
def site(site_of_run: Site) -> Site:
    return site_of_run


@pytest.mark.parametrize("kind", ["api", "consoleauth", "novncproxy", "memcached"])
def test_a_part_that_stands_still(site: Site, kind: str, report: Callable[[str], None]) -> None:
    freeze(site, kind, report)

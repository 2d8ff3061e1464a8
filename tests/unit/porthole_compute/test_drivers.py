# SPDX-License-Identifier: Apache-2.0

import pytest

from porthole_common import errors
from porthole_common.model import ConsoleType, InstanceState
from porthole_compute.drivers import get_offered_types, require_screen
from support.compute_fakes import UUID, make_conf

WITH_SCREEN = {InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.SUSPENDED}
STOPPED = {InstanceState.SHUTOFF, InstanceState.CRASHED}


@pytest.mark.parametrize("state", list(InstanceState))
def test_which_states_have_a_screen(state: InstanceState) -> None:
    """And which error the others are (C7)."""
    if state in WITH_SCREEN:
        require_screen(UUID, state)
        return
    expected = errors.InstanceNotRunning if state in STOPPED else errors.InstanceNotReady
    with pytest.raises(expected) as caught:
        require_screen(UUID, state)
    assert caught.value.values() == (UUID, str(state))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (ConsoleType.NOVNC, ConsoleType.XVPVNC)),
        ({"xvpvncproxy_enabled": False}, (ConsoleType.NOVNC,)),
        ({"enabled": False}, ()),
    ],
)
def test_which_types_a_host_offers(options: dict[str, bool], expected: tuple[ConsoleType, ...]) -> None:
    assert get_offered_types(make_conf(vnc=options)) == expected

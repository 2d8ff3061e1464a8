# SPDX-License-Identifier: Apache-2.0

import pytest

from porthole_common import errors
from porthole_common.model import ConsoleType, InstanceState
from porthole_compute.drivers import get_offered_types, require_screen
from support.cases import naming
from support.compute_fakes import UUID, make_conf

WITH_SCREEN = {InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.SUSPENDED}
STOPPED = {InstanceState.SHUTOFF, InstanceState.CRASHED}


def test_which_states_have_a_screen() -> None:
    """And which error the others are (C7)."""
    for state in InstanceState:
        with naming(state):
            if state in WITH_SCREEN:
                require_screen(UUID, state)
                continue
            expected = errors.InstanceNotRunning if state in STOPPED else errors.InstanceNotReady
            with pytest.raises(expected) as caught:
                require_screen(UUID, state)
            assert caught.value.values() == (UUID, str(state))


def test_which_types_a_host_offers() -> None:
    cases = [
        ({}, (ConsoleType.NOVNC, ConsoleType.XVPVNC)),
        ({"xvpvncproxy_enabled": False}, (ConsoleType.NOVNC,)),
        ({"enabled": False}, ()),
    ]
    for options, expected in cases:
        with naming(options, expected):
            assert get_offered_types(make_conf(vnc=options)) == expected

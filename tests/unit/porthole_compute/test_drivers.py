# SPDX-License-Identifier: Apache-2.0

import pytest

from porthole_common import errors
from porthole_common.model import ConsoleType, InstanceState
from porthole_compute.drivers import get_offered_types, require_screen
from support.cases import naming
from support.compute_fakes import UUID, make_conf

PASSING = {InstanceState.BUILDING, InstanceState.MIGRATING, InstanceState.DELETING}


def test_a_guest_has_a_screen_as_long_as_its_process_runs() -> None:
    """Except in a state that passes (C7)."""
    for state in InstanceState:
        with naming(state):
            if state in PASSING:
                with pytest.raises(errors.InstanceNotReady) as caught:
                    require_screen(UUID, state, has_process=True)
                assert caught.value.values() == (UUID, str(state))
            else:
                require_screen(UUID, state, has_process=True)


def test_without_a_process_there_is_no_screen() -> None:
    for state in InstanceState:
        with naming(state), pytest.raises(errors.InstanceNotRunning) as caught:
            require_screen(UUID, state, has_process=False)
        with naming(state):
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

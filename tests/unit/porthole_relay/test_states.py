# SPDX-License-Identifier: Apache-2.0
"""The table in the module's docstring is what its readers go by: it must say what the members say."""

import re

from porthole_relay import states
from porthole_relay.states import State


def rows():
    """Return {state: (what it says of reading the VNC server, of reading the client)}."""
    found = re.findall(r"^([A-Z]{4,})  +(\S.*?)  +(\S.*?)  ", states.__doc__, re.MULTILINE)
    return {name: (server, client) for name, server, client in found}


def test_each_state_has_a_row_and_no_other():
    assert set(rows()) == {state.name for state in State}


def test_the_rows_say_what_the_members_say():
    for name, (server, client) in rows().items():
        state = State[name]
        # In GRACE the stream has ended and the connection is still there.
        assert state.has_server == ("closed" not in server and server != "no"), name
        assert state.has_client == (client != "no"), name
        assert state.hears_client == (state.has_client and client != "for its end only"), name

# SPDX-License-Identifier: Apache-2.0
from porthole_relay.subject import Subject


def test_its_lines_bear_the_request_and_the_user():
    context = Subject("i-1", "novnc", "192.0.2.7", "req-1", "rita", "red").context
    assert (context.request_id, context.user_id, context.project_id) == ("req-1", "rita", "red")


def test_a_subject_needs_no_request_and_no_user():
    """The gateway of a compute knows neither."""
    context = Subject("i-1", "serial", "192.0.2.7").context
    assert context.request_id.startswith("req-")
    assert (context.user_id, context.project_id) == (None, None)

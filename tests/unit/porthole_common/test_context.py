# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from oslo_context import context as oslo_context

from porthole_common.context import RequestContext, build_daemon_context, get_current, serving


def test_credentials_stay_behind() -> None:
    context = RequestContext(user_id="u", project_id="p", auth_token="secret", overwrite=False)
    assert "secret" not in json.dumps(context.to_dict())


def test_who_asks_and_the_request_id_go_along() -> None:
    context = RequestContext(user_id="u", project_id="p", overwrite=False)
    received = RequestContext.from_dict(json.loads(json.dumps(context.to_dict())))
    assert (received.user_id, received.project_id, received.request_id) == ("u", "p", context.request_id)


def test_a_daemon_is_an_administrator_with_a_request_id_of_its_own() -> None:
    first, second = build_daemon_context(), build_daemon_context()
    assert first.is_admin
    assert first.request_id != second.request_id


def test_a_thread_serves_one_request_and_then_nobody() -> None:
    first, second = RequestContext(overwrite=False), RequestContext(overwrite=False)
    with serving(first):
        assert get_current() is first
        second.update_store()
        assert get_current() is second
    assert oslo_context.get_current() is None


def test_a_thread_forgets_a_request_that_fails() -> None:
    with pytest.raises(ValueError, match="x"), serving(RequestContext(overwrite=False)):
        raise ValueError("x")
    assert oslo_context.get_current() is None


def test_without_a_request_it_is_the_daemons_own_work() -> None:
    assert get_current().is_admin

# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from oslo_context import context as oslo_context

from porthole_common.context import RequestContext, build_daemon_context, build_request_context, get_current, serving
from porthole_common.private_parts import forget_reports


def test_credentials_stay_behind() -> None:
    context = RequestContext(user_id="u", project_id="p", auth_token="secret", overwrite=False)
    assert "secret" not in json.dumps(context.to_dict())
    assert "secret" not in json.dumps(context.to_message())


def test_everything_but_the_credentials_goes_along() -> None:
    fields = {
        name: f"the {name}"
        for name in (
            *("user_id", "user_domain_id", "project_id", "project_domain_id", "domain_id", "system_scope"),
            *("request_id", "global_request_id", "resource_uuid"),
        )
    }
    flags = {"is_admin": True, "is_admin_project": False, "read_only": True, "show_deleted": True}
    context = RequestContext(**fields, **flags, roles=["reader"], auth_token="secret", overwrite=False)
    received = RequestContext.from_dict(json.loads(json.dumps(context.to_message())))
    assert received.to_dict() == context.to_dict()


def test_a_message_carries_nothing_that_says_nothing() -> None:
    message = RequestContext(user_id="u", overwrite=False).to_message()
    assert None not in message.values()
    assert "user_identity" not in message


def test_a_daemon_is_an_administrator_with_a_request_id_of_its_own() -> None:
    first, second = build_daemon_context(), build_daemon_context()
    assert first.is_admin
    assert first.request_id != second.request_id


def test_a_context_that_is_made_for_another_thread_is_not_this_ones() -> None:
    with serving(build_daemon_context()):
        pass
    made = build_request_context(user_id="u", request_id="req-1")
    assert (made.user_id, made.request_id) == ("u", "req-1")
    assert oslo_context.get_current() is None
    with serving(build_daemon_context()):
        mine = get_current()
        build_request_context(user_id="u")
        assert get_current() is mine


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


def test_without_oslo_contexts_private_store_a_thread_keeps_its_last_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log says once why; the next request takes its place."""
    forget_reports()
    store = oslo_context._request_store
    made = [RequestContext(overwrite=False) for _ in range(2)]
    for context in made:
        # oslo.context finds its own store by this name, so only the end of the block must miss it.
        with monkeypatch.context() as patch, serving(context):
            assert get_current() is context
            patch.delattr(oslo_context, "_request_store")
        assert oslo_context.get_current() is context
    (record,) = caplog.records
    assert record.getMessage().startswith("Private part of a library not found library=oslo.context version=")
    del store.context
    forget_reports()

# SPDX-License-Identifier: Apache-2.0
"""Who is let in without authentication, and as whom."""

from collections.abc import Iterator
from typing import Any

import pytest
from oslo_context import context as oslo_context
from webob import exc

from porthole_api.auth import NoAuth, build_auth
from porthole_api.request import CONTEXT
from porthole_common import errors
from support.api import build_conf


@pytest.fixture(autouse=True)
def _no_context_stays() -> Iterator[None]:
    yield
    vars(oslo_context._request_store).pop("context", None)


def ask(address: str | None) -> dict[str, Any]:
    environ: dict[str, Any] = {"openstack.request_id": "req-1", "openstack.global_request_id": "req-2"}
    if address is not None:
        environ["REMOTE_ADDR"] = address
    assert list(NoAuth(lambda _environ, _start_response: [b"in"])(environ, None)) == [b"in"]
    return environ


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "", None])
def test_this_machine_is_let_in_as_the_administrator(address: str | None) -> None:
    context = ask(address)[CONTEXT]
    assert (context.is_admin, context.user_id, context.project_id) == (True, "admin", "admin")
    assert (context.request_id, context.global_request_id) == ("req-1", "req-2")
    assert oslo_context.get_current() is context


@pytest.mark.parametrize("address", ["192.0.2.1", "0.0.0.0", "::", "2001:db8::1", "::ffff:192.0.2.1", "localhost"])
def test_another_machine_is_refused(address: str) -> None:
    with pytest.raises(exc.HTTPForbidden, match="auth_strategy"):
        ask(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "127.0.1.1", "localhost"])
def test_noauth_may_listen_on_loopback(host: str) -> None:
    assert build_auth(build_conf(bind_host=host)) is NoAuth


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"])
def test_noauth_may_listen_nowhere_else(host: str) -> None:
    with pytest.raises(errors.ConfigInvalid) as caught:
        build_auth(build_conf(bind_host=host))
    assert caught.value.option == "[api] auth_strategy"
    assert host in str(caught.value)

# SPDX-License-Identifier: Apache-2.0
"""Who is let in without authentication, and as whom."""

from typing import Any

import pytest
from oslo_context import context as oslo_context
from webob import exc

from porthole_api.noauth import NoAuth
from porthole_common import errors
from porthole_common.context import RequestContext
from support.api import build_conf
from support.cases import naming

pytestmark = pytest.mark.usefixtures("no_context_stays")


def ask(address: str | None, **options: Any) -> RequestContext:
    environ: dict[str, Any] = {"openstack.request_id": "req-1", "openstack.global_request_id": "req-2"}
    if address is not None:
        environ["REMOTE_ADDR"] = address
    return NoAuth(build_conf(**options))(environ)


def test_this_machine_is_let_in_as_the_administrator() -> None:
    for address in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "", None]:
        with naming(address):
            context = ask(address)
            assert (context.user_id, context.project_id, context.roles) == (
                "admin",
                None,
                ["admin", "member", "reader"],
            )
            assert (context.request_id, context.global_request_id) == ("req-1", "req-2")
            assert oslo_context.get_current() is context


def test_another_machine_is_refused() -> None:
    cases = ["192.0.2.1", "0.0.0.0", "::", "2001:db8::1", "::ffff:192.0.2.1", "localhost"]
    for address in cases:
        with naming(address), pytest.raises(exc.HTTPForbidden, match="auth_strategy"):
            ask(address)


def test_it_may_listen_on_loopback() -> None:
    for host in ["127.0.0.1", "::1", "127.0.1.1", "localhost"]:
        with naming(host):
            NoAuth(build_conf(bind_host=host))


def test_it_may_listen_nowhere_else() -> None:
    for host in ["0.0.0.0", "::", "192.0.2.1", "2001:db8::1"]:
        with naming(host):
            with pytest.raises(errors.ConfigInvalid) as caught:
                NoAuth(build_conf(bind_host=host))
            assert caught.value.option == "[api] auth_strategy"
            assert host in str(caught.value)


def test_it_may_do_both_when_it_was_said() -> None:
    assert ask("192.0.2.1", bind_host="0.0.0.0", allow_noauth_anywhere=True).user_id == "admin"


def ask_as(host: str, **headers: str) -> RequestContext:
    environ = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": host, **headers}
    return NoAuth(build_conf(bind_host="127.0.0.2"))(environ)


def test_the_host_may_be_a_name_of_this_machine() -> None:
    cases = ["127.0.0.1:8774", "localhost:8774", "LOCALHOST", "[::1]:8774", "127.0.0.2:8774", "127.1.2.3"]
    for host in cases:
        with naming(host):
            assert ask_as(host).user_id == "admin"


def test_a_name_that_was_made_to_mean_this_machine_is_refused() -> None:
    """DNS rebinding: to the browser such a page is of the same origin as the API."""
    cases = [
        "evil.example:8774",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.1",
        "",
        "[",
    ]
    for host in cases:
        with naming(host), pytest.raises(exc.HTTPForbidden, match="Host"):
            ask_as(host)


def test_what_a_reverse_proxy_passes_on_is_not_of_this_machine() -> None:
    headers = [f"HTTP_X_FORWARDED_{name}" for name in ("FOR", "HOST", "PROTO", "PREFIX", "PORT", "SERVER")]
    for header in [*headers, "HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP"]:
        with naming(header), pytest.raises(exc.HTTPForbidden):
            ask_as("127.0.0.1", **{header: "127.0.0.1"})

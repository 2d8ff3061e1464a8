# SPDX-License-Identifier: Apache-2.0
import functools
import inspect
from pathlib import Path
from typing import Any

import pytest

from porthole_common import errors
from porthole_common.context import build_daemon_context
from porthole_common.diagnosis import ProxyDescription, Reach
from porthole_common.model import Target
from porthole_novncproxy.admission.vencrypt import Security
from porthole_novncproxy.endpoint import DIAL_TIMEOUT_S, MAX_TARGETS, ProxyEndpoint
from porthole_novncproxy.rpcapi import SESSIONS_VERSION, TOPIC, VERSION, NovncProxyAPI
from porthole_novncproxy.sessions.endpoint import SessionsEndpoint
from support.bus import expected_error, fake_bus
from support.cases import naming
from support.certificates import Authority, make_certificate
from support.compute_fakes import make_conf
from support.proxy import make_web_root

CONTEXT = build_daemon_context()
UP, REFUSING, SILENT = (Target("192.0.2.1", port) for port in (5900, 5901, 5902))


def probe(target: Target, timeout_s: float) -> tuple[int, ...]:
    assert timeout_s == DIAL_TIMEOUT_S
    if target == REFUSING:
        raise errors.VncServerUnavailable(target.host, target.port)
    if target == SILENT:
        raise errors.VncServerTimeout(target.host, target.port)
    return (1, 19)


def make_endpoint(**groups: dict[str, Any]) -> ProxyEndpoint:
    return ProxyEndpoint(make_conf(**groups), probe)


def names_of(kind: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")]


def test_client_and_endpoint_agree() -> None:
    assert names_of(NovncProxyAPI) == sorted(names_of(ProxyEndpoint) + names_of(SessionsEndpoint))
    assert (ProxyEndpoint.target.version, SessionsEndpoint.target.version) == (VERSION, SESSIONS_VERSION)


def test_client_and_endpoint_over_the_bus() -> None:
    with fake_bus() as bus:
        server = bus.get_server(TOPIC, "proxy1", [make_endpoint()])
        server.start()
        client = NovncProxyAPI(bus)
        assert client.describe_proxy(CONTEXT, "proxy1").vitals.host == "node1"
        reached = client.dial_targets(CONTEXT, "proxy1", [SILENT, UP, REFUSING])
        with pytest.raises(errors.RequestInvalid):
            client.dial_targets(CONTEXT, "proxy1", [UP] * (MAX_TARGETS + 1))
        server.stop()
    assert reached == [Reach(SILENT, "silent"), Reach(UP, "", (1, 19)), Reach(REFUSING, "refused")]


def reach(types: tuple[int, ...], secure: Any, conf: Any) -> Reach:
    endpoint = ProxyEndpoint(conf, lambda _target, _timeout_s: types, secure)
    return Reach.from_primitive(endpoint.dial_targets(CONTEXT, [UP.to_primitive()])[0])


def test_a_server_that_takes_tls_alone_is_of_no_use_to_a_proxy_that_speaks_none() -> None:
    def unused(*_arguments: Any) -> None:
        raise AssertionError("the stream is opaque to this proxy")

    assert reach((1, 19), unused, make_conf()) == Reach(UP, "", (1, 19))
    assert reach((), unused, make_conf()) == Reach(UP, "", ())
    found = reach((19,), unused, make_conf())
    assert (found.problem, found.security_types) == ("security", (19,))
    assert "vencrypt" in found.reason


def test_a_proxy_that_speaks_tls_goes_through_the_handshake(tmp_path: Path) -> None:
    conf = make_conf(vnc={"auth_schemes": ["vencrypt"], "vencrypt_ca_certs": str(Authority(tmp_path).cert)})
    seen: list[Target] = []
    errors_of: list[errors.PortholeError] = []

    def secure(target: Target, security: Security, timeout_s: float) -> None:
        assert security.policy
        seen.append(target)
        for error in errors_of:
            raise error

    assert reach((19,), secure, conf) == Reach(UP, "", (19,))
    assert seen == [UP]
    errors_of[:] = [errors.VncSecurityUnsuitable("192.0.2.1:5900", "its certificate is not accepted (expired)")]
    assert reach((19,), secure, conf) == Reach(UP, "security", (19,), "its certificate is not accepted (expired)")
    errors_of[:] = [errors.VncServerTimeout("192.0.2.1", 5900)]
    assert reach((19,), secure, conf) == Reach(UP, "silent", (19,))


def test_what_is_no_target_is_not_dialled() -> None:
    for targets in ([{}], [{"host": "192.0.2.1", "port": 0}], [{"host": "192.0.2.1", "port": "x"}]):
        with naming(targets):
            error = expected_error(functools.partial(make_endpoint().dial_targets, CONTEXT, targets))
            assert isinstance(error, errors.RequestInvalid)


def test_the_description(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    root = make_web_root(tmp_path)
    endpoint = make_endpoint(
        DEFAULT={"web": str(root), "cert": str(files.cert), "ssl_only": True},
        novncproxy={"max_sessions": 100},
        console={"trusted_proxies": ["192.0.2.7"]},
    )
    description = ProxyDescription.from_primitive(endpoint.describe_proxy(CONTEXT))
    assert (description.web, description.novnc, description.novnc_version) == (str(root), True, None)
    assert description.certificate is not None
    assert description.certificate.names == ("localhost", "127.0.0.1", "::1")
    assert description.ssl_only
    assert description.trusted_proxies == ("192.0.2.7",)
    assert description.vitals.descriptors_needed == 2 * 100 + 256


def test_what_is_not_there(tmp_path: Path) -> None:
    endpoint = make_endpoint(DEFAULT={"web": str(tmp_path), "cert": str(tmp_path / "gone.pem")})
    description = ProxyDescription.from_primitive(endpoint.describe_proxy(CONTEXT))
    assert not description.novnc
    assert description.certificate is None

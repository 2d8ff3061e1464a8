# SPDX-License-Identifier: Apache-2.0
import inspect
from pathlib import Path
from typing import Any

import pytest

from porthole_common import errors
from porthole_common.context import build_daemon_context
from porthole_common.diagnosis import ProxyDescription, Reach
from porthole_common.model import Target
from porthole_novncproxy.endpoint import DIAL_TIMEOUT_S, MAX_TARGETS, ProxyEndpoint
from porthole_novncproxy.rpcapi import TOPIC, VERSION, NovncProxyAPI
from support.bus import expected_error, fake_bus
from support.certificates import make_certificate
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
    assert names_of(NovncProxyAPI) == names_of(ProxyEndpoint)
    assert ProxyEndpoint.target.version == VERSION


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


@pytest.mark.parametrize("targets", [[{}], [{"host": "192.0.2.1", "port": 0}], [{"host": "192.0.2.1", "port": "x"}]])
def test_what_is_no_target_is_not_dialled(targets: list[dict[str, Any]]) -> None:
    error = expected_error(lambda: make_endpoint().dial_targets(CONTEXT, targets))
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

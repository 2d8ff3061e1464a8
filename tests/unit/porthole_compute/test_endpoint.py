# SPDX-License-Identifier: Apache-2.0

import inspect
import logging
import uuid
from typing import Any

import pytest

from porthole_common import errors, rpc
from porthole_common.context import RequestContext
from porthole_common.diagnosis import HostDescription
from porthole_common.model import ConnectInfo, ConsoleType, Target, TokenReason
from porthole_compute.endpoint import MAX_DISPLAYS, ComputeEndpoint
from porthole_compute.rpcapi import TOPIC, ComputeAPI
from support.cases import naming
from support.compute_fakes import OTHER_UUID, UUID, FakeDriver, make_conf
from support.descriptions import make_display

CONTEXT = RequestContext(overwrite=False)
GONE = str(TokenReason.INSTANCE_GONE)


class Calls:
    """An RpcClient, and the Rpc that gives it: keeps what it is asked to send, answers ``answer``."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.answer = answer
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.versions: dict[str, str] = {}

    def get_client(self, topic: str, version: str) -> Any:
        assert topic == TOPIC
        return Client(self, version)


class Client:
    """The client of one version that :class:`Calls` gives."""

    def __init__(self, calls: Calls, version: str) -> None:
        self._calls = calls
        self._version = version

    def call(
        self, context: RequestContext, method: str, server: str | None = None, deadline: object = None, **arguments: Any
    ) -> Any:
        self._calls.sent.append((method, arguments))
        self._calls.versions[method] = self._version
        return self._calls.answer

    def publish(self, context: RequestContext, method: str, **arguments: Any) -> None:
        self._calls.sent.append((method, arguments))
        self._calls.versions[method] = self._version


class Wanted:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def wanted() -> Wanted:
    return Wanted()


def build_endpoint(driver: FakeDriver) -> ComputeEndpoint:
    return ComputeEndpoint(make_conf(), driver, Wanted())


@pytest.fixture
def endpoint(driver: FakeDriver, wanted: Wanted) -> ComputeEndpoint:
    return ComputeEndpoint(make_conf(), driver, wanted)


def refusal(call: Any, *arguments: Any) -> BaseException:
    """What the endpoint raises, as oslo.messaging takes it: marked as an answer."""
    with pytest.raises(rpc.oslo_messaging.ExpectedException) as caught:
        call(CONTEXT, *arguments)
    error = caught.value.exc_info[1]
    assert isinstance(error, errors.PortholeError)
    return error


def test_client_and_endpoint_agree(endpoint: ComputeEndpoint, driver: FakeDriver) -> None:
    console = endpoint.get_vnc_console(CONTEXT, UUID, "novnc")
    calls = Calls({**console, **endpoint.describe_host(CONTEXT), "expires_at": None})
    client: Any = ComputeAPI(calls)  # type: ignore[arg-type]
    client.get_vnc_console(CONTEXT, "node1", UUID, "novnc")
    client.validate_console(CONTEXT, "node1", UUID, Target("192.0.2.1", 5900), ConsoleType.NOVNC)
    client.publish_inventory(CONTEXT)
    client.describe_host(CONTEXT, "node1")
    used = {name for name, _ in inspect.getmembers(ComputeAPI, inspect.isfunction) if not name.startswith("_")}
    assert used == {"get_vnc_console", "validate_console", "publish_inventory", "describe_host"}
    served = {name for name, _ in inspect.getmembers(ComputeEndpoint, inspect.isfunction) if not name.startswith("_")}
    assert {method for method, _ in calls.sent} == served
    for method, arguments in calls.sent:
        inspect.signature(getattr(endpoint, method)).bind(CONTEXT, **arguments)
        getattr(endpoint, method)(CONTEXT, **arguments)
    assert calls.versions.pop("describe_host") == endpoint.target.version
    # An api or a proxy that is newer than the computes must go on opening consoles.
    assert set(calls.versions.values()) == {"1.0"}


def test_what_a_host_says_of_itself(driver: FakeDriver, wanted: Wanted) -> None:
    driver.displays = [make_display(name="a"), make_display(name="b", share_policy="force-shared")]
    driver.overdue = [OTHER_UUID]
    conf = make_conf(vnc={"server_listen": "192.0.2.11", "server_proxyclient_address": "192.0.2.12"})
    host = HostDescription.from_primitive(ComputeEndpoint(conf, driver, wanted).describe_host(CONTEXT))
    assert host.displays == tuple(driver.displays)
    assert host.overdue == (OTHER_UUID,)
    assert (host.server_listen, host.proxyclient_address) == ("192.0.2.11", "192.0.2.12")
    assert (host.driver, host.hypervisor, host.refusal) == ("libvirt", "qemu:///system", "")
    assert (host.vitals.host, host.more_displays) == ("node1", False)


def test_a_host_with_very_many_displays_tells_of_some(endpoint: ComputeEndpoint, driver: FakeDriver) -> None:
    driver.displays = [make_display()] * 1000
    host = HostDescription.from_primitive(endpoint.describe_host(CONTEXT))
    assert (len(host.displays), host.more_displays) == (MAX_DISPLAYS, True)


def test_a_hypervisor_that_is_silent_is_part_of_the_description(endpoint: ComputeEndpoint, driver: FakeDriver) -> None:
    driver.displays = errors.HypervisorUnavailable("node1")
    host = HostDescription.from_primitive(endpoint.describe_host(CONTEXT))
    assert host.refusal == "The hypervisor of host node1 does not answer."
    assert host.displays == ()


@pytest.mark.parametrize(
    ("console_type", "url"),
    [
        ("novnc", "http://127.0.0.1:6080/console.html?path=%3Ftoken%3D{}"),
        ("xvpvnc", "http://127.0.0.1:6081/console?token={}"),
    ],
)
def test_a_console(endpoint: ComputeEndpoint, driver: FakeDriver, console_type: str, url: str) -> None:
    info = ConnectInfo.from_primitive(endpoint.get_vnc_console(CONTEXT, UUID, console_type))
    assert info.token
    assert uuid.UUID(info.token).version == 4
    assert info.access_url == url.format(info.token)
    assert (info.instance_uuid, info.console_type, info.target) == (UUID, console_type, Target("192.0.2.1", 5900))
    assert (info.compute_host, info.internal_access_path, info.expires_at) == ("node1", None, None)
    assert driver.asked == [(UUID, ConsoleType(console_type))]


def test_a_console_is_logged_and_its_token_is_not(endpoint: ComputeEndpoint, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        token = endpoint.get_vnc_console(CONTEXT, UUID, "novnc")["token"]
    assert f"Console issued instance={UUID} console_type=novnc address=192.0.2.1:5900" in caplog.text
    assert token not in caplog.text


def test_each_console_has_a_token_of_its_own(endpoint: ComputeEndpoint) -> None:
    assert len({endpoint.get_vnc_console(CONTEXT, UUID, "novnc")["token"] for _ in range(100)}) == 100


def test_an_unknown_console_type() -> None:
    for console_type in ["spice-html5", "NOVNC", "", "novnc "]:
        with naming(console_type):
            driver = FakeDriver()
            endpoint = build_endpoint(driver)
            error = refusal(endpoint.get_vnc_console, UUID, console_type)
            assert isinstance(error, errors.ConsoleTypeInvalid)
            assert driver.asked == []


def test_what_is_no_uuid_is_no_instance() -> None:
    for instance_uuid in ["", "1", UUID.upper(), UUID + "\n", "../" + UUID]:
        with naming(instance_uuid):
            driver = FakeDriver()
            endpoint = build_endpoint(driver)
            assert isinstance(refusal(endpoint.get_vnc_console, instance_uuid, "novnc"), errors.InstanceNotFound)
            assert driver.asked == []


def test_the_drivers_errors_cross_the_wire() -> None:
    cases = [
        errors.InstanceNotFound(UUID),
        errors.InstanceNotReady(UUID, "building"),
        errors.InstanceNotRunning(UUID, "shutoff"),
        errors.ConsoleTypeUnavailable("novnc"),
        errors.HypervisorUnavailable("node1"),
    ]
    for error in cases:
        with naming(error):
            driver = FakeDriver()
            endpoint = build_endpoint(driver)
            driver.target = error
            assert refusal(endpoint.get_vnc_console, UUID, "novnc") is error


def test_a_console_that_is_where_it_was() -> None:
    """Its port may come as text (C11)."""
    for port in [5900, "5900"]:
        with naming(port):
            driver = FakeDriver()
            endpoint = build_endpoint(driver)
            assert endpoint.validate_console(CONTEXT, UUID, "192.0.2.1", port, "novnc") == {
                "host": "192.0.2.1",
                "port": 5900,
            }
            assert driver.asked == [(UUID, ConsoleType.NOVNC)]


def test_a_console_that_is_elsewhere_now() -> None:
    """Host and port are compared (S1, S2)."""
    cases = [
        ("192.0.2.1", 5901),
        ("192.0.2.2", 5900),
        ("192.0.2.1", "5901"),
        ("192.0.2.1", 0),
        ("192.0.2.1", "x"),
        ("", 5900),
    ]
    for host, port in cases:
        with naming(host, port):
            driver = FakeDriver()
            endpoint = build_endpoint(driver)
            error = refusal(endpoint.validate_console, UUID, host, port, "novnc")
            assert isinstance(error, errors.TokenInvalid)
            assert error.reason == GONE


def test_a_console_of_an_instance_that_is_gone() -> None:
    cases = [
        errors.InstanceNotFound(UUID),
        errors.InstanceNotReady(UUID, "migrating"),
        errors.InstanceNotRunning(UUID, "shutoff"),
        errors.ConsoleTypeUnavailable("novnc"),
    ]
    for error in cases:
        with naming(error):
            driver = FakeDriver()
            endpoint = build_endpoint(driver)
            driver.target = error
            found = refusal(endpoint.validate_console, UUID, "192.0.2.1", 5900, "novnc")
            assert isinstance(found, errors.TokenInvalid)
            assert found.reason == GONE


def test_a_hypervisor_that_is_silent_is_no_verdict_on_the_token(endpoint: ComputeEndpoint, driver: FakeDriver) -> None:
    driver.target = errors.HypervisorUnavailable("node1")
    assert refusal(endpoint.validate_console, UUID, "192.0.2.1", 5900, "novnc") is driver.target


def test_a_type_that_nobody_issues_is_not_validated(endpoint: ComputeEndpoint) -> None:
    error = refusal(endpoint.validate_console, UUID, "192.0.2.1", 5900, "rdp")
    assert isinstance(error, errors.TokenInvalid)
    assert error.reason == str(TokenReason.CONSOLE_TYPE)


def test_an_api_that_asks_gets_an_inventory(endpoint: ComputeEndpoint, wanted: Wanted) -> None:
    endpoint.publish_inventory(CONTEXT)
    assert wanted.count == 1


def test_the_token_is_in_no_log_line(endpoint: ComputeEndpoint, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = endpoint.get_vnc_console(CONTEXT, UUID, "novnc")["token"]
    refusal(endpoint.validate_console, UUID, "192.0.2.2", 5900, "novnc")
    assert token not in caplog.text

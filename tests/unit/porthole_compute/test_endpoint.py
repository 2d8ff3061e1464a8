# SPDX-License-Identifier: Apache-2.0

import functools
import inspect
import logging
import uuid
from dataclasses import replace
from typing import Any

import pytest

from porthole_common import errors, rpc
from porthole_common.context import RequestContext
from porthole_common.diagnosis import HostDescription
from porthole_common.model import Claim, ConnectInfo, ConsoleType, Owner, Target, TokenReason
from porthole_compute.endpoint import MAX_DISPLAYS, ComputeEndpoint
from porthole_compute.rpcapi import MAX_CONSOLES, TOPIC, VERSION, ComputeAPI
from support.cases import naming
from support.compute_fakes import OTHER_UUID, UUID, FakeDriver, make_conf
from support.descriptions import make_display

CONTEXT = RequestContext(overwrite=False)
HELD_UUID = "c0ffee00-0000-4000-8000-000000000003"
GONE = str(TokenReason.INSTANCE_GONE)
OTHER_OWNER = str(TokenReason.OWNER_CHANGED)
# What a console of FakeDriver is issued for.
CLAIM = Claim(UUID, ConsoleType.NOVNC, Target("192.0.2.1", 5900), "run-1", Owner("project-1", "user-1"))


class Calls:
    """An RpcClient, and the Rpc that gives it: keeps what it is asked to send, answers ``answer``."""

    def __init__(self, answer: dict[str, Any], answers: list[dict[str, Any]] | None = None) -> None:
        self.answer = answer
        # Of validate_consoles, call by call the next ones.
        self.answers = answers or []
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
        self,
        context: RequestContext,
        method: str,
        server: str | None = None,
        deadline: object = None,
        log_failures: bool = True,
        **arguments: Any,
    ) -> Any:
        self._calls.sent.append((method, arguments))
        self._calls.versions[method] = self._version
        if method == "validate_consoles":
            return [self._calls.answers.pop(0) for _ in arguments["consoles"]]
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


def validating(endpoint: ComputeEndpoint, claim: Claim) -> Any:
    """Return the call that asks the endpoint about ``claim``; it takes the context."""
    return lambda context: endpoint.validate_console(context, **claim.to_primitive())


def test_client_and_endpoint_agree(endpoint: ComputeEndpoint, driver: FakeDriver) -> None:
    console = endpoint.get_vnc_console(CONTEXT, UUID, "novnc")
    info = ConnectInfo.from_primitive(console)
    calls = Calls({**console, **endpoint.describe_host(CONTEXT), "expires_at": None}, [info.target.to_primitive()])
    client: Any = ComputeAPI(calls)  # type: ignore[arg-type]
    client.get_vnc_console(CONTEXT, "node1", UUID, "novnc")
    client.validate_console(CONTEXT, "node1", CLAIM)
    client.validate_consoles(CONTEXT, "node1", [info])
    client.publish_inventory(CONTEXT)
    client.describe_host(CONTEXT, "node1")
    used = {name for name, _ in inspect.getmembers(ComputeAPI, inspect.isfunction) if not name.startswith("_")}
    assert used == {
        "get_vnc_console",
        "validate_console",
        "validate_consoles",
        "publish_inventory",
        "describe_host",
    }
    served = {name for name, _ in inspect.getmembers(ComputeEndpoint, inspect.isfunction) if not name.startswith("_")}
    assert {method for method, _ in calls.sent} == served
    for method, arguments in calls.sent:
        inspect.signature(getattr(endpoint, method)).bind(CONTEXT, **arguments)
        getattr(endpoint, method)(CONTEXT, **arguments)
    assert endpoint.target.version == VERSION
    assert calls.versions.pop("validate_console") == calls.versions.pop("validate_consoles") == "1.2"
    assert calls.versions.pop("describe_host") == "1.1"
    # An api or a proxy that is newer than the computes must go on opening consoles.
    assert set(calls.versions.values()) == {"1.0"}


def test_a_claim_that_an_older_compute_can_check() -> None:
    """It is one that an older compute made."""
    claim = replace(CLAIM, run=None, owner=None)
    calls = Calls({"host": "192.0.2.1", "port": 5900})
    ComputeAPI(calls).validate_console(CONTEXT, "node1", claim)  # type: ignore[arg-type]
    arguments = {"instance_uuid": UUID, "console_type": "novnc", "host": "192.0.2.1", "port": 5900}
    assert calls.sent == [("validate_console", arguments)]
    assert calls.versions == {"validate_console": "1.0"}


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
    assert (info.run, info.owner) == (CLAIM.run, CLAIM.owner)
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


def test_a_console_of_another_run_or_another_owner() -> None:
    """Same guest, same address: run and owner are compared, and the owner's user too."""
    cases = [
        ({"run": "run-0"}, GONE),
        ({"run": ""}, GONE),
        ({"run": "run-0", "owner": Owner("project-0", "user-1")}, GONE),
        ({"owner": Owner("project-0", "user-1")}, OTHER_OWNER),
        ({"owner": Owner("project-1", "user-0")}, OTHER_OWNER),
        ({"owner": Owner()}, OTHER_OWNER),
    ]
    for change, reason in cases:
        with naming(change):
            endpoint = build_endpoint(FakeDriver())
            error = refusal(validating(endpoint, replace(CLAIM, **change)))
            assert isinstance(error, errors.TokenInvalid)
            assert error.reason == reason


def test_an_instance_without_an_owner_gets_one() -> None:
    driver = FakeDriver()
    driver.owner = Owner()
    endpoint = build_endpoint(driver)
    claim = replace(CLAIM, owner=Owner())
    assert validating(endpoint, claim)(CONTEXT)["port"] == 5900
    driver.owner = Owner("project-1", None)
    error = refusal(validating(endpoint, claim))
    assert isinstance(error, errors.TokenInvalid)
    assert error.reason == OTHER_OWNER


def test_a_run_or_an_owner_that_is_not_known_is_not_compared() -> None:
    """A token of an older compute, or in a store of an older consoleauth, has none."""
    for change in ({"run": None}, {"owner": None}, {"run": None, "owner": None}):
        with naming(change):
            endpoint = build_endpoint(FakeDriver())
            assert validating(endpoint, replace(CLAIM, **change))(CONTEXT) == CLAIM.target.to_primitive()
    driver = FakeDriver()
    driver.run = None
    assert validating(build_endpoint(driver), CLAIM)(CONTEXT) == CLAIM.target.to_primitive()


def test_a_run_or_an_owner_that_does_not_parse() -> None:
    for change in ({"run": 1}, {"run": "x" * 256}, {"owner": "project-1"}, {"owner": {"project_id": 1}}):
        with naming(change):
            endpoint = build_endpoint(FakeDriver())
            value = CLAIM.to_primitive() | change
            error = refusal(lambda context, value=value, endpoint=endpoint: endpoint.validate_console(context, **value))
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


def make_info(instance_uuid: str = UUID, port: int = 5900) -> ConnectInfo:
    return ConnectInfo(instance_uuid, ConsoleType.NOVNC, "192.0.2.1", port, "https://x/", "node1")


def to_issued(*infos: ConnectInfo) -> list[dict[str, Any]]:
    """What the client sends about these consoles."""
    calls = Calls({}, [Target("192.0.2.1", 5900).to_primitive()] * len(infos))
    ComputeAPI(calls).validate_consoles(CONTEXT, "node1", infos)  # type: ignore[arg-type]
    return [console for _, arguments in calls.sent for console in arguments["consoles"]]


def read_answers(answers: list[dict[str, Any]], count: int) -> list[Target | errors.PortholeError]:
    """What the client makes of these answers to ``count`` consoles."""
    calls = Calls({}, list(answers))
    return ComputeAPI(calls).validate_consoles(CONTEXT, "node1", [make_info()] * count)  # type: ignore[arg-type]


def test_many_consoles_have_the_answers_that_each_would_have(endpoint: ComputeEndpoint, driver: FakeDriver) -> None:
    driver.targets = {
        OTHER_UUID: errors.InstanceNotRunning(OTHER_UUID, "shutoff"),
        HELD_UUID: errors.HypervisorUnavailable("node1"),
    }
    infos = [
        make_info(),
        make_info(OTHER_UUID),
        make_info(port=5901),
        make_info(HELD_UUID),
        replace(make_info(), run=CLAIM.run, owner=CLAIM.owner),
        replace(make_info(), run="run-0"),
        replace(make_info(), owner=Owner("project-0", "user-1")),
    ]
    answers = read_answers(endpoint.validate_consoles(CONTEXT, to_issued(*infos)), len(infos))
    for info, answer in zip(infos, answers, strict=True):
        with naming(info):
            ask = validating(endpoint, info.claim)
            if isinstance(answer, errors.PortholeError):
                alone = refusal(ask)
                assert (type(answer), answer.args) == (type(alone), alone.args)
            else:
                assert ask(CONTEXT) == answer.to_primitive()
    assert [type(answer).__name__ for answer in answers] == [
        "Target",
        "TokenInvalid",
        "TokenInvalid",
        "HypervisorUnavailable",
        "Target",
        "TokenInvalid",
        "TokenInvalid",
    ]


def test_a_batch_is_bounded_and_the_client_keeps_to_it(endpoint: ComputeEndpoint) -> None:
    console = to_issued(make_info())[0]
    assert len(endpoint.validate_consoles(CONTEXT, [console] * MAX_CONSOLES)) == MAX_CONSOLES
    assert isinstance(refusal(endpoint.validate_consoles, [console] * (MAX_CONSOLES + 1)), errors.RequestInvalid)
    assert endpoint.validate_consoles(CONTEXT, []) == []
    calls = Calls({}, [Target("192.0.2.1", number).to_primitive() for number in range(1, 2 * MAX_CONSOLES + 2)])
    client = ComputeAPI(calls)  # type: ignore[arg-type]
    answers = client.validate_consoles(CONTEXT, "node1", [make_info()] * (2 * MAX_CONSOLES + 1))
    assert [answer.port for answer in answers if isinstance(answer, Target)] == list(range(1, 2 * MAX_CONSOLES + 2))
    assert [len(arguments["consoles"]) for _, arguments in calls.sent] == [MAX_CONSOLES, MAX_CONSOLES, 1]


def test_a_batch_of_another_shape_is_refused(endpoint: ComputeEndpoint) -> None:
    good = to_issued(make_info())[0]
    for bad in [{}, "x", None, 1, {name: value for name, value in good.items() if name != "host"}]:
        with naming(bad):
            error = refusal(endpoint.validate_consoles, [good, bad])
            assert isinstance(error, errors.RequestInvalid)
    for timeout_s in ("long", -1, float("nan")):
        with naming(timeout_s):
            ask = functools.partial(endpoint.validate_consoles, timeout_s=timeout_s)
            assert isinstance(refusal(ask, [good]), errors.RequestInvalid)
    assert len(endpoint.validate_consoles(CONTEXT, [good], 0.5)) == 1
    # Of a newer proxy.
    assert endpoint.validate_consoles(CONTEXT, [{**good, "added": 1}]) == [{"host": "192.0.2.1", "port": 5900}]


def test_an_answer_that_is_not_known_decides_nothing() -> None:
    for value in [
        {"error": "OfANewerVersion", "fields": []},
        {"error": "Any", "fields": []},
        {"error": "TokenInvalid", "fields": []},
        {"error": "TokenInvalid"},
        {"host": "192.0.2.1"},
        {"host": "192.0.2.1", "port": "x"},
    ]:
        with naming(value):
            assert isinstance(read_answers([value], 1)[0], errors.RemoteFailure)


def test_a_batch_with_too_few_answers_decides_nothing() -> None:
    class Short(Calls):
        def get_client(self, topic: str, version: str) -> Any:
            return self

        def call(self, *_arguments: Any, **_keywords: Any) -> list[dict[str, Any]]:
            return [{"host": "192.0.2.1", "port": 5900}]

    client = ComputeAPI(Short({}))  # type: ignore[arg-type]
    with pytest.raises(errors.RemoteFailure):
        client.validate_consoles(CONTEXT, "node1", [make_info()] * 2)

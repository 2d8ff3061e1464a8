# SPDX-License-Identifier: Apache-2.0
"""Every cause that a compute can name, over a real broker, on each way to a console: one status and no 500.

The compute is one that says what the test tells it: no hypervisor holds still while it builds, migrates or deletes.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from oslo_config import cfg

from porthole_common import errors, notifications
from porthole_common.context import RequestContext, build_daemon_context
from porthole_common.model import ConnectInfo, ConsoleType, Instance, InstanceState, build_token
from porthole_common.rpc import Rpc, RpcTarget, expected_exceptions
from porthole_compute.rpcapi import TOPIC
from support.bus import parse_global_conf
from support.console import token_of
from support.daemons import Answer, Porthole
from support.memcached import Memcached
from support.processes import wait_until
from support.rabbitmq import RabbitMQ

HOST = "told-host"
TOKEN_TTL_S = 4
UUID, UNKNOWN_UUID = "5a9d4f5e-0000-4000-8000-000000000001", "5a9d4f5e-0000-4000-8000-000000000099"
ACTION = {"os-getVNCConsole": {"type": "novnc"}}
REMOTE = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
# Both ways to a console at the microversions that have them.
WAYS = [("action", ACTION, version) for version in ("2.1", "2.6", "2.96")]
WAYS += [("remote-consoles", REMOTE, version) for version in ("2.6", "2.96")]
NOT_READY = (InstanceState.BUILDING, InstanceState.MIGRATING, InstanceState.DELETING)
# What compute raises, and what the user gets.
FAULTS: list[tuple[Exception, int, str]] = [
    *((errors.InstanceNotReady(UUID, str(state)), 409, "conflictingRequest") for state in NOT_READY),
    (errors.InstanceNotRunning(UUID, str(InstanceState.SHUTOFF)), 409, "conflictingRequest"),
    (errors.InstanceNotRunning(UUID, str(InstanceState.CRASHED)), 409, "conflictingRequest"),
    # As long as that host's inventory has it all the same, it may be on its way to another.
    (errors.InstanceNotFound(UUID), 409, "conflictingRequest"),
    (errors.ConsoleTypeUnavailable("novnc"), 400, "badRequest"),
    (errors.ConsoleTypeInvalid("novnc"), 400, "badRequest"),
    (errors.HypervisorUnavailable(HOST), 503, "serviceUnavailable"),
    # Those that nobody foresaw end there, and leave a trace in that host's log.
    (ZeroDivisionError("internals"), 503, "serviceUnavailable"),
    (ValueError("internals"), 503, "serviceUnavailable"),
]


class ToldCompute:
    """Serves ``get_vnc_console``: raises ``error``, or gives a console that nothing stands behind."""

    target = RpcTarget(version="1.0")

    def __init__(self, publish: Any) -> None:
        self.error: Exception | None = None
        self._publish = publish

    @expected_exceptions(errors.PortholeError)
    def get_vnc_console(self, context: RequestContext, instance_uuid: str, console_type: str) -> dict[str, Any]:
        if self.error:
            raise self.error
        token = build_token(instance_uuid)
        url = f"http://127.0.0.1:6080/console.html?path=%3Ftoken%3D{token}"
        return ConnectInfo(
            instance_uuid, ConsoleType(console_type), "127.0.0.1", 5900, url, HOST, token=token
        ).to_primitive()

    def publish_inventory(self, context: RequestContext) -> None:
        self._publish()


@pytest.fixture(scope="module")
def porthole(tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitMQ, memcached: Memcached) -> Iterator[Porthole]:
    directory = tmp_path_factory.mktemp("faults")
    options = {"consoleauth": {"token_ttl": TOKEN_TTL_S}}
    with Porthole(directory, rabbitmq, memcached, options=options, daemons=["consoleauth", "api"]) as porthole:
        yield porthole


@pytest.fixture(scope="module")
def compute(porthole: Porthole, rabbitmq: RabbitMQ) -> Iterator[ToldCompute]:
    """The compute, whose instance the api knows."""
    parse_global_conf()
    rpc = Rpc(cfg.CONF, 10, transport_url=rabbitmq.transport_url)
    instance = Instance(UUID, "vm1", InstanceState.RUNNING, project_id="red")
    publisher = notifications.InventoryPublisher(rpc)

    def publish() -> None:
        publisher.publish(build_daemon_context(), notifications.Inventory(HOST, (instance,)))

    told = ToldCompute(publish)
    server = rpc.get_server(TOPIC, HOST, [told])
    server.start()

    def is_known() -> bool:
        publish()
        return porthole.request(f"/v2.1/servers/{UUID}")[0] == 200

    wait_until(is_known, 60, "the api to know the instance", porthole.logs)
    yield told
    server.stop()
    rpc.close()
    cfg.CONF.reset()


def ask(porthole: Porthole, way: str, body: Any, version: str, uuid: str = UUID) -> Answer:
    headers = {"OpenStack-API-Version": f"compute {version}"}
    return porthole.send(f"/v2.1/servers/{uuid}/{way}", json.dumps(body).encode(), headers)


def assert_fault(answer: Answer, status: int, name: str, version: str) -> None:
    body = json.loads(answer.body)
    assert (answer.status, list(body), body[name]["code"]) == (status, [name], status)
    assert body[name]["message"]
    assert "internals" not in body[name]["message"]
    assert "Traceback" not in body[name]["message"]
    assert answer.headers["OpenStack-API-Version"] == f"compute {version}"
    assert answer.headers["X-OpenStack-Nova-API-Version"] == version
    assert answer.headers["Vary"] == "OpenStack-API-Version, X-OpenStack-Nova-API-Version"
    assert answer.headers["x-openstack-request-id"].startswith("req-")
    assert ("Retry-After" in answer.headers) == (status == 503)


@pytest.mark.parametrize(("way", "body", "version"), WAYS, ids=[f"{way}-{version}" for way, _, version in WAYS])
class TestEachWay:
    @pytest.mark.parametrize(("error", "status", "name"), FAULTS, ids=[repr(row[0]) for row in FAULTS])
    def test_what_compute_says(
        self,
        porthole: Porthole,
        compute: ToldCompute,
        way: str,
        body: Any,
        version: str,
        error: Exception,
        status: int,
        name: str,
    ) -> None:
        compute.error = error
        assert_fault(ask(porthole, way, body, version), status, name, version)

    def test_what_the_api_says_itself(
        self, porthole: Porthole, compute: ToldCompute, way: str, body: Any, version: str
    ) -> None:
        compute.error = None
        assert ask(porthole, way, body, version).status == 200
        assert_fault(ask(porthole, way, body, version, UNKNOWN_UUID), 404, "itemNotFound", version)
        assert_fault(ask(porthole, way, body, version, "vm1"), 404, "itemNotFound", version)
        for wrong in ({}, {**body, "more": 1}, {key: {**value, "type": "telnet"} for key, value in body.items()}):
            assert_fault(ask(porthole, way, wrong, version), 400, "badRequest", version)

    def test_what_no_microversion_has(
        self, porthole: Porthole, compute: ToldCompute, way: str, body: Any, version: str
    ) -> None:
        assert_fault(ask(porthole, way, body, "2.999"), 406, "computeFault", "2.1")
        assert_fault(ask(porthole, way, body, f"v{version}"), 400, "badRequest", "2.1")


def test_a_console_token_is_not_kept_alive_by_being_looked_at(porthole: Porthole, compute: ToldCompute) -> None:
    compute.error = None
    began_at_s, shown = time.monotonic(), 0
    token = token_of(json.loads(ask(porthole, "action", ACTION, "2.96").body)["console"]["url"])

    def is_gone() -> bool:
        nonlocal shown
        answer = porthole.send(f"/v2.1/os-console-auth-tokens/{token}", None, {"OpenStack-API-Version": "compute 2.96"})
        if answer.status == 200:
            shown += 1
            assert json.loads(answer.body)["console"]["instance_uuid"] == UUID
            return False
        assert_fault(answer, 404, "itemNotFound", "2.96")
        return True

    # Asked all the time; memcached counts in whole seconds.
    wait_until(is_gone, TOKEN_TTL_S + 10, "the token to expire", porthole.logs)
    assert shown > 1
    assert time.monotonic() - began_at_s > TOKEN_TTL_S - 2


def test_remote_consoles_are_not_there_below_2_6(porthole: Porthole, compute: ToldCompute) -> None:
    assert_fault(ask(porthole, "remote-consoles", REMOTE, "2.5"), 404, "itemNotFound", "2.5")


@pytest.mark.parametrize(
    ("protocol", "console_type"),
    [("spice", "spice-html5"), ("rdp", "rdp-html5"), ("serial", "serial"), ("mks", "webmks")],
)
def test_a_console_that_no_hypervisor_here_has(
    porthole: Porthole, compute: ToldCompute, protocol: str, console_type: str
) -> None:
    body = {"remote_console": {"protocol": protocol, "type": console_type}}
    answer = ask(porthole, "remote-consoles", body, "2.96")
    assert_fault(answer, 400, "badRequest", "2.96")
    assert f"Unavailable console type {console_type}" in answer.body.decode()

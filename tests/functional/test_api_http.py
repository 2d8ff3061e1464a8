# SPDX-License-Identifier: Apache-2.0
"""porthole-api as a process, with real RabbitMQ, memcached, consoleauth and compute: what a client gets over HTTP.

The instances are the static driver's: no VNC server is dialled here.
"""

import http.client
import json
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from support.daemons import Porthole
from support.deadlines import MACHINE_SLACK_S
from support.memcached import Memcached
from support.ports import free_port
from support.processes import Process, wait_until
from support.rabbitmq import RabbitMQ

UUID, UNKNOWN_UUID = "5a9d4f5e-0000-4000-8000-000000000001", "5a9d4f5e-0000-4000-8000-000000000099"
RPC_TIMEOUT_S = 4
# The answer comes within [rpc] call_timeout, and what a loaded machine may add.
ANSWER_S = RPC_TIMEOUT_S + MACHINE_SLACK_S
ACTION = {"os-getVNCConsole": {"type": "novnc"}}
REMOTE = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
WAYS = [("action", version) for version in ("2.1", "2.6", "2.96")]
WAYS += [("remote-consoles", version) for version in ("2.6", "2.96")]
DAEMONS = ["consoleauth", "compute", "api"]
TOKEN = re.compile(r"token%3D([0-9a-f-]{36})")
EXIT_CONFIG, EXIT_FAILED = 78, 1


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str
    took_s: float

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def send(
    port: int,
    path: str,
    body: Any = None,
    microversion: str | None = None,
    headers: dict[str, str] | None = None,
    host: str = "127.0.0.1",
) -> Answer:
    """Send one request: POST when there is a body, which is made JSON unless it is bytes."""
    headers = {"OpenStack-API-Version": f"compute {microversion}"} if microversion else {} | (headers or {})
    if body is not None:
        headers["Content-Type"] = "application/json"
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection(host, port, timeout=60)
    started_at_s = time.monotonic()
    connection.request("GET" if body is None else "POST", path, body, headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return Answer(response.status, response.headers, text, time.monotonic() - started_at_s)


@pytest.fixture(scope="module")
def porthole_of_module(
    tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitMQ, memcached: Memcached
) -> Iterator[Porthole]:
    directory = tmp_path_factory.mktemp("api")
    instances = directory / "instances.yaml"
    instances.write_text(f"instances: [{{uuid: {UUID}, name: vm1, host: 127.0.0.1, port: 5900, project_id: red}}]\n")
    options = {"rpc": {"call_timeout": RPC_TIMEOUT_S}}
    with Porthole(
        directory, rabbitmq, memcached, instances_file=instances, options=options, daemons=DAEMONS
    ) as porthole:
        yield porthole


@pytest.fixture
def porthole(porthole_of_module: Porthole) -> Iterator[Porthole]:
    """The three daemons, at work before each test; what a test takes away it brings back."""
    wait_for_console(porthole_of_module)
    yield porthole_of_module
    for daemon in DAEMONS:
        porthole_of_module.processes[daemon].signal(signal.SIGCONT)
        if not porthole_of_module.processes[daemon].running:
            porthole_of_module.start_daemon(daemon)


def ask(porthole: Porthole, way: str = "action", microversion: str | None = None, **arguments: Any) -> Answer:
    """Ask for the instance's console: by ``action``, at 2.1 if need be, or by ``remote-consoles``, at 2.96."""
    body, microversion = (ACTION, microversion) if way == "action" else (REMOTE, microversion or "2.96")
    return send(porthole.api_port, f"/v2.1/servers/{UUID}/{way}", body, microversion, **arguments)


def assert_unavailable(porthole: Porthole) -> None:
    """By each way at each microversion that has it; all at once, since each may take the whole deadline."""
    with ThreadPoolExecutor(len(WAYS)) as pool:
        answers = list(pool.map(lambda way: ask(porthole, *way), WAYS))
    for (_, microversion), answer in zip(WAYS, answers, strict=True):
        assert (answer.status, list(answer.json)) == (503, ["serviceUnavailable"]), answer.text
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["X-OpenStack-Nova-API-Version"] == microversion
        assert answer.took_s < ANSWER_S


def wait_for_console(porthole: Porthole, timeout_s: float = 60) -> None:
    wait_until(lambda: ask(porthole).status == 200, timeout_s, "a console", porthole.logs)


class TestAnswers:
    def test_lists_one_server_and_its_consoles(self, porthole: Porthole) -> None:
        port = porthole.api_port
        assert [one["id"] for one in send(port, "/v2.1/servers?name=vm1").json["servers"]] == [UUID]
        assert send(port, "/v2.1/servers/detail").json["servers"][0]["status"] == "ACTIVE"
        server = send(port, f"/v2.1/servers/{UUID}", microversion="2.96").json["server"]
        assert (server["name"], server["OS-EXT-SRV-ATTR:host"]) == ("vm1", porthole.host)
        console = ask(porthole).json["console"]
        assert console["url"].startswith(f"http://127.0.0.1:{porthole.novnc_port}/console.html?path=%3Ftoken%3D")
        remote = ask(porthole, "remote-consoles").json["remote_console"]
        assert (remote["protocol"], remote["type"]) == ("vnc", "novnc")
        assert TOKEN.search(remote["url"])
        assert send(port, f"/v2.1/servers/{UNKNOWN_UUID}/action", ACTION).status == 404
        assert send(port, "/healthcheck").status == 200

    def test_a_cold_api_waits_for_the_inventory_before_it_says_404(self, porthole: Porthole) -> None:
        for _ in range(2):
            porthole.api.stop()
            porthole.start_daemon("api")
            assert ask(porthole).status == 200

    def test_bad_bodies(self, porthole: Porthole) -> None:
        path = f"/v2.1/servers/{UUID}/action"
        for body in (b"not json", b"[" * 60000, b'{"os-getVNCConsole": "' + b"x" * (1 << 20) + b'"}', b"\xff", {}):
            answer = send(porthole.api_port, path, body)
            assert (answer.status, list(answer.json)) == (400, ["badRequest"])
        assert ask(porthole).status == 200

    def test_no_token_in_the_log_and_the_request_id_on_both_sides_of_the_bus(self, porthole: Porthole) -> None:
        global_id = "req-5a9d4f5e-0000-4000-8000-0000000000aa"
        answers = [ask(porthole, headers={"X-Openstack-Request-Id": global_id}) for _ in range(3)]
        answers.append(ask(porthole, "remote-consoles"))
        tokens = [match[1] for answer in answers if (match := TOKEN.search(answer.text))]
        assert len(tokens) == len(answers)
        for token in tokens:
            send(porthole.api_port, f"/v2.1/x?token={token}")
            send(porthole.api_port, f"/v2.1/{token}")
        for process in porthole.processes.values():
            for token in tokens:
                assert token not in process.log(), process.name
        request_id = answers[0].headers["x-openstack-request-id"]
        for daemon in ("api", "consoleauth"):
            assert request_id in porthole.processes[daemon].log(), daemon


class TestOutages:
    """Each takes something away, gets 503 within the deadline, and a console again when it is back."""

    @pytest.mark.parametrize(
        ("daemon", "end"),
        [("compute", signal.SIGKILL), ("compute", signal.SIGSTOP), ("consoleauth", signal.SIGKILL)],
        ids=["compute-killed", "compute-frozen", "consoleauth-killed"],
    )
    def test_a_daemon_is_gone(self, porthole: Porthole, daemon: str, end: int) -> None:
        process = porthole.processes[daemon]
        process.signal(end)
        if end == signal.SIGKILL:
            process.wait(10)
        assert_unavailable(porthole)
        if daemon == "compute":
            # Its last word is younger than 90 s: what it said stands.
            assert send(porthole.api_port, "/v2.1/servers/detail").json["servers"][0]["status"] == "ACTIVE"
        if end == signal.SIGSTOP:
            process.signal(signal.SIGCONT)
        else:
            porthole.start_daemon(daemon)
        wait_for_console(porthole)

    def test_memcached_is_gone(self, porthole: Porthole, memcached: Memcached) -> None:
        memcached.stop()
        try:
            assert_unavailable(porthole)
        finally:
            memcached.start()
        wait_for_console(porthole)

    @pytest.mark.parametrize("has_been_asked", [True, False], ids=["after-a-console", "before-any-console"])
    def test_the_broker_is_gone(self, porthole: Porthole, rabbitmq: RabbitMQ, has_been_asked: bool) -> None:
        if not has_been_asked:
            porthole.api.stop()
            porthole.start_daemon("api")
            assert send(porthole.api_port, "/v2.1/servers").json["servers"]
        rabbitmq.stop()
        try:
            assert_unavailable(porthole)
            assert send(porthole.api_port, "/v2.1/servers").status == 200
        finally:
            rabbitmq.start()
        wait_for_console(porthole)

    def test_without_a_broker_from_the_start_it_serves_and_says_so(
        self, porthole: Porthole, rabbitmq: RabbitMQ
    ) -> None:
        porthole.api.stop()
        rabbitmq.stop()
        try:
            porthole.start_waiting("api")
            assert_unavailable(porthole)
            for path in ("/v2.1/servers", "/v2.1/servers/detail", f"/v2.1/servers/{UUID}"):
                assert send(porthole.api_port, path).status == 503
            assert send(porthole.api_port, "/v2.1").status == 200
        finally:
            rabbitmq.start()
        wait_for_console(porthole)


class TestStart:
    def test_it_ends_in_order_at_sigterm(self, porthole: Porthole) -> None:
        assert ask(porthole).status == 200
        porthole.api.signal(signal.SIGTERM)
        assert porthole.api.wait(20) == 0
        assert "Traceback" not in porthole.api.log()

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
    def test_noauth_off_loopback_is_refused(self, porthole: Porthole, host: str) -> None:
        refused = porthole.add("api", f"refused-{host}", {"api": {"bind_host": host, "bind_port": free_port()}})
        refused.start()
        assert refused.wait(30) == EXIT_CONFIG
        assert "[api] auth_strategy" in refused.log()
        assert "Traceback" not in refused.log()

    def test_a_port_in_use_may_be_free_later(self, porthole: Porthole) -> None:
        second = porthole.add("api", "second")
        second.start()
        assert second.wait(30) == EXIT_FAILED
        assert f"[api] bind_port: cannot listen on 127.0.0.1 port {porthole.api_port}" in second.log()
        assert "Traceback" not in second.log()

    def test_it_listens_on_ipv6(self, porthole: Porthole) -> None:
        port = free_port()
        porthole.add("api", "ipv6", {"api": {"bind_host": "::1", "bind_port": port}})
        process = porthole.start_daemon("ipv6")
        assert send(port, "/v2.1", host="::1").status == 200
        process.stop()


WSGI_SERVER = """
import os, sys
from wsgiref.simple_server import make_server
from porthole_api.wsgi import application

server = make_server("127.0.0.1", int(sys.argv[1]), application)
if os.fork():
    os.wait()
else:
    server.serve_forever()
"""


def is_listening(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(20)
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def wsgi_server(porthole: Porthole) -> Iterator[int]:
    """A WSGI server that imports the application before it forks its worker; its port."""
    port = free_port()
    env = {"PORTHOLE_CONFIG_FILE": str(porthole.conf_path)}
    argv = [sys.executable, "-c", WSGI_SERVER, str(port)]
    process = Process(argv, porthole.directory / "wsgi.log", env, name="wsgi", new_session=True)
    process.start()
    process.wait_for(lambda: is_listening(port), 30, "its port")
    yield port
    process.kill()


def test_the_application_under_another_wsgi_server(porthole: Porthole, wsgi_server: int) -> None:
    porthole.api.stop()
    for _ in range(2):
        answer = send(wsgi_server, f"/v2.1/servers/{UUID}/action", ACTION)
        assert answer.status == 200, answer.text
    assert send(wsgi_server, f"/v2.1/servers/{UNKNOWN_UUID}").status == 404

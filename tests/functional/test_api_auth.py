# SPDX-License-Identifier: Apache-2.0
"""Who gets what from porthole-api, with a real Keystone and a file of users, and what unmodified clients make of it.

The instances are the static driver's: red's and rita's have a VNC server behind them, blue's and nobody's have none.
"""

import json
import re
import signal
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from porthole_api.app import build_routes
from porthole_api.consoles import ConsoleOpener
from support.console import open_console, read_greeting, token_of
from support.daemons import Porthole
from support.deadlines import kept_within
from support.memcached import Memcached
from support.openstack import Done, Keystone, run_client, run_script
from support.ports import free_port
from support.processes import wait_until
from support.rabbitmq import RabbitMQ
from support.vnc_servers import GREETING, EchoVnc

RED, BLUE, STRAY, RITAS, UNKNOWN = (f"5a9d4f5e-0000-4000-8000-00000000000{number}" for number in (1, 2, 3, 4, 9))
# The product's default. Keystone's first answers take seconds on a busy machine, and its start a minute.
RPC_TIMEOUT_S = 10
pytestmark = pytest.mark.timeout(300)
LATEST = {"OpenStack-API-Version": "compute 2.96"}
ACTION = {"os-getVNCConsole": {"type": "novnc"}}
REMOTE = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
EXIT_CONFIG = 78


@pytest.fixture(scope="module")
def vnc() -> Iterator[EchoVnc]:
    with EchoVnc() as server:
        yield server


@pytest.fixture(scope="module")
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    with Keystone(tmp_path_factory.mktemp("keystone")) as keystone:
        keystone.create_user("porthole", "service", "admin")
        keystone.create_user("owner", "red", "member", "reader")
        keystone.create_user("looker", "red", "reader")
        keystone.create_user("guest", "red", "guest")
        keystone.create_user("other", "blue", "member", "reader")
        yield keystone


@pytest.fixture(scope="module")
def porthole(
    tmp_path_factory: pytest.TempPathFactory,
    rabbitmq: RabbitMQ,
    memcached: Memcached,
    keystone: Keystone,
    vnc: EchoVnc,
) -> Iterator[Porthole]:
    """All daemons, and three apis: Keystone's, ``basic`` and ``open``, on the ports of :data:`PORTS`."""
    directory = tmp_path_factory.mktemp("auth")
    instances = [
        {
            "uuid": RED,
            "name": "red-1",
            "host": "127.0.0.1",
            "port": vnc.port,
            "project_id": keystone.get_project_id("red"),
        },
        {
            "uuid": BLUE,
            "name": "blue-1",
            "host": "127.0.0.1",
            "port": 5999,
            "project_id": keystone.get_project_id("blue"),
        },
        {"uuid": STRAY, "name": "stray", "host": "127.0.0.1", "port": 5999},
        {"uuid": RITAS, "name": "rita-1", "host": "127.0.0.1", "port": vnc.port, "project_id": "rita"},
    ]
    (directory / "instances.yaml").write_text(json.dumps({"instances": instances}))
    options = {
        "api": {"auth_strategy": "keystone"},
        "rpc": {"call_timeout": RPC_TIMEOUT_S},
        # Each request asks Keystone anew: a revocation counts at once.
        "keystone_authtoken": {**keystone.build_options(), "token_cache_time": -1},
    }
    with Porthole(
        directory, rabbitmq, memcached, instances_file=directory / "instances.yaml", options=options
    ) as porthole:
        keystone.create_compute_endpoint(f"{porthole.api_url}/v2.1")
        yield porthole


Headers = Mapping[str, str]


def send(
    porthole: Porthole, path: str, body: Any = None, headers: Headers | None = None, method: str | None = None
) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    status, text = porthole.request(path, data, {**LATEST, **(headers or {})}, method)
    return status, json.loads(text)


def issue(keystone: Keystone, user: str, project: str | None) -> Headers:
    return {"X-Auth-Token": keystone.issue_token(user, project)}


def wait_for_servers(porthole: Porthole, headers: Headers, count: int) -> None:
    def has_all() -> bool:
        status, body = send(porthole, "/v2.1/servers?all_tenants=1", None, headers)
        return status == 200 and len(body["servers"]) == count

    wait_until(has_all, 60, "the api to know the instances", porthole.logs)


@pytest.fixture(scope="module")
def admin(porthole: Porthole, keystone: Keystone) -> Headers:
    headers = issue(keystone, "admin", "admin")
    wait_for_servers(porthole, headers, 4)
    return headers


# Who: (user, project); None is nobody at all.
PEOPLE = {
    "admin": ("admin", "admin"),
    "owner-member": ("owner", "red"),
    "owner-reader": ("looker", "red"),
    "others-member": ("other", "blue"),
    "no-role": ("guest", "red"),
    "unscoped": ("owner", None),
    "anonymous": None,
}
# What to whom, in the order of PEOPLE. All instances are red's.
MATRIX = {
    ("/",): (200, 200, 200, 200, 200, 200, 200),
    ("/v2.1",): (200, 200, 200, 200, 200, 200, 200),
    ("/v2.1/",): (200, 200, 200, 200, 200, 200, 200),
    ("/healthcheck",): (200, 200, 200, 200, 200, 200, 200),
    ("/v2.1/servers",): (200, 200, 200, 200, 403, 403, 401),
    ("/v2.1/servers/detail",): (200, 200, 200, 200, 403, 403, 401),
    ("/v2.1/servers?all_tenants=1",): (200, 403, 403, 403, 403, 403, 401),
    ("/v2.1/servers/detail?all_tenants=1",): (200, 403, 403, 403, 403, 403, 401),
    (f"/v2.1/servers/{RED}",): (200, 200, 200, 404, 403, 404, 401),
    (f"/v2.1/servers/{STRAY}",): (200, 404, 404, 404, 404, 404, 401),
    (f"/v2.1/servers/{RED}/action", "action"): (200, 200, 403, 404, 403, 404, 401),
    (f"/v2.1/servers/{RED}/remote-consoles", "remote"): (200, 200, 403, 404, 403, 404, 401),
    (f"/v2.1/servers/{STRAY}/remote-consoles", "remote"): (200, 404, 404, 404, 404, 404, 401),
    (f"/v2.1/os-console-auth-tokens/{UNKNOWN}",): (404, 403, 403, 403, 403, 403, 401),
    (f"/porthole/v1/servers/{RED}/consoles", "control"): (201, 201, 403, 404, 403, 404, 401),
    (f"/porthole/v1/servers/{RED}/consoles", "view"): (201, 201, 201, 404, 403, 404, 401),
    (f"/porthole/v1/servers/{STRAY}/consoles", "view"): (201, 404, 404, 404, 404, 404, 401),
    # No history is kept here; who may ask is decided first.
    ("/porthole/v1/audit",): (503, 503, 503, 503, 403, 403, 401),
    ("/porthole/v1/sessions",): (200, 200, 200, 200, 403, 403, 401),
    (f"/porthole/v1/sessions/{UNKNOWN}",): (404, 404, 403, 404, 403, 403, 401),
    (f"/porthole/v1/sessions/{UNKNOWN}", "end"): (404, 404, 403, 404, 403, 403, 401),
    (f"/porthole/v1/servers/{RED}/sessions", "end"): (200, 200, 403, 404, 403, 404, 401),
    (f"/porthole/v1/servers/{STRAY}/sessions", "end"): (200, 404, 404, 404, 404, 404, 401),
    ("/v2.1/openapi.json",): (200, 200, 200, 200, 200, 200, 200),
    ("/v2.1/RED/servers",): (200, 200, 200, 400, 403, 400, 401),
    ("/v2.1/RED/servers/detail",): (200, 200, 200, 400, 403, 400, 401),
    (f"/v2.1/RED/servers/{RED}",): (200, 200, 200, 400, 403, 400, 401),
    (f"/v2.1/RED/servers/{RED}/action", "action"): (200, 200, 403, 400, 403, 400, 401),
    (f"/v2.1/RED/servers/{RED}/remote-consoles", "remote"): (200, 200, 403, 400, 403, 400, 401),
    (f"/v2.1/RED/os-console-auth-tokens/{UNKNOWN}",): (404, 403, 403, 400, 403, 400, 401),
    ("/v2.1/flavors",): (404, 404, 404, 404, 404, 404, 404),
}
CONTROL, VIEW = {"console": {"mode": "control"}}, {"console": {"mode": "view"}}
BODIES = {"action": ACTION, "remote": REMOTE, "control": CONTROL, "view": VIEW, "end": {"reason": "why"}}


def find_method(*body: str) -> str:
    """Return the method of a row, by the name of its body."""
    return "DELETE" if body == ("end",) else "POST" if body else "GET"


def test_the_matrix_has_every_route() -> None:
    fake: Any = None
    routes = build_routes(ConsoleOpener(fake, fake, fake, fake), fake, "keystone")
    asked = [(find_method(*body), path.partition("?")[0]) for path, *body in MATRIX]
    missing = [
        (route.method, route.path)
        for route in routes
        if not any(method == route.method and route.pattern.fullmatch(path) for method, path in asked)
    ]
    assert missing == []


class TestKeystone:
    @pytest.mark.parametrize("person", PEOPLE)
    def test_who_may_do_what(self, porthole: Porthole, keystone: Keystone, admin: Headers, person: str) -> None:
        credentials = PEOPLE[person]
        headers = issue(keystone, *credentials) if credentials else {}
        column = list(PEOPLE).index(person)
        red = keystone.get_project_id("red")
        answers = {}
        for (template, *body), expected in MATRIX.items():
            path = template.replace("RED", red)
            if path == "/healthcheck":
                status = porthole.request(path, None, headers)[0]
            else:
                status, _ = send(porthole, path, BODIES[body[0]] if body else None, headers, find_method(*body))
            answers[path, *body] = status, expected[column]
        assert {key: value for key, value in answers.items() if value[0] != value[1]} == {}

    def test_lists_are_of_the_project(self, porthole: Porthole, keystone: Keystone, admin: Headers) -> None:
        def names(headers: Headers, query: str = "") -> set[str]:
            return {server["name"] for server in send(porthole, f"/v2.1/servers{query}", None, headers)[1]["servers"]}

        assert names(issue(keystone, "looker", "red")) == {"red-1"}
        assert names(issue(keystone, "other", "blue")) == {"blue-1"}
        assert names(admin) == {"stray"}
        assert names(admin, "?all_tenants=True") == {"red-1", "blue-1", "stray", "rita-1"}
        assert names(admin, f"?all_tenants=True&tenant_id={keystone.get_project_id('blue')}") == {"blue-1"}

    def test_a_token_that_is_none_or_was_one_is_refused(
        self, porthole: Porthole, keystone: Keystone, admin: Headers
    ) -> None:
        for claim in ({"X-Auth-Token": "nonsense"}, {"X-Auth-Token": ""}, {"X-Roles": "admin", "X-User-Id": "admin"}):
            status, body = send(porthole, "/v2.1/servers", None, claim)
            assert (status, list(body)) == (401, ["unauthorized"])
        headers = issue(keystone, "owner", "red")
        assert send(porthole, f"/v2.1/servers/{RED}/action", ACTION, headers)[0] == 200
        keystone.revoke(headers["X-Auth-Token"])
        assert send(porthole, f"/v2.1/servers/{RED}/action", ACTION, headers)[0] == 401

    @pytest.mark.parametrize(("minutes", "status"), [(5, 200), (-5, 401)], ids=["valid", "expired"])
    def test_a_token_that_has_run_out_is_refused(
        self, porthole: Porthole, keystone: Keystone, admin: Headers, minutes: int, status: int
    ) -> None:
        headers = {"X-Auth-Token": keystone.make_token("owner", "red", minutes)}
        for path, body in ((f"/v2.1/servers/{RED}", None), (f"/v2.1/servers/{RED}/action", ACTION)):
            assert send(porthole, path, body, headers)[0] == status

    def test_a_console_token_is_shown_and_lives_on_unlogged(
        self, porthole: Porthole, keystone: Keystone, admin: Headers, vnc: EchoVnc
    ) -> None:
        owner = issue(keystone, "owner", "red")
        _, body = send(porthole, f"/v2.1/servers/{RED}/remote-consoles", REMOTE, owner)
        token = token_of(body["remote_console"]["url"])
        expected = {"instance_uuid": RED, "host": "127.0.0.1", "port": vnc.port, "internal_access_path": None}
        for _ in range(2):
            assert send(porthole, f"/v2.1/os-console-auth-tokens/{token}", None, admin) == (200, {"console": expected})
        with open_console(porthole.novnc_port, token) as console:
            assert read_greeting(console) == GREETING
        assert token not in porthole.logs()

    @pytest.mark.parametrize(("way", "body"), [("action", ACTION), ("remote-consoles", REMOTE)])
    def test_the_requests_ids_are_in_every_daemons_line_of_it(
        self, porthole: Porthole, keystone: Keystone, admin: Headers, way: str, body: Any
    ) -> None:
        """The caller's, which goes through all services of a cloud, and the api's own, which the answer has."""
        global_id = f"req-{uuid.uuid4()}"
        headers = {**LATEST, **issue(keystone, "owner", "red"), "X-OpenStack-Request-ID": global_id}
        written = {
            process.name: len(process.log()) for process in (porthole.api, porthole.compute, porthole.consoleauth)
        }
        answer = porthole.send(f"/v2.1/servers/{RED}/{way}", json.dumps(body).encode(), headers)
        assert answer.status == 200
        own_id = answer.headers["x-openstack-request-id"]
        assert re.fullmatch(r"req-[0-9a-f-]{36}", own_id)
        assert own_id != global_id
        for process in (porthole.api, porthole.compute, porthole.consoleauth):
            lines = [line for line in process.log()[written[process.name] :].splitlines() if RED in line]
            assert lines, process.name
            for line in lines:
                assert global_id in line, line
                assert own_id in line, line

    def test_a_request_id_that_is_none_is_not_taken_into_the_log(
        self, porthole: Porthole, keystone: Keystone, admin: Headers
    ) -> None:
        for claim in ("x" * 40, "req-nonsense", f"{uuid.uuid4()}"):
            headers = {**LATEST, **issue(keystone, "owner", "red"), "X-OpenStack-Request-ID": claim}
            answer = porthole.send(f"/v2.1/servers/{RED}/action", json.dumps(ACTION).encode(), headers)
            assert answer.status == 200
            assert answer.headers["x-openstack-request-id"] != claim
            assert claim not in porthole.logs()

    def test_without_keystone_the_answer_is_503_in_time(
        self, porthole: Porthole, keystone: Keystone, admin: Headers
    ) -> None:
        headers = issue(keystone, "owner", "red")
        keystone.process.signal(signal.SIGSTOP)
        try:
            with kept_within(RPC_TIMEOUT_S, "the answer"):
                assert send(porthole, f"/v2.1/servers/{RED}", None, headers)[0] == 503
        finally:
            keystone.process.signal(signal.SIGCONT)
        wait_until(
            lambda: send(porthole, f"/v2.1/servers/{RED}", None, headers)[0] == 200, 60, "Keystone", porthole.logs
        )
        keystone.stop()
        try:
            status, body = send(porthole, f"/v2.1/servers/{RED}/action", ACTION, headers)
            assert (status, list(body)) == (503, ["serviceUnavailable"])
            assert send(porthole, "/v2.1")[0] == 200
        finally:
            keystone.start()
        # Its first answers take long, and the api gives up in time.
        wait_until(
            lambda: send(porthole, f"/v2.1/servers/{RED}/action", ACTION, headers)[0] == 200, 60, "Keystone again"
        )


# The console commands of each client that find their server by name and by id, and one that finds none.
OPENSTACK = [
    "server list -f json",
    "server show {name} -f json",
    "server show {uuid} -f json",
    "console url show --novnc {name} -f json",
    "console url show --novnc {uuid} -f json",
    "console url show --novnc nosuch -f json",
]
NOVA = [
    "list",
    "show {name}",
    "show {uuid}",
    "get-vnc-console {name} novnc",
    "get-vnc-console {uuid} novnc",
    "get-vnc-console nosuch novnc",
]
SDK = """
import json, sys
import openstack
cloud = openstack.connect(**json.loads(sys.argv[1]))
compute, name, uuid = cloud.compute, *sys.argv[2:]
server = compute.find_server(name, ignore_missing=False)
print(json.dumps({
    "list": [one.name for one in compute.servers()],
    "ids": [server.id, compute.get_server(uuid).id],
    "unknown": compute.find_server("nosuch", ignore_missing=True),
    "urls": [
        compute.create_console(server, console_type="novnc")["url"],
        compute.create_server_remote_console(server, protocol="vnc", type="novnc").url,
        compute.get_server_console_url(server, "novnc")["url"],
    ],
}))
"""
URL = re.compile(r"http://127\.0\.0\.1:\d+/console\.html\?path=[^\s\"|]+")
# What nova insists on, and does not use without Keystone.
DUMMIES = {"OS_USERNAME": "x", "OS_PROJECT_NAME": "x", "OS_AUTH_URL": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def htpasswd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("basic") / "htpasswd"
    lines = [f"{user}:{bcrypt.hashpw(user.encode(), bcrypt.gensalt(4)).decode()}" for user in ("root", "rita")]
    # A comment and an entry of another kind concern nobody else.
    path.write_text("\n".join(["# users", "old:$apr1$rOioh4Wh$bVD3DRwksETubcpEH90ww0", *lines]))
    return path


@pytest.fixture(scope="module")
def other_apis(porthole: Porthole, htpasswd: Path) -> dict[str, str]:
    """The URLs of two further apis on the same bus, by their strategy."""
    urls = {}
    for strategy in ("noauth", "http_basic"):
        port = free_port()
        options = {"bind_port": port, "auth_strategy": strategy}
        basic = {"http_basic_auth_user_file": str(htpasswd), "admin_users": "root"}
        porthole.add("api", strategy, {"api": {**options, **basic}})
        porthole.start_daemon(strategy)
        urls[strategy] = f"http://127.0.0.1:{port}/v2.1"
    return urls


@dataclass(frozen=True)
class Login:
    """A user's environment variables and arguments of ``openstack.connect``, and the server the user has."""

    variables: Headers
    arguments: dict[str, Any]
    name: str
    uuid: str

    def run(self, module: str, commands: list[str], **variables: str) -> list[Done]:
        argvs = [command.format(name=self.name, uuid=self.uuid).split() for command in commands]
        return run_client(module, argvs, {**variables, **self.variables})


def build_login(strategy: str, urls: Mapping[str, str], keystone: Keystone) -> Login:
    if strategy == "keystone":
        auth = {"auth_url": keystone.url, "username": "owner", "password": "owner", "project_name": "red"}
        auth |= {"user_domain_name": "Default", "project_domain_name": "Default"}
        arguments = {"auth": auth, "region_name": "RegionOne"}
        return Login(keystone.build_variables("owner", "red"), arguments, "red-1", RED)
    url = urls[strategy]
    variables = {"OS_ENDPOINT": url, "OS_IDENTITY_API_VERSION": "3"}
    if strategy == "noauth":
        return Login({"OS_AUTH_TYPE": "none", **variables}, {"auth_type": "none", "endpoint": url}, "red-1", RED)
    variables |= {"OS_AUTH_TYPE": "http_basic", "OS_USERNAME": "rita", "OS_PASSWORD": "rita"}
    variables |= {"OS_IDENTITY_ENDPOINT_OVERRIDE": url}
    auth = {"endpoint": url, "username": "rita", "password": "rita"}
    return Login(variables, {"auth_type": "http_basic", "auth": auth}, "rita-1", RITAS)


def assert_opens(porthole: Porthole, texts: list[str]) -> None:
    for text in texts:
        found = URL.search(text)
        assert found, text
        with open_console(porthole.novnc_port, token_of(found.group())) as console:
            assert read_greeting(console) == GREETING


class TestClients:
    """Unmodified clients: by name, by id, by a name there is not, and the URL opened."""

    @pytest.fixture(params=["noauth", "http_basic", "keystone"])
    def login(
        self,
        request: pytest.FixtureRequest,
        porthole: Porthole,
        other_apis: dict[str, str],
        keystone: Keystone,
        admin: Headers,
    ) -> Login:
        return build_login(request.param, other_apis, keystone)

    def test_openstack(self, porthole: Porthole, login: Login) -> None:
        listed, by_name, by_id, *urls, unknown = login.run("openstackclient.shell", OPENSTACK)
        assert login.name in [server["Name"] for server in json.loads(listed.out)], listed
        assert json.loads(by_name.out)["id"] == json.loads(by_id.out)["id"] == login.uuid
        assert_opens(porthole, [done.out for done in urls])
        assert unknown.status == 1
        assert "nosuch" in unknown.err

    def test_nova(self, porthole: Porthole, login: Login) -> None:
        listed, by_name, by_id, *urls, unknown = login.run("novaclient.shell", NOVA, **DUMMIES)
        assert login.name in listed.out, listed
        assert login.uuid in by_name.out, by_name
        assert login.uuid in by_id.out, by_id
        assert_opens(porthole, [done.out for done in urls])
        assert unknown.status == 1
        assert "nosuch" in unknown.err

    def test_openstacksdk(self, porthole: Porthole, login: Login) -> None:
        seen = json.loads(run_script(SDK, {}, json.dumps(login.arguments), login.name, login.uuid))
        assert login.name in seen["list"]
        assert (seen["ids"], seen["unknown"]) == ([login.uuid, login.uuid], None)
        assert_opens(porthole, seen["urls"])

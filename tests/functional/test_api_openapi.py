# SPDX-License-Identifier: Apache-2.0
"""The document of a running api: its answers are what it says, whoever makes the requests up.

With a file of users, since authentication is part of what is described; the instance is the static driver's.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from support.cases import naming
from support.console import token_of
from support.daemons import Porthole
from support.memcached import Memcached
from support.openapi import assert_conforms
from support.openstack import run_schemathesis
from support.processes import wait_until
from support.rabbitmq import RabbitMQ

UUID, UNKNOWN_UUID = "5a9d4f5e-0000-4000-8000-000000000001", "5a9d4f5e-0000-4000-8000-000000000099"
# Those at which a body changes.
VERSIONS = ["2.1", "2.8", "2.9", "2.19", "2.26", "2.47", "2.63", "2.71", "2.73", "2.96"]
ROOT = {"Authorization": f"Basic {b64encode(b'root:root').decode()}"}
RITA = {"Authorization": f"Basic {b64encode(b'rita:rita').decode()}"}
ACTION = {"os-getVNCConsole": {"type": "novnc"}}
REMOTE = {"remote_console": {"protocol": "vnc", "type": "novnc"}}


@pytest.fixture(scope="module")
def porthole(tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitMQ, memcached: Memcached) -> Iterator[Porthole]:
    directory = tmp_path_factory.mktemp("openapi")
    users, instances = directory / "htpasswd", directory / "instances.yaml"
    users.write_text(
        "\n".join(f"{user}:{bcrypt.hashpw(user.encode(), bcrypt.gensalt(4)).decode()}" for user in ("root", "rita"))
    )
    instances.write_text(f"instances: [{{uuid: {UUID}, name: vm1, host: 127.0.0.1, port: 5900, project_id: rita}}]\n")
    options = {
        # schemathesis waits for each answer.
        "DEFAULT": {"debug": False},
        "history": {"enabled": True},
        "api": {"auth_strategy": "http_basic", "http_basic_auth_user_file": users, "admin_users": "root"},
    }
    daemons = ["consoleauth", "compute", "api"]
    with Porthole(
        directory, rabbitmq, memcached, instances_file=instances, options=options, daemons=daemons
    ) as porthole:
        wait_until(lambda: porthole.request(f"/v2.1/servers/{UUID}", None, ROOT)[0] == 200, 60, "the instance")
        yield porthole


class Asker:
    """Sends requests of one microversion, and holds every answer against the document of it."""

    def __init__(self, porthole: Porthole, version: str) -> None:
        self.porthole = porthole
        self.headers = {"OpenStack-API-Version": f"compute {version}"}
        _, text = porthole.request("/v2.1/openapi.json", None, self.headers)
        self.document = json.loads(text)
        assert self.document["info"]["version"] == version

    def ask(
        self, path: str, body: Any = None, user: dict[str, str] = ROOT, query: str = "", **names: str
    ) -> tuple[int, Any]:
        names = {"id": UUID, "project_id": "rita", **names}
        data = None if body is None else json.dumps(body).encode()
        answer = self.porthole.send(path.format(**names) + query, data, {**self.headers, **user})
        value = json.loads(answer.body)
        assert_conforms(self.document, "POST" if body else "GET", path, answer.status, answer.headers, value)
        return answer.status, value


@pytest.mark.parametrize("version", VERSIONS)
def test_answers_at_each_microversion_are_those_of_its_document(porthole: Porthole, version: str) -> None:
    asker = Asker(porthole, version)
    minor = int(version.partition(".")[2])
    for user in (ROOT, RITA):
        for base in ("/v2.1", "/v2.1/{project_id}"):
            assert asker.ask(f"{base}/servers/detail", user=user)[0] == 200
            assert asker.ask(f"{base}/servers/{{id}}", user=user)[0] == 200
            assert asker.ask(f"{base}/servers/{{id}}/action", ACTION, user)[0] == 200
            if minor >= 6:
                assert asker.ask(f"{base}/servers/{{id}}/remote-consoles", REMOTE, user)[0] == 200
    assert asker.ask("/v2.1/servers", query="?limit=1&all_tenants=1")[0] == 200
    for path in ("/", "/v2.1", "/v2.1/openapi.json"):
        assert asker.ask(path, user={})[0] == 200
    for path in ("/v2.1/servers", "/v2.1/servers/{id}", "/porthole/v1/audit", "/porthole/v1/sessions"):
        assert asker.ask(path, user={})[0] == 401
    for user in (ROOT, RITA):
        for path in ("/porthole/v1/audit", "/porthole/v1/sessions"):
            assert asker.ask(path, user=user, query="?limit=1")[0] == 200
    assert asker.ask("/v2.1/servers", query="?all_tenants=1", user=RITA)[0] == 403
    assert asker.ask("/v2.1/servers/{id}", id=UNKNOWN_UUID)[0] == 404
    assert asker.ask("/v2.1/servers", query="?sort_key=colour")[0] == 400
    if minor >= 31:
        tokens = "/v2.1/os-console-auth-tokens/{token}"
        token = token_of(asker.ask("/v2.1/servers/{id}/action", ACTION)[1]["console"]["url"])
        assert asker.ask(tokens, token=token)[0] == 200
        assert asker.ask(tokens, token=UNKNOWN_UUID)[0] == 404
        assert asker.ask(tokens, token=token, user=RITA)[0] == 403


def test_every_operation_needs_a_password(porthole: Porthole) -> None:
    document = Asker(porthole, "2.96").document
    public = {"/", "/v2.1", "/v2.1/openapi.json"}
    asked = [(method, path) for path, operations in document["paths"].items() for method in operations]
    assert len(asked) > 15
    for method, path in asked:
        with naming(method, path):
            names = {"id": UUID, "project_id": "rita", "token": UNKNOWN_UUID}
            body = b"{}" if method == "post" else None
            answer = porthole.send(
                path.format(**names), body, {"OpenStack-API-Version": "compute 2.96"}, method.upper()
            )
            assert answer.status == (200 if path in public else 401)


@pytest.mark.parametrize(("version", "examples"), [("2.1", 3), ("2.96", 6)])
def test_schemathesis_finds_no_fault(porthole: Porthole, tmp_path: Path, version: str, examples: int) -> None:
    """Hundreds of requests that it makes up of the document: valid, and almost valid."""
    report = run_schemathesis(
        f"{porthole.api_url}/v2.1/openapi.json",
        tmp_path,
        *("--header", f"OpenStack-API-Version: compute {version}"),
        *("--auth", "root:root", "--max-examples", str(examples), "--seed", "1"),
        # Below a project's id it is the same handlers.
        *("--exclude-path-regex", "project_id"),
    )
    found = re.search(r"(\d+) generated, (\d+) passed", report)
    assert found, report
    assert int(found[1]) == int(found[2]) > 100, report
    assert " status=500 " not in porthole.api.log()

# SPDX-License-Identifier: Apache-2.0
"""The API's document: every route, no other, and answers that are what it says, at each microversion that matters."""

import functools
import itertools
import json
from typing import Any

import jsonschema
import pytest

from porthole_api.app import build_routes
from porthole_api.consoles import ConsoleOpener
from porthole_api.microversions import MAX_VERSION, Version, format_version
from porthole_api.openapi import build_document
from porthole_api.policy import Policy
from porthole_api.routes import Route
from porthole_api.schemas import TYPES_OF_PROTOCOL
from porthole_api.snapshot import SILENT_AFTER_S
from porthole_common import errors
from porthole_common.model import InstanceState
from support.api import TOKEN, Api, build_conf, build_directory, build_instance, build_uuid
from support.cases import naming
from support.openapi import assert_conforms, find_response

URL = "https://cloud.example/compute"
# Those at which a body changes, and the one before remote-consoles.
VERSIONS: list[Version] = [(2, minor) for minor in (1, 6, 8, 9, 16, 19, 26, 31, 47, 63, 71, 73, 96)]
UUID, UNKNOWN_UUID = build_uuid(1), build_uuid(99)
ACTION = {"os-getVNCConsole": {"type": "novnc"}}
REMOTE = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
SERVER, TOKENS = "/v2.1/servers/{id}", "/v2.1/os-console-auth-tokens/{token}"


def routes(auth_strategy: str = "noauth") -> list[Route]:
    fake: Any = None
    return build_routes(ConsoleOpener(build_directory(), fake, fake, Policy(build_conf())), fake, auth_strategy)


def build(version: Version = MAX_VERSION, auth_strategy: str = "noauth") -> dict[str, Any]:
    return build_document(routes(auth_strategy), version, URL, auth_strategy)


def find_schemas(value: Any, key: str = "schema") -> list[Any]:
    if isinstance(value, list):
        return [found for item in value for found in find_schemas(item)]
    if not isinstance(value, dict):
        return []
    own = [value[key]] if key in value else []
    return own + [found for item in value.values() for found in find_schemas(item)]


def test_it_has_the_routes_of_its_microversion_and_no_others() -> None:
    for version in VERSIONS:
        with naming(version):
            expected = {(route.method, route.path) for route in routes() if route.since <= version} - {
                ("GET", "/v2.1/")
            }
            document = build(version)
            assert {(method.upper(), path) for path, item in document["paths"].items() for method in item} == expected
            assert document["info"]["version"] == format_version(version)
            assert document["servers"] == [{"url": URL}]


def test_a_route_that_nothing_is_said_of_is_an_error() -> None:
    more = Route("DELETE", "/v2.1/servers/{id}", lambda _: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(KeyError):
        build_document([*routes(), more], MAX_VERSION, URL, "noauth")


def test_its_schemas_are_schemas_and_its_operations_have_names_of_their_own() -> None:
    checked: set[str] = set()
    for version in VERSIONS:
        with naming(version):
            document = build(version)
            schemas = find_schemas(document)
            assert len(schemas) > 100
            # Most schemas are those of other routes and of earlier microversions.
            distinct = {json.dumps(schema): schema for schema in schemas}
            for text in distinct.keys() - checked:
                jsonschema.Draft202012Validator.check_schema(distinct[text])
            checked |= distinct.keys()
            names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
            assert len(set(names)) == len(names)
            for item in document["paths"].values():
                for operation in item.values():
                    for link in operation["responses"].get("200", {}).get("links", {}).values():
                        assert link["operationId"] in names


def test_it_says_who_must_prove_who_they_are() -> None:
    for strategy in ["noauth", "http_basic", "keystone"]:
        with naming(strategy):
            document = build(auth_strategy=strategy)
            wanted = [] if strategy == "noauth" else [{strategy: []}]
            assert document["paths"]["/v2.1/servers"]["get"]["security"] == wanted
            assert document["paths"]["/v2.1"]["get"]["security"] == []
            assert list(document["components"]["securitySchemes"]) == ([] if strategy == "noauth" else [strategy])
            assert ("401" in document["paths"]["/v2.1/servers"]["get"]["responses"]) == (strategy != "noauth")


@functools.cache
def get_document(version: Version) -> Any:
    """Return the document that the API itself serves; its answer depends on the microversion alone."""
    return Api([build_instance(1)]).get("/v2.1/openapi.json", format_version(version)).json


def ask(api: Api, version: Version, method: str, path: str, body: Any = None, query: str = "", **names: str) -> int:
    """Send a request, hold the answer against the document that the API serves, and return its status."""
    text = format_version(version)
    document = get_document(version)
    names = {"id": UUID, "token": TOKEN, "project_id": "red", **names}
    arguments = {} if body is None else {"json_body": body}
    response = api.request(method, path.format(**names) + query, text, **arguments)
    assert_conforms(document, method, path, response.status_int, response.headers, response.json)
    return response.status_int


class TestAnswers:
    """Each route's answers at each microversion are those of the document."""

    def test_what_is_there(self) -> None:
        for version in VERSIONS:
            with naming(version):
                api = Api([build_instance(number, project_id="red") for number in range(1, 4)])
                for base in ("/v2.1", "/v2.1/{project_id}"):
                    for path in ("/servers", "/servers/detail", "/servers/{id}"):
                        assert ask(api, version, "GET", base + path) == 200
                    assert ask(api, version, "GET", f"{base}/servers/detail", query="?limit=1") == 200
                    assert ask(api, version, "POST", f"{base}/servers/{{id}}/action", ACTION) == 200
                    if version >= (2, 6):
                        assert ask(api, version, "POST", f"{base}/servers/{{id}}/remote-consoles", REMOTE) == 200
                    if version >= (2, 31):
                        assert ask(api, version, "GET", f"{base}/os-console-auth-tokens/{{token}}") == 200
                for path in ("/", "/v2.1", "/v2.1/openapi.json"):
                    assert ask(api, version, "GET", path) == 200

    def test_a_server_of_any_state(self) -> None:
        for version, state in itertools.product(VERSIONS, InstanceState):
            with naming(version, state):
                api = Api([build_instance(1, state=state)])
                assert ask(api, version, "GET", "/v2.1/servers/detail") == 200
                assert ask(api, version, "GET", SERVER) == 200

    def test_a_server_of_a_silent_host(self) -> None:
        for version in VERSIONS:
            with naming(version):
                api = Api([build_instance(1)])
                api.clock.now_s += SILENT_AFTER_S + 1
                assert ask(api, version, "GET", "/v2.1/servers/detail") == 200
                assert ask(api, version, "GET", SERVER) == 200

    def test_what_is_refused(self) -> None:
        for version in VERSIONS:
            with naming(version):
                api = Api([build_instance(1)])
                assert ask(api, version, "GET", "/v2.1/servers", query="?limit=x") == 400
                assert ask(api, version, "GET", SERVER, id=UNKNOWN_UUID) == 404
                ways = [("action", ACTION)] + ([("remote-consoles", REMOTE)] if version >= (2, 6) else [])
                for way, body in ways:
                    path = f"{SERVER}/{way}"
                    api.compute.error = None
                    assert ask(api, version, "POST", path, body, id=UNKNOWN_UUID) == 404
                    assert ask(api, version, "POST", path, {}) == 400
                    for error, status in (
                        (errors.InstanceNotReady(UUID, "building"), 409),
                        (errors.ConsoleTypeUnavailable("novnc"), 400),
                        (errors.HypervisorUnavailable("host-a"), 503),
                    ):
                        api.compute.error = error
                        assert ask(api, version, "POST", path, body) == status
                if version >= (2, 31):
                    assert ask(api, version, "GET", TOKENS, token=UNKNOWN_UUID) == 404


def test_a_microversion_that_is_refused_is_a_described_answer() -> None:
    api = Api([build_instance(1)])
    document = api.get("/v2.1/openapi.json", "2.96").json
    for version, status in (("2.999", 406), ("x", 400)):
        response = api.get("/v2.1/servers", version)
        assert_conforms(document, "GET", "/v2.1/servers", status, response.headers, response.json)
        assert response.status_int == status


def test_a_body_of_another_microversion_is_refused_by_the_schema() -> None:
    """Else the schemas would say nothing."""
    changes: list[Version] = [(2, minor) for minor in (1, 9, 19, 26, 47, 63, 71, 73, 96)]
    api = Api([build_instance(1)])
    for version, other in itertools.permutations(changes, 2):
        body = api.get(f"/v2.1/servers/{UUID}", format_version(version)).json
        schema = find_response(build(other), "GET", SERVER, 200)["content"]["application/json"]["schema"]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(body, schema)


def test_the_document_takes_the_bodies_that_the_api_takes() -> None:
    for version in [(2, 6), (2, 8), (2, 96)]:
        with naming(version):
            operation = build(version)["paths"][f"{SERVER}/remote-consoles"]["post"]
            validator = jsonschema.Draft202012Validator(
                operation["requestBody"]["content"]["application/json"]["schema"]
            )
            api, types = Api([build_instance(1)]), [name for names in TYPES_OF_PROTOCOL.values() for name in names]
            for protocol, console_type in itertools.product([*TYPES_OF_PROTOCOL, "http"], [*types, "telnet"]):
                body = {"remote_console": {"protocol": protocol, "type": console_type}}
                answer = api.post(f"/v2.1/servers/{UUID}/remote-consoles", body, format_version(version))
                # A type that Porthole has not is a valid request all the same.
                is_taken = answer.status_int == 200 or "Unavailable console type" in answer.text
                assert validator.is_valid(body) == is_taken, body

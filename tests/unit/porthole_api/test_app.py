# SPDX-License-Identifier: Apache-2.0
"""The whole application over fakes of compute and consoleauth: every route, every fault, at three microversions."""

import itertools
import json
import re
from datetime import datetime
from typing import Any

import pytest
import webob
from hypothesis import given
from hypothesis import strategies as st

from porthole_api.bodies import MAX_BODY_BYTES
from porthole_api.snapshot import SILENT_AFTER_S
from porthole_common import errors
from porthole_common.model import InstanceState
from support.api import EXPIRES_AT, HOST, TOKEN, Api, build_conf, build_instance, build_uuid
from support.cases import naming

UUID, UNKNOWN_UUID = build_uuid(1), build_uuid(99)
VERSIONS = ["2.1", "2.6", "2.96"]
ACTION = {"os-getVNCConsole": {"type": "novnc"}}
REMOTE = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
URL = f"http://proxy.example:6080/console.html?path=%3Ftoken%3D{TOKEN}"
# Both ways to a console, at each microversion that has them: (path below the server, body, microversion).
WAYS = [("action", ACTION, version) for version in VERSIONS] + [
    ("remote-consoles", REMOTE, version) for version in VERSIONS[1:]
]


def build_api() -> Api:
    return Api([build_instance(1, project_id="red")])


@pytest.fixture
def api() -> Api:
    return build_api()


def assert_fault(response: webob.Response, status: int, name: str, text: str = "", version: str | None = None) -> None:
    assert response.status_int == status, response.text
    assert response.content_type == "application/json"
    assert list(response.json) == [name]
    assert response.json[name]["code"] == status
    assert text in response.json[name]["message"]
    assert re.fullmatch("req-[0-9a-f-]{36}", response.headers["x-openstack-request-id"])
    if version:
        assert_version(response, version)


def assert_version(response: webob.Response, version: str) -> None:
    assert response.headers["OpenStack-API-Version"] == f"compute {version}"
    assert response.headers["X-OpenStack-Nova-API-Version"] == version
    assert response.headers["Vary"] == "OpenStack-API-Version, X-OpenStack-Nova-API-Version"


class TestVersions:
    VERSION = {"id": "v2.1", "status": "CURRENT", "version": "2.96", "min_version": "2.1"}

    def test_the_version_document(self) -> None:
        for path in ["/v2.1", "/v2.1/"]:
            with naming(path):
                api = build_api()
                version = api.get(path, headers={"Host": "api.example:8774"}).json["version"]
                assert version.items() >= self.VERSION.items()
                assert version["links"] == [{"rel": "self", "href": "http://api.example:8774/v2.1/"}]
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", version["updated"])

    def test_the_list_of_versions(self, api: Api) -> None:
        response = api.get("/")
        assert response.json["versions"][0].items() >= self.VERSION.items()
        assert "OpenStack-API-Version" not in response.headers

    def test_they_and_the_healthcheck_need_no_authentication(self) -> None:
        for path in ["/", "/v2.1", "/v2.1/", "/healthcheck"]:
            with naming(path):
                api = build_api()
                assert api.get(path, environ={"REMOTE_ADDR": "192.0.2.1"}).status_int == 200

    def test_the_rest_does(self, api: Api) -> None:
        response = api.get("/v2.1/servers", environ={"REMOTE_ADDR": "192.0.2.1"})
        assert_fault(response, 403, "forbidden", version="2.1")


class TestServers:
    def test_the_list(self) -> None:
        for version in VERSIONS:
            with naming(version):
                api = build_api()
                response = api.get("/v2.1/servers", version)
                assert_version(response, version)
                (server,) = response.json["servers"]
                assert set(server) == {"id", "name", "links"}
                assert set(response.json) == {"servers"}

    def test_the_list_with_details_has_the_keys_of_the_microversion(self, api: Api) -> None:
        (old,) = api.get("/v2.1/servers/detail", "2.1").json["servers"]
        (new,) = api.get("/v2.1/servers/detail", "2.96").json["servers"]
        assert "pinned_availability_zone" in set(new) - set(old)
        assert "server_groups" not in new

    def test_one_server(self, api: Api) -> None:
        server = api.get(f"/v2.1/servers/{UUID}", "2.96").json["server"]
        assert (server["id"], server["name"], server["status"], server["server_groups"]) == (UUID, "vm1", "ACTIVE", [])

    def test_a_link_leads_to_the_server(self, api: Api) -> None:
        server = api.get("/v2.1/servers").json["servers"][0]
        assert api.get(server["links"][0]["href"]).json["server"]["id"] == UUID

    def test_an_unknown_server_or_a_name_is_not_found(self) -> None:
        cases = [UNKNOWN_UUID, "vm1", "detailed", "%00", "%ff", UUID + "%0a", "x" * 2000]
        for server in cases:
            with naming(server):
                api = build_api()
                assert_fault(api.get(f"/v2.1/servers/{server}", "2.6"), 404, "itemNotFound", version="2.6")

    def test_the_filters_clients_send(self, api: Api) -> None:
        query = "name=vm1&deleted=False&all_tenants=True&limit=10&status=active"
        assert [server["id"] for server in api.get(f"/v2.1/servers/detail?{query}").json["servers"]] == [UUID]
        assert api.get("/v2.1/servers?name=other").json == {"servers": []}

    def test_a_query_that_does_not_do_is_a_bad_request(self) -> None:
        cases = ["limit=-1", "limit=x", "limit=" + "9" * 5000, f"marker={UNKNOWN_UUID}", "name=%ff"]
        for query in cases:
            with naming(query):
                api = build_api()
                assert_fault(api.get(f"/v2.1/servers?{query}"), 400, "badRequest")

    def test_the_links_lead_through_all_pages(self) -> None:
        cases = ["/v2.1/servers", "/v2.1/servers/detail", "/v2.1/p1/servers", "/v2.1/p1/servers/detail"]
        for path in cases:
            with naming(path):
                api = Api([build_instance(number, f"vm {number}") for number in range(1, 6)])
                seen, url = [], f"{path}?limit=2&name=vm%20"
                while url:
                    page = api.get(url).json
                    seen += [server["id"] for server in page["servers"]]
                    url = next((link["href"] for link in page.get("servers_links", []) if link["rel"] == "next"), "")
                    assert not url or url.startswith(f"http://localhost{path}?")
                assert seen == [build_uuid(number) for number in range(1, 6)]

    def test_a_silent_hosts_server_is_unknown(self, api: Api) -> None:
        api.clock.now_s += SILENT_AFTER_S + 1
        assert api.get(f"/v2.1/servers/{UUID}").json["server"]["status"] == "UNKNOWN"


class TestConsoles:
    def test_the_action(self) -> None:
        for version, console_type in itertools.product(VERSIONS, ["novnc", "xvpvnc"]):
            with naming(version, console_type):
                api = build_api()
                response = api.post(
                    f"/v2.1/servers/{UUID}/action", {"os-getVNCConsole": {"type": console_type}}, version
                )
                assert (response.status_int, response.json) == (200, {"console": {"type": console_type, "url": URL}})
                assert datetime.fromisoformat(response.headers["Porthole-Expires-At"]) == EXPIRES_AT
                assert_version(response, version)

    def test_remote_consoles(self) -> None:
        for version, console_type in itertools.product(["2.6", "2.8", "2.96"], ["novnc", "xvpvnc"]):
            with naming(version, console_type):
                api = build_api()
                body = {"remote_console": {"type": console_type, "protocol": "vnc"}}
                response = api.post(f"/v2.1/servers/{UUID}/remote-consoles", body, version)
                assert response.status_int == 200
                assert response.json == {"remote_console": {"protocol": "vnc", "type": console_type, "url": URL}}
                assert datetime.fromisoformat(response.headers["Porthole-Expires-At"]) == EXPIRES_AT

    def test_remote_consoles_are_not_there_below_2_6(self) -> None:
        for version in ["2.1", "2.5"]:
            with naming(version):
                api = build_api()
                response = api.post(f"/v2.1/servers/{UUID}/remote-consoles", REMOTE, version)
                assert_fault(response, 404, "itemNotFound", version=version)

    def test_no_cache_keeps_the_url(self) -> None:
        for path, body, version in WAYS:
            with naming(path, version):
                api = build_api()
                response = api.post(f"/v2.1/servers/{UUID}/{path}", body, version)
                assert response.headers["Cache-Control"] == "no-store"

    def test_whatever_is_accepted_the_answer_is_json(self) -> None:
        for (path, body, version), accept in itertools.product(WAYS, ["", "*/*", "text/html", "no type"]):
            with naming(path, version, accept):
                api = build_api()
                response = api.post(f"/v2.1/servers/{UUID}/{path}", body, version, headers={"Accept": accept})
                assert (response.status_int, response.content_type) == (200, "application/json")

    def test_below_a_project_too(self) -> None:
        for path, body, version in WAYS:
            with naming(path, version):
                api = build_api()
                assert api.post(f"/v2.1/0123abc/servers/{UUID}/{path}", body, version).status_int == 200

    def test_the_request_ids_go_to_both_services(self, api: Api) -> None:
        global_id = "req-5a9d4f5e-0000-4000-8000-0000000000aa"
        response = api.post(f"/v2.1/servers/{UUID}/action", ACTION, headers={"X-Openstack-Request-Id": global_id})
        for context in (api.compute.calls[0][0], api.consoleauth.calls[0][0]):
            assert context.request_id == response.headers["x-openstack-request-id"]
            assert context.global_request_id == global_id
            assert (context.user_id, context.is_admin) == ("admin", True)


COMPUTE_FAULTS = [
    (errors.InstanceNotReady(UUID, InstanceState.BUILDING), 409, "conflictingRequest"),
    (errors.InstanceNotReady(UUID, InstanceState.MIGRATING), 409, "conflictingRequest"),
    (errors.InstanceNotReady(UUID, InstanceState.DELETING), 409, "conflictingRequest"),
    (errors.InstanceNotRunning(UUID, InstanceState.SHUTOFF), 409, "conflictingRequest"),
    (errors.ConsoleTypeUnavailable("novnc"), 400, "badRequest"),
    (errors.ConsoleTypeInvalid("novnc"), 400, "badRequest"),
    (errors.HypervisorUnavailable("host-a"), 503, "serviceUnavailable"),
    (errors.RpcUnavailable("compute", "get_vnc_console"), 503, "serviceUnavailable"),
    (errors.RemoteFailure("compute", "get_vnc_console"), 503, "serviceUnavailable"),
]
STORE_FAULTS = [
    errors.TokenStoreUnavailable("timed out"),
    errors.RpcUnavailable("consoleauth", "authorize_console"),
    errors.RemoteFailure("consoleauth", "authorize_console"),
]


class TestFaults:
    def test_what_compute_says(self) -> None:
        for (path, body, version), (error, status, name) in itertools.product(WAYS, COMPUTE_FAULTS):
            with naming(path, version, error, status, name):
                api = build_api()
                api.compute.error = error
                response = api.post(f"/v2.1/servers/{UUID}/{path}", body, version)
                assert_fault(response, status, name, str(error), version)
                assert ("Retry-After" in response.headers) == (status == 503)

    def test_what_consoleauth_says(self) -> None:
        for (path, body, version), error in itertools.product(WAYS, STORE_FAULTS):
            with naming(path, version, error):
                api = build_api()
                api.consoleauth.error = error
                response = api.post(f"/v2.1/servers/{UUID}/{path}", body, version)
                assert_fault(response, 503, "serviceUnavailable", str(error), version)
                assert TOKEN not in response.text
                assert int(response.headers["Retry-After"]) > 0

    def test_a_silent_host(self) -> None:
        for path, body, version in WAYS:
            with naming(path, version):
                api = build_api()
                api.clock.now_s += SILENT_AFTER_S + 1
                response = api.post(f"/v2.1/servers/{UUID}/{path}", body, version)
                assert_fault(response, 503, "serviceUnavailable", "host-a", version)

    def test_an_unknown_server(self) -> None:
        for (path, body, version), server in itertools.product(WAYS, [UNKNOWN_UUID, "vm1", "x" * 2000]):
            with naming(path, version, server):
                api = build_api()
                response = api.post(f"/v2.1/servers/{server}/{path}", body, version)
                assert_fault(response, 404, "itemNotFound", "could not be found", version)

    def test_an_error_that_nobody_foresaw(self) -> None:
        for path, body, version in WAYS:
            with naming(path, version):
                api = build_api()
                api.compute.error = ZeroDivisionError("internals")
                response = api.post(f"/v2.1/servers/{UUID}/{path}", body, version)
                assert_fault(response, 500, "computeFault", "unexpected error", version)
                assert "internals" not in response.text

    def test_a_body_that_is_no_body(self) -> None:
        contents = [
            (b"", "application/json"),
            (b"not json", "application/json"),
            (b"[]", "application/json"),
            (b"{}", "application/json"),
            (b'"\xff"', "application/json"),
            (b"[" * 60000, "application/json"),
            (b'"' + b"x" * MAX_BODY_BYTES + b'"', "application/json"),
            (b"x" * (1 << 20), "application/json"),
            (b"os-getVNCConsole=novnc", "application/x-www-form-urlencoded"),
        ]
        for (path, _, version), (content, kind) in itertools.product(WAYS, contents):
            with naming(path, version, content, kind):
                api = build_api()
                response = api.request("POST", f"/v2.1/servers/{UUID}/{path}", version, body=content, content_type=kind)
                assert_fault(response, 400, "badRequest", version=version)
                assert api.compute.calls == []

    def test_an_action_that_does_not_do(self) -> None:
        bodies = [
            ({"os-getVNCConsole": {}}, "'type' is a required property"),
            ({"os-getVNCConsole": {"type": "spice-html5"}}, "os-getVNCConsole.type"),
            ({"os-getVNCConsole": {"type": "novnc", "x": 1}}, "'x' was unexpected"),
            ({"os-getVNCConsole": {"type": "novnc"}, "x": 1}, "one action"),
            ({"os-getVNCConsole": "novnc"}, "os-getVNCConsole"),
            ({"reboot": {"type": "SOFT"}}, "There is no such action: reboot"),
            ({"x" * 5000: None}, "There is no such action"),
        ]
        for version, (body, text) in itertools.product(VERSIONS, bodies):
            with naming(version, body, text):
                api = build_api()
                response = api.post(f"/v2.1/servers/{UUID}/action", body, version)
                assert_fault(response, 400, "badRequest", text, version)
                assert len(response.body) < 1000

    def test_a_remote_console_that_does_not_do(self) -> None:
        consoles = [
            ("vnc", "spice-html5", "not a console of protocol 'vnc'"),
            ("spice", "novnc", "not a console of protocol 'spice'"),
            ("vnc", "telnet", "remote_console.type"),
            ("http", "novnc", "remote_console.protocol"),
            ("spice", "spice-html5", "Unavailable console type spice-html5"),
            ("rdp", "rdp-html5", "Unavailable console type rdp-html5"),
            ("serial", "serial", "Unavailable console type serial"),
            ("vnc", None, "remote_console.type"),
        ]
        for version, (protocol, console_type, text) in itertools.product(["2.6", "2.7", "2.96"], consoles):
            with naming(version, protocol, console_type, text):
                api = build_api()
                body = {"remote_console": {"protocol": protocol, "type": console_type}}
                response = api.post(f"/v2.1/servers/{UUID}/remote-consoles", body, version)
                assert_fault(response, 400, "badRequest", text, version)
                assert api.compute.calls == []

    def test_mks_came_with_2_8(self) -> None:
        cases = [("2.7", "remote_console"), ("2.8", "Unavailable console type webmks")]
        for version, text in cases:
            with naming(version, text):
                api = build_api()
                body = {"remote_console": {"protocol": "mks", "type": "webmks"}}
                assert_fault(api.post(f"/v2.1/servers/{UUID}/remote-consoles", body, version), 400, "badRequest", text)

    def test_what_is_not_there(self) -> None:
        cases = [
            "/v2.1/flavors/1",
            "/v2.1/flavors?is_public=None",
            "/v2.1/v2/images/1",
            "/v2.1/ports",
            "/v2.1/project",
            "/v2.1//",
            "/v2.1/servers/",
            f"/v2.1/servers/{UUID}/os-interface",
        ]
        for path in cases:
            with naming(path):
                api = build_api()
                assert_fault(api.get(path), 404, "itemNotFound", version="2.1")

    def test_a_wrong_method(self) -> None:
        cases = [
            ("POST", "/v2.1/servers", "GET, HEAD"),
            ("DELETE", f"/v2.1/servers/{UUID}", "GET, HEAD"),
            ("PUT", f"/v2.1/servers/{UUID}/action", "POST"),
            ("GET", f"/v2.1/servers/{UUID}/action", "POST"),
            ("POST", "/v2.1", "GET, HEAD"),
            ("OPTIONS", "/", "GET, HEAD"),
        ]
        for method, path, allow in cases:
            with naming(method, path, allow):
                api = build_api()
                response = api.request(method, path)
                assert_fault(response, 405, "badMethod")
                assert response.headers["Allow"] == allow

    def test_a_microversion_that_does_not_do(self) -> None:
        version_cases = [
            (
                "2.999",
                406,
                "computeFault",
                "Version 2.999 is not supported by the API. Minimum is 2.1 and maximum is 2.96.",
            ),
            ("two", 400, "badRequest", "API Version String two is of invalid format."),
        ]
        for (version, status, name, text), path in itertools.product(
            version_cases, ["/v2.1/servers", "/v2.1", "/v2.1/flavors"]
        ):
            with naming(version, status, name, text, path):
                api = build_api()
                assert_fault(api.get(path, version), status, name, text, version="2.1")


class TestHeads:
    def test_a_head_has_the_headers_of_the_get_and_no_body(self, api: Api) -> None:
        head, get = api.request("HEAD", "/v2.1/servers"), api.get("/v2.1/servers")
        assert (head.status_int, head.body) == (200, b"")
        assert head.headers["Content-Length"] == get.headers["Content-Length"]

    def test_behind_a_proxy_with_a_prefix_the_links_are_the_proxys(self) -> None:
        conf = build_conf(allow_noauth_anywhere=True)
        api = Api([build_instance(1)], conf)
        conf.set_override("enable_proxy_headers_parsing", True, "oslo_middleware")
        headers = {
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "cloud.example",
            "X-Forwarded-Prefix": "/compute",
        }
        links = api.get(f"/v2.1/servers/{UUID}", headers=headers).json["server"]["links"]
        assert links[0]["href"] == f"https://cloud.example/compute/v2.1/servers/{UUID}"

    def test_a_public_endpoint_makes_every_link_whatever_the_host(self) -> None:
        for public_endpoint, base in itertools.product(
            ["https://cloud.example/compute", "https://cloud.example/compute/"], ["/v2.1", "/v2.1/p1"]
        ):
            with naming(public_endpoint, base):
                endpoint = "https://cloud.example/compute"
                api = Api([build_instance(1), build_instance(2)], build_conf(public_endpoint=public_endpoint))
                page = api.get(f"{base}/servers?limit=1").json
                links = [*page["servers_links"], *page["servers"][0]["links"]]
                assert links[0]["href"] == f"{endpoint}{base}/servers?limit=1&marker={UUID}"
                assert links[1]["href"] == f"{endpoint}{base}/servers/{UUID}"
                assert links[2]["href"] == f"{endpoint}{base.removeprefix('/v2.1')}/servers/{UUID}"
                assert api.get("/v2.1").json["version"]["links"][0]["href"] == f"{endpoint}/v2.1/"
                assert api.get("/").json["versions"][0]["links"][0]["href"] == f"{endpoint}/v2.1/"
                assert api.get("/v2.1/openapi.json").json["servers"] == [{"url": endpoint}]
                assert (
                    api.get(f"{base}/servers/{UUID}", "2.46")
                    .json["server"]["flavor"]["links"][0]["href"]
                    .startswith(endpoint)
                )

    def test_noauth_believes_no_proxy_about_the_host(self) -> None:
        """A foreign Host that a forwarded one hides is DNS rebinding all the same."""
        conf = build_conf()
        api = Api([build_instance(1)], conf)
        conf.set_override("enable_proxy_headers_parsing", True, "oslo_middleware")
        assert api.get("/v2.1/servers", headers={"Host": "localhost"}).status_int == 200
        for name in ("X-Forwarded-Host", "X_Forwarded_Host"):
            with naming(name):
                headers = {"Host": "evil.example", name: "localhost"}
                assert api.get("/v2.1/servers", headers=headers).status_int == 403

    def test_proxy_headers_count_only_when_the_operator_says_so(self) -> None:
        api = Api([build_instance(1)], build_conf(allow_noauth_anywhere=True))
        server = api.get(f"/v2.1/servers/{UUID}", headers={"X-Forwarded-Host": "evil.example"}).json["server"]
        assert "evil" not in json.dumps(server)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
ALMOST = st.one_of(
    st.fixed_dictionaries({"os-getVNCConsole": JSON}),
    st.fixed_dictionaries({"os-getVNCConsole": st.fixed_dictionaries({"type": JSON})}),
    st.fixed_dictionaries({"remote_console": st.fixed_dictionaries({"type": JSON, "protocol": JSON})}),
    JSON,
)
LATIN = st.text(st.characters(max_codepoint=255), max_size=40)


class TestNever500:
    """Whatever is sent, the answer is one of those that a client can do something with."""

    EXPECTED = {200, 400, 403, 404, 405, 406}

    @given(ALMOST, st.sampled_from(VERSIONS), st.sampled_from(["action", "remote-consoles"]))
    def test_for_any_json(self, body: Any, version: str, path: str) -> None:
        content = json.dumps(body).encode()
        response = Api([build_instance(1)]).request(
            "POST", f"/v2.1/servers/{UUID}/{path}", version, body=content, content_type="application/json"
        )
        assert response.status_int in self.EXPECTED

    @given(st.binary(max_size=200), st.just("application/json") | LATIN)
    def test_for_any_bytes(self, content: bytes, kind: str) -> None:
        response = Api([build_instance(1)]).request(
            "POST", f"/v2.1/servers/{UUID}/action", body=content, environ={"CONTENT_TYPE": kind}
        )
        assert response.status_int in self.EXPECTED

    @given(
        st.sampled_from(["HTTP_HOST", "HTTP_ACCEPT", "HTTP_OPENSTACK_API_VERSION", "HTTP_X_OPENSTACK_NOVA_API_VERSION"])
        | st.sampled_from(["QUERY_STRING", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_X_OPENSTACK_REQUEST_ID"])
        | st.sampled_from(["HTTP_FORWARDED", "HTTP_X_FORWARDED_HOST", "REMOTE_ADDR"]),
        LATIN,
    )
    def test_for_any_header(self, name: str, value: str) -> None:
        api = Api([build_instance(1)])
        for method, path in (("GET", "/v2.1/servers"), ("POST", f"/v2.1/servers/{UUID}/action"), ("GET", "/v2.1")):
            response = api.request(method, path, json_body=ACTION, environ={name: value})
            assert response.status_int in self.EXPECTED

    @given(st.sampled_from(["", "/v2.1/", "/v2.1/servers/", f"/v2.1/servers/{UUID}/"]), LATIN, LATIN)
    def test_for_any_path_and_method(self, path: str, rest: str, method: str) -> None:
        environ = {"PATH_INFO": path + rest, "REQUEST_METHOD": method}
        assert Api([build_instance(1)]).get("/", environ=environ).status_int in self.EXPECTED


class TestConsoleAuthTokens:
    def test_a_token_is_shown(self) -> None:
        for base in ["/v2.1", "/v2.1/p1"]:
            with naming(base):
                api = build_api()
                response = api.get(f"{base}/os-console-auth-tokens/{TOKEN}", "2.31")
                assert response.json == {
                    "console": {"instance_uuid": UUID, "host": "127.0.0.1", "port": 5900, "internal_access_path": None}
                }
                assert response.headers["Cache-Control"] == "no-store"
                assert_version(response, "2.31")

    def test_another_one_is_not_found(self) -> None:
        for token in [UNKNOWN_UUID, "x", "%00", "%ff", "x" * 2000]:
            with naming(token):
                api = build_api()
                assert_fault(
                    api.get(f"/v2.1/os-console-auth-tokens/{token}", "2.96"), 404, "itemNotFound", version="2.96"
                )

    def test_before_2_31_there_is_none(self, api: Api) -> None:
        assert_fault(api.get(f"/v2.1/os-console-auth-tokens/{TOKEN}", "2.30"), 404, "itemNotFound", version="2.30")

    def test_a_store_that_is_down_is_not_an_unknown_token(self, api: Api) -> None:
        api.consoleauth.error = errors.TokenStoreUnavailable("down")
        assert_fault(api.get(f"/v2.1/os-console-auth-tokens/{TOKEN}", "2.31"), 503, "serviceUnavailable")

    def test_the_token_is_not_logged(self, api: Api, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level("DEBUG"):
            assert TOKEN in api.post(f"/v2.1/servers/{UUID}/action", ACTION).text
            api.get(f"/v2.1/os-console-auth-tokens/{TOKEN}", "2.31")
            api.get(f"/v2.1/os-console-auth-tokens/{TOKEN}", "2.1")
        assert f"/action instance={UUID} status=200" in caplog.text
        assert "os-console-auth-tokens/{token} status=200" in caplog.text
        assert TOKEN not in caplog.text


def test_a_list_in_order_keeps_it_through_its_links() -> None:
    api = Api([build_instance(number) for number in range(1, 6)])
    seen, url = [], "/v2.1/servers?limit=2&sort_key=display_name&sort_dir=desc&sort_key=uuid&all_tenants=1"
    while url:
        page = api.get(url).json
        seen += [server["name"] for server in page["servers"]]
        url = next((link["href"] for link in page.get("servers_links", [])), "")
    assert seen == ["vm5", "vm4", "vm3", "vm2", "vm1"]


def test_a_list_of_one_host() -> None:
    api = Api([build_instance(1)])
    assert len(api.get(f"/v2.1/servers?host={HOST}").json["servers"]) == 1
    assert api.get("/v2.1/servers?host=elsewhere").json["servers"] == []

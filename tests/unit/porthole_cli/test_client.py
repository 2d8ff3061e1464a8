# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from keystoneauth1 import adapter, noauth, session

from porthole_cli.client import ComputeClient
from porthole_cli.errors import AnswerInvalid, ApiRefused, CloudInvalid, ServerAmbiguous, ServerNotFound
from support.nova_api import CONSOLE_URL, TOKEN, NovaApi

UUID = "2a5a0a3e-7c5f-4c8e-9d0a-0c1d2e3f4a5b"
OTHER = "7b1de0c6-93f0-4a63-b6a8-2f2f0f9f7a10"


@pytest.fixture
def api() -> Iterator[NovaApi]:
    with NovaApi() as running:
        running.add_server(UUID, "web")
        yield running


def make_client(url: str, microversion: str | None = None) -> ComputeClient:
    auth = noauth.NoAuth(endpoint=url)
    opened = session.Session(auth=auth, timeout=10)
    return ComputeClient(adapter.Adapter(opened, service_type="compute", default_microversion=microversion))


class TestListServers:
    def test_no_server(self) -> None:
        with NovaApi() as api:
            assert list(make_client(api.url).list_servers()) == []

    def test_every_page_is_followed(self, api: NovaApi) -> None:
        api.page_size = 2
        for number in range(4):
            api.add_server(f"00000000-0000-4000-8000-00000000000{number}", f"vm{number}")

        names = [server["name"] for server in make_client(api.url).list_servers(details=True)]

        assert names == ["web", "vm0", "vm1", "vm2", "vm3"]
        assert [request.query.get("marker") for request in api.sent("GET") if "servers" in request.path] == [
            None,
            "00000000-0000-4000-8000-000000000000",
            "00000000-0000-4000-8000-000000000002",
        ]

    def test_a_next_link_behind_an_empty_page_ends(self, api: NovaApi) -> None:
        api.answers["GET /v2.1/servers"] = (200, {"servers": [], "servers_links": [{"rel": "next", "href": "x"}]})

        assert list(make_client(api.url).list_servers()) == []

    def test_the_root_of_the_server_does_as_an_endpoint(self, api: NovaApi) -> None:
        assert [server["id"] for server in make_client(api.root).list_servers()] == [UUID]


class TestFindServer:
    def test_by_id(self, api: NovaApi) -> None:
        assert make_client(api.url).find_server(UUID)["name"] == "web"
        assert [request.path for request in api.requests if "servers" in request.path] == [f"/v2.1/servers/{UUID}"]

    def test_by_id_in_upper_case(self, api: NovaApi) -> None:
        assert make_client(api.url).find_server(UUID.upper())["name"] == "web"

    def test_by_name(self, api: NovaApi) -> None:
        assert make_client(api.url).find_server("web")["id"] == UUID

    def test_by_a_name_that_looks_like_an_id(self, api: NovaApi) -> None:
        api.add_server(OTHER, "11111111-2222-4333-8444-555555555555")

        assert make_client(api.url).find_server("11111111-2222-4333-8444-555555555555")["id"] == OTHER

    def test_a_part_of_a_name_is_not_the_name(self, api: NovaApi) -> None:
        api.add_server(OTHER, "web-2")

        assert make_client(api.url).find_server("web")["id"] == UUID
        with pytest.raises(ServerNotFound, match=r"^No server with a name or ID of 'we' exists\.$"):
            make_client(api.url).find_server("we")

    @pytest.mark.parametrize("name", ["web (1)", "a+b", "x.y", "50%", "[", "back\\slash", "ünï", "a|b"])
    def test_a_name_is_no_regular_expression(self, api: NovaApi, name: str) -> None:
        api.add_server(OTHER, name)

        assert make_client(api.url).find_server(name)["id"] == OTHER

    def test_two_of_one_name(self, api: NovaApi) -> None:
        api.add_server(OTHER, "web")

        with pytest.raises(
            ServerAmbiguous, match=f"^2 servers are named 'web'; give one of their IDs: {UUID}, {OTHER}"
        ):
            make_client(api.url).find_server("web")

    def test_an_unknown_id(self, api: NovaApi) -> None:
        with pytest.raises(ServerNotFound, match=f"'{OTHER}'"):
            make_client(api.url).find_server(OTHER)

    def test_an_id_the_user_may_not_see_is_not_looked_for_by_name(self, api: NovaApi) -> None:
        api.answers[f"GET /v2.1/servers/{UUID}"] = (403, {"forbidden": {"code": 403, "message": "Not yours."}})

        with pytest.raises(ApiRefused, match="Not yours"):
            make_client(api.url).find_server(UUID)


class TestCreateConsole:
    def test_remote_consoles_where_the_server_has_it(self, api: NovaApi) -> None:
        console = make_client(api.url).create_console(UUID, "novnc")

        assert (console.type, console.url) == ("novnc", CONSOLE_URL)
        [request] = api.sent("POST")
        assert request.path == f"/v2.1/servers/{UUID}/remote-consoles"
        assert request.body == {"remote_console": {"protocol": "vnc", "type": "novnc"}}
        assert request.headers["openstack-api-version"] == "compute 2.6"
        assert request.headers["x-openstack-nova-api-version"] == "2.6"

    @pytest.mark.parametrize(
        ("said", "understood"),
        [
            ("2026-01-02T04:04:05+01:00", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
            ("2026-01-02T04:04:05", None),
            ("soon", None),
            ("", None),
            (None, None),
        ],
    )
    def test_when_the_url_expires(self, api: NovaApi, said: str | None, understood: datetime | None) -> None:
        """Told by Porthole (O13), and neither by Nova nor by a header of somebody else's."""
        api.expires_at = said

        assert make_client(api.url).create_console(UUID, "novnc").expires_at == understood

    @pytest.mark.parametrize("newest", ["2.5", None])
    def test_the_action_where_it_has_not(self, api: NovaApi, newest: str | None) -> None:
        api.max_microversion = newest

        console = make_client(api.url).create_console(UUID, "xvpvnc")

        assert (console.type, console.url) == ("xvpvnc", CONSOLE_URL)
        [request] = api.sent("POST")
        assert request.path == f"/v2.1/servers/{UUID}/action"
        assert request.body == {"os-getVNCConsole": {"type": "xvpvnc"}}
        assert "openstack-api-version" not in request.headers

    @pytest.mark.parametrize(
        ("wanted", "route"),
        [("2.1", "action"), ("2.5", "action"), ("2.6", "remote-consoles"), ("latest", "remote-consoles")],
    )
    def test_the_microversion_the_user_wants(self, api: NovaApi, wanted: str, route: str) -> None:
        make_client(api.url, wanted).create_console(UUID, "novnc")

        [request] = api.sent("POST")
        assert request.path.endswith(route)
        assert (
            request.headers["openstack-api-version"]
            == f"compute {wanted.removeprefix('2.') if 'latest' in wanted else wanted}"
        )

    def test_a_server_that_starts_above_2_6(self, api: NovaApi) -> None:
        api.min_microversion = "2.53"

        make_client(api.url).create_console(UUID, "novnc")

        assert api.sent("POST")[0].headers["openstack-api-version"] == "compute 2.53"

    def test_an_answer_without_a_url(self, api: NovaApi) -> None:
        api.answers[f"POST /v2.1/servers/{UUID}/remote-consoles"] = (200, {"remote_console": {"type": "novnc"}})

        with pytest.raises(AnswerInvalid):
            make_client(api.url).create_console(UUID, "novnc")

    def test_the_token_is_not_in_the_repr(self, api: NovaApi) -> None:
        assert TOKEN not in repr(make_client(api.url).create_console(UUID, "novnc"))


class TestCreateConsoleAsWished:
    PATH = f"/porthole/v1/servers/{UUID}/consoles"

    def test_portholes_route_is_beside_the_versioned_api(self, api: NovaApi) -> None:
        made = {
            "type": "novnc",
            "mode": "view",
            "url": CONSOLE_URL,
            "uses": 1,
            "expires_at": "2026-01-02T03:04:05+00:00",
        }
        api.answers[f"POST {self.PATH}"] = (201, {"console": made})

        console = make_client(api.url).create_console_as_wished(UUID, {"mode": "view", "uses": 1})

        assert (console.type, console.mode, console.uses, console.url) == ("novnc", "view", 1, CONSOLE_URL)
        assert console.expires_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        [request] = api.sent("POST")
        assert (request.path, request.body) == (self.PATH, {"console": {"mode": "view", "uses": 1}})

    def test_an_api_without_the_route_is_named(self, api: NovaApi) -> None:
        fault = (404, {"itemNotFound": {"code": 404, "message": "The resource could not be found."}})
        api.answers[f"POST {self.PATH}"] = fault

        with pytest.raises(CloudInvalid, match=f"^The API at {api.root} cannot make such a URL: it is Nova's"):
            make_client(api.url).create_console_as_wished(UUID, {})
        api.answers[f"GET /v2.1/servers/{UUID}"] = fault
        with pytest.raises(ApiRefused, match="could not be found"):
            make_client(api.url).create_console_as_wished(UUID, {})


class TestErrors:
    def test_a_fault_is_shown_with_novas_message(self, api: NovaApi) -> None:
        fault = {"conflictingRequest": {"code": 409, "message": f"Instance {UUID} is not running:\nit is shutoff."}}
        api.answers[f"POST /v2.1/servers/{UUID}/remote-consoles"] = (409, fault)

        with pytest.raises(ApiRefused) as caught:
            make_client(api.url).create_console(UUID, "novnc")

        assert str(caught.value) == f"Instance {UUID} is not running: it is shutoff. (HTTP 409)"

    @pytest.mark.parametrize("body", [b"<html>nginx</html>", [], {}, {"x": 1}, {"x": {}}, "text"])
    def test_a_refusal_in_another_shape(self, api: NovaApi, body: object) -> None:
        api.answers["GET /v2.1/servers"] = (503, body)

        with pytest.raises(ApiRefused, match=r"^[^\n]+ \(HTTP 503\)$"):
            list(make_client(api.url).list_servers())

    @pytest.mark.parametrize("body", [b"<html>It works!</html>", [], {"hosts": []}, {"servers": 1}])
    def test_something_that_is_no_compute_api(self, api: NovaApi, body: object) -> None:
        api.answers["GET /v2.1/servers"] = (200, body)

        with pytest.raises(AnswerInvalid, match=f"^There is no compute API at {api.url}\\. "):
            list(make_client(api.url).list_servers())

    def test_an_api_of_another_kind_has_no_list_of_servers(self, api: NovaApi) -> None:
        fault = (404, {"itemNotFound": {"code": 404, "message": "The resource could not be found."}})
        api.answers["GET /v2.1/servers"] = fault

        with pytest.raises(AnswerInvalid):
            list(make_client(api.url).list_servers())
        # The name is looked for in the list, after the ID.
        with pytest.raises(AnswerInvalid):
            make_client(api.url).find_server(OTHER)

    def test_a_marker_that_is_gone_is_no_other_api(self, api: NovaApi) -> None:
        api.page_size = 1
        api.add_server(OTHER, "next")
        servers = make_client(api.url).list_servers()
        assert next(servers)["id"] == UUID

        api.answers["GET /v2.1/servers"] = (404, {"itemNotFound": {"code": 404, "message": "The marker is gone."}})

        with pytest.raises(ApiRefused, match="The marker is gone"):
            next(servers)

    def test_a_server_that_goes_between_the_list_and_the_question_is_called_as_it_was_typed(self, api: NovaApi) -> None:
        message = f"Instance {UUID} could not be found."
        api.answers[f"GET /v2.1/servers/{UUID}"] = (404, {"itemNotFound": {"code": 404, "message": message}})

        with pytest.raises(ApiRefused, match=r"^Instance 'web' could not be found\. \(HTTP 404\)$"):
            make_client(api.url).find_server("web")

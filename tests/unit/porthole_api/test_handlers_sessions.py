# SPDX-License-Identifier: Apache-2.0
"""Sessions over HTTP: whose, which, and what a user who may not is told."""

import json
from pathlib import Path
from typing import Any

import pytest
import webob

from porthole_api import request as request_keys
from porthole_api.handlers.sessions import SessionsHandler
from porthole_api.paging import MAX_LIMIT
from porthole_api.policy import Policy
from porthole_api.request import Request
from porthole_common import errors
from porthole_common.context import RequestContext, build_request_context
from porthole_common.notifications import Inventory
from porthole_common.open_session import SessionFilter
from support.api import HOST, Api, build_instance, build_uuid
from support.cases import naming
from support.history import closed, new_id
from support.open_sessions import INSTANCE, build_session
from support.openapi import assert_conforms

PATH = "/porthole/v1/sessions"
MEMBER = build_request_context(user_id="rita", project_id="red", roles=["member", "reader"])
READER = build_request_context(user_id="rita", project_id="red", roles=["reader"])
STRANGER = build_request_context(user_id="otto", project_id="blue", roles=["member", "reader"])


class House(Api):
    """The API of an administrator, and the handler for other users."""

    def __init__(self) -> None:
        super().__init__([build_instance(1, project_id="red")])
        self.session = build_session(1)
        self.sessions.open = [self.session]
        self.handler = SessionsHandler(self.sessions, self.consoleauth, self.directory, Policy(self.conf))

    def ask(self, method: str = "GET", path: str = PATH, **attributes: Any) -> Any:
        return self.request(method, path, **attributes)

    def ask_as(self, context: RequestContext, method: str, query: str = "", **arguments: str) -> Any:
        """Return what the handler answers ``context``; ``method`` is the handler's."""
        request = Request(webob.Request.blank(f"{PATH}?{query}").environ)
        request.environ[request_keys.CONTEXT] = context
        request.environ[request_keys.URL_ARGUMENTS] = arguments
        response = getattr(self.handler, method)(request)
        return json.loads(response.body) if response.body else response.status_int


@pytest.fixture
def admin() -> House:
    return House()


def test_a_user_has_the_sessions_of_the_own_project_and_no_hosts(admin: House) -> None:
    admin.sessions.unreachable = ["node2-6080-0"]
    body = admin.ask_as(READER, "handle_list", "server=i-1")
    assert admin.sessions.asked == [({"server": "i-1", "project_id": "red"}, MAX_LIMIT, None)]
    assert not {"proxy", "compute_host"} & body["sessions"][0].keys()
    assert body["unreachable"] == ["a console proxy"]
    for query in ("project_id=blue", "host=c1"):
        with naming(query), pytest.raises(errors.PolicyForbidden):
            admin.ask_as(READER, "handle_list", query)
    admin.consoleauth.error = errors.HistoryUnavailable("sqlite:///secret")
    with pytest.raises(errors.HistoryUnavailable) as caught:
        admin.ask_as(READER, "handle_list", "state=ended")
    assert "secret" not in str(caught.value)


def test_who_may_show_and_end_a_session(admin: House) -> None:
    for method in ("handle_show", "handle_end"):
        with naming(method):
            assert admin.ask_as(MEMBER, method, id=admin.session.id)
            with pytest.raises(errors.PolicyForbidden):
                admin.ask_as(READER, method, id=admin.session.id)
            # Another project's session does not exist.
            with pytest.raises(errors.SessionNotFound):
                admin.ask_as(STRANGER, method, id=admin.session.id)
    assert len(admin.sessions.ended) == 1


def test_whoever_sees_all_sessions_may_not_end_all_of_them(admin: House, tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text('"porthole:sessions:index:all_projects": "role:auditor"\n')
    admin.conf.set_override("policy_file", str(tmp_path / "policy.yaml"), "oslo_policy")
    admin.handler = SessionsHandler(admin.sessions, admin.consoleauth, admin.directory, Policy(admin.conf))
    auditor = build_request_context(user_id="a", project_id="blue", roles=["auditor", "member", "reader"])
    assert admin.ask_as(auditor, "handle_list")["sessions"]
    for method in ("handle_show", "handle_end"):
        with naming(method), pytest.raises(errors.PolicyForbidden):
            admin.ask_as(auditor, method, id=admin.session.id)
    assert admin.sessions.ended == []


def test_users_without_a_role_or_a_project_see_no_session(admin: House) -> None:
    admin.sessions.open = [build_session(1, project_id=None)]
    nobody = build_request_context(user_id="n", project_id="red", roles=[])
    unscoped = build_request_context(user_id="n", project_id=None, roles=["member", "reader"])
    for method in ("handle_show", "handle_end"):
        with naming(method):
            with pytest.raises(errors.PolicyForbidden):
                admin.ask_as(nobody, method, id=admin.sessions.open[0].id)
            with pytest.raises((errors.PolicyForbidden, errors.SessionNotFound)):
                admin.ask_as(unscoped, method, id=admin.sessions.open[0].id)
    assert admin.sessions.ended == []


def test_the_name_of_a_server_that_is_another_projects_now_is_not_told(admin: House) -> None:
    admin.sessions.open = [build_session(1, instance_uuid=build_uuid(1))]
    assert admin.ask_as(READER, "handle_list")["sessions"][0]["server"]["name"] == "vm1"
    admin.directory.update(Inventory(HOST, (build_instance(1, project_id="blue"),)))
    assert admin.ask_as(READER, "handle_list")["sessions"][0]["server"]["name"] is None
    assert admin.ask().json["sessions"][0]["server"]["name"] == "vm1"


def test_urls_are_revoked_also_when_no_proxy_can_be_asked(admin: House) -> None:
    admin.sessions.error = errors.RpcUnavailable("novncproxy", "end_sessions")
    assert admin.ask("DELETE", f"/porthole/v1/servers/{build_uuid(1)}/sessions").status_int == 503
    assert admin.consoleauth.revoked == [build_uuid(1)]


def test_who_may_end_all_of_a_server(admin: House) -> None:
    uuid = build_uuid(1)
    with pytest.raises(errors.PolicyForbidden):
        admin.ask_as(READER, "handle_end_all", id=uuid)
    with pytest.raises(errors.InstanceNotFound):
        admin.ask_as(STRANGER, "handle_end_all", id=uuid)
    assert (admin.sessions.ended, admin.consoleauth.revoked) == ([], [])
    assert admin.ask_as(MEMBER, "handle_end_all", id=uuid) == {"ended": 1, "revoked": 3, "unreachable": []}


def test_an_administrator_sees_all_with_proxies_and_hosts(admin: House) -> None:
    (shown,) = admin.ask().json["sessions"]
    assert shown == {
        "id": admin.session.id,
        "server": {"id": INSTANCE, "name": None},
        "type": "novnc",
        "mode": "control",
        "user_id": "rita",
        "project_id": "red",
        "client": {"address": "192.0.2.7", "user_agent": "Firefox"},
        "opened_at": admin.session.opened_at.isoformat(),
        "last_input_at": "2026-07-01T00:00:00+00:00",
        "ended_at": None,
        "end": None,
        "bytes_to_client": 2**40,
        "bytes_from_client": 7,
        "proxy": "node1-6080-0",
        "compute_host": "c1",
    }


def test_filters_go_to_the_proxies_and_pages_are_linked(admin: House) -> None:
    admin.sessions.open = [build_session(number) for number in range(3)]
    marker = admin.session.id
    names = "&".join(f"{name}={name}" for name in ("server", "project_id", "user_id", "host", "client"))
    body = admin.ask(path=f"{PATH}?{names}&since=2026-07-01T00:00:00Z&limit=2&marker={marker}").json
    assert admin.sessions.asked == [
        (
            {name: name for name in ("server", "project_id", "user_id", "host", "client")}
            | {"since": "2026-07-01T00:00:00+00:00"},
            2,
            marker,
        )
    ]
    (link,) = body["sessions_links"]
    assert link["href"].endswith(f"&limit=2&marker={body['sessions'][-1]['id']}")


def test_what_is_no_query(admin: House) -> None:
    for query in ("colour=red", "state=other", "limit=x", "limit=1&limit=2", "since=yesterday", "server=" + "x" * 300):
        with naming(query):
            assert admin.ask(path=f"{PATH}?{query}").status_int == 400


def test_who_does_not_answer_is_named(admin: House) -> None:
    admin.sessions.unreachable = ["node2-6080-0"]
    assert admin.ask().json["unreachable"] == ["node2-6080-0"]
    # And a session that is not found may be there.
    assert admin.ask(path=f"{PATH}/{new_id()}").status_int == 503


def test_one_session_is_shown_and_ended_with_its_reason(admin: House) -> None:
    path = f"{PATH}/{admin.session.id}"
    assert admin.ask(path=path).json["session"]["id"] == admin.session.id
    answer = admin.ask("DELETE", path, json_body={"reason": "x\ny" + "z" * 10_240})
    assert (answer.status_int, answer.body) == (204, b"")
    assert admin.ask("DELETE", path).status_int == 204
    asked = SessionFilter({"session": admin.session.id}).to_primitive()
    assert admin.sessions.ended == [(asked, "xy" + "z" * 254), (asked, "")]


def test_what_does_not_end_a_session(admin: House) -> None:
    path = f"{PATH}/{admin.session.id}"
    for body in (b"{", b'{"reason": 1}', b'{"why": "x"}', b"[]"):
        with naming(body):
            assert admin.ask("DELETE", path, body=body, content_type="application/json").status_int == 400
    assert admin.ask("DELETE", path, body=b"reason=x", content_type="text/plain").status_int == 400
    assert admin.sessions.ended == []
    # Clients send the type without a body, too.
    assert admin.ask("DELETE", path, content_type="application/json").status_int == 204
    admin.sessions.ended.clear()
    for unknown in (new_id(), "x", "%00"):
        with naming(unknown):
            assert admin.ask("DELETE", f"{PATH}/{unknown}").status_int == 404
    assert admin.sessions.ended == []


def test_all_sessions_of_a_server_end_and_its_urls_are_revoked(admin: House) -> None:
    uuid = next(iter(admin.get("/v2.1/servers").json["servers"]))["id"]
    admin.sessions.unreachable = ["node2-6080-0"]
    path = f"/porthole/v1/servers/{uuid}/sessions"
    answer = admin.ask("DELETE", path, json_body={"reason": "why"})
    assert answer.json == {"ended": 1, "revoked": 3, "unreachable": ["node2-6080-0"]}
    assert admin.sessions.ended == [({"server": uuid}, "why")]
    assert admin.consoleauth.revoked == [uuid]
    assert admin.ask("DELETE", f"/porthole/v1/servers/{new_id()}/sessions").status_int == 404


def test_ended_sessions_come_from_the_history(admin: House) -> None:
    session_id = new_id()
    admin.consoleauth.events = [closed(session_id, code=4403, reason="Ended by Rita", by="rita"), closed(new_id())]
    body = admin.ask(path=f"{PATH}?state=ended&limit=1").json
    assert admin.consoleauth.asked == [({"kind": "session_closed"}, 1, None)]
    (shown,) = body["sessions"]
    assert (shown["id"], shown["end"]) == (session_id, {"code": 4403, "reason": "Ended by Rita", "by": "rita"})
    # The next page begins behind the event, whose id the session does not have.
    assert body["sessions_links"][0]["href"].endswith(f"marker={admin.consoleauth.events[0].id}")
    admin.consoleauth.error = errors.HistoryUnavailable("it is switched off")
    assert admin.ask(path=f"{PATH}?state=ended").status_int == 503


def test_answers_are_those_of_the_document(admin: House) -> None:
    document = admin.get("/v2.1/openapi.json", "2.96").json
    admin.consoleauth.events = [closed(new_id())]
    for path, template in (
        (PATH, PATH),
        (f"{PATH}?state=ended", PATH),
        (f"{PATH}/{admin.session.id}", f"{PATH}/{{id}}"),
    ):
        with naming(path):
            answer = admin.ask(path=path)
            assert_conforms(document, "GET", template, 200, answer.headers, answer.json)


def test_a_question_without_a_broker_is_503(admin: House) -> None:
    admin.sessions.error = errors.RpcUnavailable("novncproxy", "list_sessions")
    for method, path in (("GET", PATH), ("GET", f"{PATH}/{new_id()}"), ("DELETE", f"{PATH}/{new_id()}")):
        with naming(method, path):
            answer = admin.ask(method, path)
            assert (answer.status_int, list(json.loads(answer.body))) == (503, ["serviceUnavailable"])

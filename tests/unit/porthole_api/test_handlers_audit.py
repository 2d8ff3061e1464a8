# SPDX-License-Identifier: Apache-2.0
"""The history over HTTP: filters, pages, whose events, and what no user is told."""

import json
from typing import Any

import pytest
import webob

from porthole_api import request as request_keys
from porthole_api.handlers.audit import AuditHandler
from porthole_api.paging import MAX_LIMIT
from porthole_api.policy import Policy
from porthole_api.request import Request
from porthole_common import errors
from porthole_common.context import build_request_context
from support.api import Api, FakeConsoleAuth, build_conf
from support.cases import naming
from support.history import INSTANCE, closed, new_id, opened
from support.openapi import assert_conforms

PATH = "/porthole/v1/audit"


class User:
    """Asks the handler, in a project and with roles."""

    def __init__(self, *roles: str, project: str | None = "red") -> None:
        self.consoleauth = FakeConsoleAuth()
        self.handler = AuditHandler(self.consoleauth, Policy(build_conf()))
        self.context = build_request_context(user_id="rita", project_id=project, roles=list(roles))

    def ask(self, query: str = "") -> Any:
        request = Request(webob.Request.blank(f"{PATH}?{query}").environ)
        request.environ[request_keys.CONTEXT] = self.context
        return json.loads(self.handler.handle_list(request).body)


def test_a_reader_has_the_events_of_the_own_project_and_no_hosts() -> None:
    reader = User("reader")
    reader.consoleauth.events = [closed(new_id(), compute_host="c1", client="192.0.2.7")]
    (event,) = reader.ask("kind=session_closed")["audit"]
    assert reader.consoleauth.asked == [({"kind": "session_closed", "project_id": "red"}, MAX_LIMIT, None)]
    assert (event["server"], event["client"], event["code"]) == ({"id": INSTANCE}, {"address": "192.0.2.7"}, 1000)
    assert not {"proxy", "compute_host", "process"} & event.keys()


def test_an_administrator_has_all_and_each_filter_goes_through() -> None:
    admin = User("admin", project=None)
    admin.consoleauth.events = [opened(new_id(), compute_host="c1")]
    names = ["server", "project_id", "user_id", "host", "client", "session", "since", "until"]
    (event,) = admin.ask("&".join(f"{name}={name}" for name in names) + "&kind=session_opened&limit=7")["audit"]
    wanted = {name: name for name in names} | {"kind": "session_opened"}
    assert admin.consoleauth.asked == [(wanted, 7, None)]
    assert (event["compute_host"], event["proxy"]) == ("c1", "host-1")


def test_what_a_user_may_not() -> None:
    for user, query in (
        (User("reader"), "project_id=blue"),
        (User("reader"), "host=c1"),
        (User("member", project=None), ""),
        (User(), ""),
    ):
        with naming(query), pytest.raises(errors.PolicyForbidden):
            user.ask(query)
        assert user.consoleauth.asked == []
    assert User("reader").ask("project_id=red") == {"audit": []}


def test_a_query_that_does_not_do() -> None:
    for query in ("colour=red", "limit=x", "limit=-1", "limit=1&limit=2", "kind=other", "limit=" + "1" * 5000):
        with naming(query), pytest.raises(errors.RequestInvalid):
            User("admin").ask(query)


def test_pages_are_linked_and_keep_their_filters() -> None:
    api = Api()
    api.consoleauth.events = [opened(new_id(), number) for number in range(3)]
    body = api.get(f"{PATH}?kind=session_opened&limit=2&marker={new_id()}").json
    assert len(body["audit"]) == 2
    (link,) = body["audit_links"]
    marker = api.consoleauth.events[1].id
    assert link == {"rel": "next", "href": f"http://localhost{PATH}?kind=session_opened&limit=2&marker={marker}"}
    assert "audit_links" not in api.get(f"{PATH}?limit=3").json


def test_answers_are_those_of_the_document_and_a_database_that_is_down_is_503() -> None:
    api = Api()
    document = api.get("/v2.1/openapi.json", "2.96").json
    api.consoleauth.events = [closed(new_id()), opened(new_id())]
    for query, error, status in (
        ("", None, 200),
        ("?limit=1", None, 200),
        ("?limit=x", None, 400),
        ("", errors.RequestInvalid("Invalid input for marker"), 400),
        ("", errors.HistoryUnavailable("connection refused"), 503),
        ("", errors.RpcUnavailable("consoleauth", "list_events"), 503),
        ("", errors.RemoteFailure("consoleauth", "list_events"), 503),
    ):
        with naming(query, error):
            api.consoleauth.error = error
            response = api.get(PATH + query)
            assert response.status_int == status
            assert_conforms(document, "GET", PATH, status, response.headers, response.json)


def test_the_words_of_the_database_are_for_administrators() -> None:
    for user, said in ((User("admin"), True), (User("reader"), False)):
        user.consoleauth.error = errors.HistoryUnavailable('connection to server at "10.0.0.5" failed')
        with pytest.raises(errors.HistoryUnavailable) as caught:
            user.ask()
        assert ("10.0.0.5" in str(caught.value)) == said

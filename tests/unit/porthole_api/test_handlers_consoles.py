# SPDX-License-Identifier: Apache-2.0
"""Porthole's own route for a console; Nova's two are met on the whole application in functional tests."""

import json

from porthole_common.model import ConsoleMode
from porthole_consoleauth.rpcapi import ANY_NUMBER, TokenWish
from support.api import EXPIRES_AT, Api, build_instance
from support.cases import naming

PATH = f"/porthole/v1/servers/{build_instance(1).uuid}/consoles"


def test_the_body_and_what_consoleauth_is_asked() -> None:
    for console, wish in (
        ({}, TokenWish()),
        ({"type": "xvpvnc", "mode": "control"}, TokenWish()),
        ({"mode": "view", "uses": 1, "expires_in": 60}, TokenWish(ConsoleMode.VIEW, 1, 60)),
        ({"uses": None}, TokenWish(ConsoleMode.CONTROL, ANY_NUMBER)),
    ):
        with naming(console):
            api = Api([build_instance(1)])
            answer = api.request("POST", PATH, json_body={"console": console})
            assert answer.status_code == 201
            assert api.consoleauth.wishes == [wish]
            made = json.loads(answer.body)["console"]
            assert sorted(made) == ["expires_at", "mode", "type", "url", "uses"]
            assert (made["type"], made["mode"]) == (console.get("type", "novnc"), console.get("mode", "control"))
            assert made["uses"] == (wish.uses or None)
            assert made["expires_at"] == EXPIRES_AT.isoformat(timespec="seconds")
            assert answer.headers["Cache-Control"] == "no-store"


def test_a_body_that_is_not_understood_is_refused() -> None:
    for body in (
        {},
        {"console": []},
        {"console": {"mode": "admin"}},
        {"console": {"type": "spice-html5"}},
        {"console": {"uses": 0}},
        {"console": {"uses": 1001}},
        {"console": {"uses": "1"}},
        {"console": {"expires_in": 0}},
        {"console": {"expires_in": 1e9}},
        {"console": {"one_time": True}},
        {"console": {}, "more": 1},
    ):
        with naming(body):
            api = Api([build_instance(1)])
            answer = api.request("POST", PATH, json_body=body)
            assert answer.status_code == 400
            assert json.loads(answer.body)["badRequest"]["code"] == 400
            assert api.consoleauth.wishes == []

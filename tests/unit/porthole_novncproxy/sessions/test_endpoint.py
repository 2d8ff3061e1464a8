# SPDX-License-Identifier: Apache-2.0
"""One process's sessions over RPC: which are listed, in which order, and which end."""

from types import SimpleNamespace
from typing import Any

import pytest

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.messaging import oslo_messaging
from porthole_common.model import ConsoleMode
from porthole_common.open_session import OpenSession, build_session_id
from porthole_novncproxy.rpcapi import MAX_SESSIONS
from porthole_novncproxy.sessions.endpoint import SessionsEndpoint
from porthole_relay.frames import CloseCode
from porthole_relay.states import State
from porthole_relay.subject import Subject
from support.cases import naming

CONTEXT = RequestContext(overwrite=False)


class Sessions:
    """Stands at the registry: its sessions are plain objects."""

    def __init__(self) -> None:
        self.open: list[tuple[Any, Any]] = []
        self.ends: list[tuple[list[str], str, CloseCode, str]] = []
        self.is_blocked = False

    def add(self, seconds: float, **changes: Any) -> str:
        session_id = build_session_id(1_700_000_000 + seconds)
        values = {"instance_uuid": "i-1", "console_type": "novnc", "client": "192.0.2.7", "user_id": "rita"}
        subject = Subject(**values | {"project_id": "red"} | changes, session_id=session_id)
        session = SimpleNamespace(subject=subject, numbers=(5, 7, None), input_at=None, state=State.OPEN)
        info = SimpleNamespace(compute_host="c1", mode=ConsoleMode.VIEW)
        self.open.append((session, SimpleNamespace(connect_info=info, user_agent="Firefox")))
        return session_id

    def list_open(self, timeout_s: float) -> list[tuple[Any, Any]]:
        if self.is_blocked:
            raise TimeoutError
        return list(self.open)

    def end_by(self, sessions: Any, user: str, end: Any, on_ended: Any) -> int:
        self.ends.append(([session.subject.session_id for session in sessions], user, end.code, end.reason))
        for session, admission in self.open:
            if session in sessions:
                on_ended(session, admission)
        return len(sessions)


class House:
    def __init__(self) -> None:
        self.sessions = Sessions()
        self.told: list[tuple[str, str]] = []
        self.endpoint = SessionsEndpoint(
            self.sessions,
            "node1-6080-0",
            lambda session, _, reason: self.told.append((session.subject.session_id, reason)),
        )

    def list(self, limit: int = 10, marker: str | None = None, **filters: str) -> list[OpenSession]:
        values = self.endpoint.list_sessions(CONTEXT, filters, limit, marker)
        return [OpenSession.from_primitive(value) for value in values]

    def end(self, reason: str = "", name: str | None = "Rita", **filters: str) -> int:
        count: int = self.endpoint.end_sessions(CONTEXT, filters, "u-1", name, reason)
        return count


def test_the_newest_come_first_and_a_page_begins_behind_its_marker() -> None:
    house = House()
    ids = [house.sessions.add(seconds) for seconds in (3, 1, 2, 5, 4)]
    newest = sorted(ids, reverse=True)
    assert [each.id for each in house.list()] == newest
    assert [each.id for each in house.list(2)] == newest[:2]
    assert [each.id for each in house.list(2, newest[1])] == newest[2:4]
    # Also when the session of the marker has ended meanwhile.
    house.sessions.open = [item for item in house.sessions.open if item[0].subject.session_id != newest[1]]
    assert [each.id for each in house.list(2, newest[1])] == newest[2:4]


def test_a_session_that_is_being_closed_is_not_open() -> None:
    house = House()
    house.sessions.add(1)
    house.sessions.open[0][0].state = State.CLOSING
    assert house.list() == []


def test_what_is_told_of_a_session() -> None:
    house = House()
    session_id = house.sessions.add(1)
    (told,) = house.list()
    assert (told.id, told.instance_uuid, told.mode, told.user_id, told.project_id) == (
        session_id,
        "i-1",
        "view",
        "rita",
        "red",
    )
    assert (told.client, told.user_agent, told.proxy, told.compute_host) == (
        "192.0.2.7",
        "Firefox",
        "node1-6080-0",
        "c1",
    )
    assert (told.bytes_to_client, told.bytes_from_client, told.last_input_at) == (5, 7, None)
    assert told.opened_at.timestamp() == 1_700_000_001


def test_each_filter_compares_its_field() -> None:
    house = House()
    first = house.sessions.add(1)
    other = house.sessions.add(2, instance_uuid="i-2", client="192.0.2.8", user_id="otto", project_id="blue")
    for filters, expected in (
        ({"session": first}, [first]),
        ({"server": "i-2"}, [other]),
        ({"project_id": "blue"}, [other]),
        ({"user_id": "rita"}, [first]),
        ({"client": "192.0.2.8"}, [other]),
        ({"host": "c1"}, [other, first]),
        ({"host": "c2"}, []),
        ({"server": "i-1", "user_id": "otto"}, []),
        ({"since": "2023-11-14T22:13:22+00:00"}, [other]),
        ({"until": "2023-11-14T22:13:22+00:00"}, [first]),
    ):
        with naming(filters):
            assert [each.id for each in house.list(**filters)] == expected


def test_the_client_is_told_who_ended_it_and_why() -> None:
    house = House()
    first, second = house.sessions.add(1), house.sessions.add(2)
    house.sessions.add(3, instance_uuid="i-2")
    assert house.end("maintenance", session=first) == 1
    assert house.end(server="i-1") == 2
    assert house.end("x" * 10_240 + "\n", None, session=second) == 1
    words = [(ids, user, code, reason) for ids, user, code, reason in house.sessions.ends]
    ended = CloseCode.ENDED_BY_USER
    assert words[0] == ([first], "u-1", ended, "Ended by Rita: maintenance")
    assert words[1] == ([first, second], "u-1", ended, "Ended by Rita")
    assert words[2] == ([second], "u-1", ended, "Ended by u-1: " + "x" * 256)
    assert house.told == [(first, "maintenance"), (first, ""), (second, ""), (second, "x" * 256)]


def test_what_is_refused() -> None:
    house = House()
    for call in (
        lambda: house.endpoint.list_sessions(CONTEXT, {"colour": "red"}, 1),
        lambda: house.endpoint.list_sessions(CONTEXT, {}, 0),
        lambda: house.endpoint.list_sessions(CONTEXT, {}, MAX_SESSIONS + 1),
        lambda: house.endpoint.list_sessions(CONTEXT, {}, True),
        lambda: house.endpoint.list_sessions(CONTEXT, {}, 1, "x"),
        # All sessions of everybody are ended by nobody's mistake.
        lambda: house.endpoint.end_sessions(CONTEXT, {}, "u-1", None, ""),
        lambda: house.endpoint.end_sessions(CONTEXT, {"project_id": "red"}, "u-1", None, ""),
    ):
        with pytest.raises(oslo_messaging.ExpectedException) as caught:
            call()
        assert isinstance(caught.value.exc_info[1], errors.RequestInvalid)
    assert house.sessions.ends == []


def test_a_loop_that_is_blocked_is_no_empty_list() -> None:
    house = House()
    house.sessions.is_blocked = True
    for call in (house.list, lambda: house.end(server="i-1")):
        with pytest.raises(oslo_messaging.ExpectedException) as caught:
            call()
        assert isinstance(caught.value.exc_info[1], errors.RpcUnavailable)

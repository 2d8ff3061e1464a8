# SPDX-License-Identifier: Apache-2.0
"""Gathering the proxies' sessions: which processes are known, and what a silent one costs."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from porthole_api.proxies import (
    FIRST_ANSWERS_S,
    FORGET_S,
    MAX_PER_USER,
    MAX_PROCESSES,
    SILENCE_PAUSE_S,
    ProxySessions,
    Roster,
)
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.discovery import DaemonProcess
from porthole_common.open_session import OpenSession, SessionFilter
from support.cases import naming
from support.open_sessions import build_session
from support.processes import wait_until

LONG_S = 30.0
CONTEXT = RequestContext(user_id="u-1", user_name="Rita", overwrite=False)
ALL = SessionFilter({})


class Proxies:
    """Stands at the RPC client: what each process has, or how it fails."""

    def __init__(self) -> None:
        self.open: dict[str, list[OpenSession]] = {}
        self.errors: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.ended: list[tuple[Any, ...]] = []
        self.held = threading.Event()
        self.held.set()
        self.frozen = ""

    def _answer(self, server: str) -> None:
        self.asked.append(server)
        if server == self.frozen:
            self.held.wait(LONG_S)
        if server in self.errors:
            raise self.errors[server]

    def list_sessions(
        self, context: RequestContext, server: str, asked: SessionFilter, limit: int, marker: str | None
    ) -> list[OpenSession]:
        self._answer(server)
        newest = sorted(self.open[server], key=lambda each: each.id, reverse=True)
        return [each for each in newest if marker is None or each.id < marker][:limit]

    def end_sessions(
        self,
        context: RequestContext,
        server: str,
        asked: SessionFilter,
        user_id: str | None,
        name: str | None,
        reason: str,
    ) -> int:
        self._answer(server)
        self.ended.append((server, asked, user_id, name, reason))
        return len(self.open[server])


class House:
    def __init__(self, *servers: str, timeout_s: float = LONG_S) -> None:
        self.now = 1000.0
        self.roster = Roster(lambda: self.now)
        self.proxies = Proxies()
        for server in servers:
            self.hear(server)
            self.proxies.open[server] = []
        self.roster.note_asked()
        self.now += FIRST_ANSWERS_S
        clock = time.monotonic if timeout_s < LONG_S else (lambda: self.now)
        self.sessions = ProxySessions(self.roster, self.proxies, clock, timeout_s)

    def hear(self, server: str, daemon: str = "novncproxy") -> None:
        self.roster.take(DaemonProcess(daemon, "host", server, "p"))


@pytest.fixture
def house() -> Any:
    return House("a", "b")


def test_a_page_is_the_newest_of_all_processes(house: House) -> None:
    sessions = [build_session(number) for number in range(6)]
    house.proxies.open = {"a": sessions[::2], "b": sessions[1::2]}
    page, has_more, unreachable = house.sessions.list_sessions(CONTEXT, ALL, 4)
    assert ([each.id for each in page], has_more, unreachable) == ([each.id for each in sessions[:1:-1]], True, [])
    page, has_more, _ = house.sessions.list_sessions(CONTEXT, ALL, 4, page[-1].id)
    assert ([each.id for each in page], has_more) == ([sessions[1].id, sessions[0].id], False)


def test_who_fails_is_named_and_the_others_answer(house: House) -> None:
    session = build_session(1)
    house.proxies.open["b"] = [session]
    for error in (errors.RpcUnavailable("t", "m"), errors.RemoteFailure("t", "m")):
        with naming(error):
            house.now += 3600
            house.hear("a")
            house.hear("b")
            house.proxies.errors = {"a": error}
            assert house.sessions.list_sessions(CONTEXT, ALL, 9) == ([session], False, ["a"])


def test_who_was_silent_is_named_without_being_asked_for_a_moment(house: House) -> None:
    house.proxies.errors = {"a": errors.RpcUnavailable("t", "m")}
    house.sessions.list_sessions(CONTEXT, ALL, 9)
    house.proxies.asked.clear()
    assert house.sessions.list_sessions(CONTEXT, ALL, 9)[2] == ["a"]
    assert house.proxies.asked == ["b"]
    house.now += SILENCE_PAUSE_S
    house.proxies.errors = {}
    assert house.sessions.list_sessions(CONTEXT, ALL, 9)[2] == []


def test_a_request_does_not_wait_for_one_that_never_answers() -> None:
    house = House("a", "b", timeout_s=0.3)
    house.proxies.frozen = "a"
    house.proxies.held.clear()
    session = build_session(1)
    house.proxies.open["b"] = [session]
    assert house.sessions.list_sessions(CONTEXT, ALL, 9) == ([session], False, ["a"])
    house.proxies.held.set()


def test_what_one_process_answers_costs_no_other_one(house: House) -> None:
    session = build_session(1)
    house.proxies.open["b"] = [session]
    for error in (errors.RequestInvalid("x"), errors.InstanceNotFound("x"), ValueError("x"), TypeError("x")):
        with naming(error):
            house.now += SILENCE_PAUSE_S
            house.proxies.errors = {"a": error}
            assert house.sessions.list_sessions(CONTEXT, ALL, 9) == ([session], False, ["a"])
            house.now += SILENCE_PAUSE_S
            assert house.sessions.end_sessions(CONTEXT, ALL, "") == (1, ["a"])


def test_a_single_end_asks_its_process_alone_also_when_that_was_silent(house: House) -> None:
    house.proxies.errors = {"a": errors.RpcUnavailable("t", "m")}
    house.sessions.list_sessions(CONTEXT, ALL, 9)
    house.proxies.asked.clear()
    house.proxies.errors = {}
    house.proxies.open["a"] = [build_session(1)]
    assert house.sessions.end_sessions(CONTEXT, ALL, "", "a") == (1, [])
    assert house.proxies.asked == ["a"]


def test_a_user_has_few_requests_under_way() -> None:
    house = House("a", timeout_s=LONG_S - 1)
    house.proxies.frozen = "a"
    house.proxies.held.clear()
    other = RequestContext(user_id="u-2", overwrite=False)
    with ThreadPoolExecutor(MAX_PER_USER + 1) as pool:
        running = [pool.submit(house.sessions.list_sessions, CONTEXT, ALL, 9) for _ in range(MAX_PER_USER)]
        wait_until(lambda: len(house.proxies.asked) == MAX_PER_USER, LONG_S, "the requests to be under way")
        with pytest.raises(errors.RateReached):
            house.sessions.list_sessions(CONTEXT, ALL, 9)
        of_another = pool.submit(house.sessions.list_sessions, other, ALL, 9)
        wait_until(lambda: len(house.proxies.asked) == MAX_PER_USER + 1, LONG_S, "another user's")
        house.proxies.held.set()
        assert [each.result(LONG_S) for each in (*running, of_another)] == [([], False, [])] * (MAX_PER_USER + 1)
    assert house.sessions.list_sessions(CONTEXT, ALL, 9) == ([], False, [])


def test_a_name_that_is_none_is_not_taken() -> None:
    house = House("a")
    for name in ("", "x" * 300, "a\nb"):
        house.hear(name)
    assert house.roster.list_names() == ["a"]
    for number in range(3 * MAX_PROCESSES):
        house.hear(f"n{number}")
    assert len(house.roster.list_names()) == MAX_PROCESSES


def test_ending_reaches_every_process_with_the_users_name(house: House) -> None:
    house.proxies.open = {"a": [build_session(1)], "b": [build_session(2), build_session(3)]}
    asked = SessionFilter({"server": "i-1"})
    assert house.sessions.end_sessions(CONTEXT, asked, "why") == (3, [])
    assert sorted(house.proxies.ended, key=str) == [(name, asked, "u-1", "Rita", "why") for name in ("a", "b")]


def test_without_a_broker_nothing_is_known() -> None:
    roster = Roster(lambda: 0.0)
    with pytest.raises(errors.RpcUnavailable):
        ProxySessions(roster, Proxies()).list_sessions(CONTEXT, ALL, 9)


def test_the_roster_has_processes_of_the_proxy_and_forgets_those_that_are_gone() -> None:
    house = House("a")
    house.hear("x", daemon="compute")
    assert house.roster.list_names() == ["a"]
    house.now += FORGET_S - 2
    house.hear("b")
    assert house.roster.list_names() == ["a", "b"]
    house.now += 2
    assert house.roster.list_names() == ["b"]


def test_the_first_answers_are_waited_for() -> None:
    now = [50.0]
    roster = Roster(lambda: now[0])
    assert roster.missing_s() is None
    roster.note_asked()
    assert roster.missing_s() == FIRST_ANSWERS_S
    now[0] += 10
    roster.note_asked()
    assert roster.missing_s() == 0.0

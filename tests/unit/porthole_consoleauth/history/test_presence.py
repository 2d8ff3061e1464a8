# SPDX-License-Identifier: Apache-2.0
from collections.abc import Collection
from datetime import datetime

import pytest

from porthole_common import errors
from porthole_common.discovery import DaemonProcess
from porthole_common.history.event import HistoryEvent
from porthole_consoleauth.history.presence import ROUNDS, Presence
from support.history import closed, new_id


class Store:
    """Open sessions by process, one for each."""

    def __init__(self, *processes: str) -> None:
        self.is_local = True
        self.open = set(processes)
        self.presumed: set[str] = set()
        self.refusal = ""
        self.is_down = False

    def refuse(self, reason: str) -> None:
        self.refusal = reason

    def list_open_processes(self) -> set[str]:
        if self.is_down:
            raise errors.HistoryUnavailable("away")
        return set(self.open)

    def close_presumed(self, process: str, now: datetime) -> list[HistoryEvent]:
        self.open.discard(process)
        self.presumed.add(process)
        return [closed(new_id())]

    def reopen_presumed(self, processes: Collection[str]) -> int:
        back = self.presumed & set(processes)
        self.presumed -= back
        self.open |= back
        return len(back)


class Site:
    """A consoleauth on host "here", whose process is "me"."""

    def __init__(self, *open_processes: str) -> None:
        self.store = Store(*open_processes)
        self.told: list[HistoryEvent] = []
        self.presence = Presence(self.store, "here", "me", self.told.extend)

    def round(self, *proxies: str, own: bool = True, others: Collection[str] = ()) -> None:
        if own:
            self.presence.take(DaemonProcess("consoleauth", "here", "here", "me"))
        for host in others:
            self.presence.take(DaemonProcess("consoleauth", host, host, f"consoleauth of {host}"))
        for process in proxies:
            self.presence.take(DaemonProcess("novncproxy", "here", "here-6080-0", process))
        self.presence.judge()


def test_a_process_is_dead_when_it_missed_all_rounds_in_a_row() -> None:
    site = Site("p1", "p2")
    for _ in range(ROUNDS - 1):
        site.round("p2")
    site.round("p1", "p2")
    for _ in range(ROUNDS - 1):
        site.round("p2")
    assert site.store.presumed == set()
    site.round("p2")
    assert site.store.presumed == {"p1"}
    assert len(site.told) == 1
    site.round("p2")
    assert len(site.told) == 1


def test_a_process_that_was_frozen_and_answers_is_corrected() -> None:
    site = Site("p1")
    for _ in range(ROUNDS):
        site.round()
    assert site.store.open == set()
    site.round("p1")
    assert site.store.open == {"p1"}
    # And it has all rounds again.
    for _ in range(ROUNDS - 1):
        site.round()
    assert site.store.open == {"p1"}


def test_rounds_count_only_when_the_own_answer_came() -> None:
    site = Site("p1")
    for _ in range(3 * ROUNDS):
        site.round(own=False)
    assert site.store.open == {"p1"}


def test_a_database_that_is_away_closes_nothing() -> None:
    site = Site("p1")
    site.store.is_down = True
    for _ in range(3 * ROUNDS):
        with pytest.raises(errors.HistoryUnavailable):
            site.round()
    site.store.is_down = False
    site.round()
    assert site.store.open == {"p1"}


def test_sqlite_beside_a_consoleauth_of_another_host() -> None:
    site = Site()
    site.round(others=["here"])
    assert site.store.refusal == ""
    site.round(others=["there", "elsewhere"])
    assert "elsewhere, there" in site.store.refusal
    assert "[database] connection" in site.store.refusal
    for _ in range(ROUNDS - 1):
        site.round()
        assert site.store.refusal
    site.round()
    assert site.store.refusal == ""


def test_a_server_serves_several_hosts() -> None:
    site = Site()
    site.store.is_local = False
    site.round(others=["there"])
    assert site.store.refusal == ""

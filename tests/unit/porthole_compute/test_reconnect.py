# SPDX-License-Identifier: Apache-2.0

import logging
import queue
import threading
from collections.abc import Iterator

import pytest

from porthole_common import errors
from porthole_compute.drivers.reconnect import Reconnector

TIMEOUT_S = 10


class Server:
    """The other side: what each attempt meets is taken from ``answers``; what happens is put into ``log``."""

    def __init__(self) -> None:
        self.answers: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.events: queue.SimpleQueue[object] = queue.SimpleQueue()
        self.lost = threading.Event()
        self.release = threading.Event()

    def open(self, lost: threading.Event) -> object:
        answer = self.answers.get(timeout=TIMEOUT_S)
        if isinstance(answer, Exception):
            self.events.put("refused")
            raise answer
        if answer == "hang":
            self.release.wait(TIMEOUT_S)
        self.lost = lost
        return answer

    def close(self, connection: object) -> None:
        self.events.put(f"closed {connection}")

    def change(self) -> None:
        self.events.put("changed")

    def next(self) -> object:
        return self.events.get(timeout=TIMEOUT_S)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def link(server: Server) -> Iterator[Reconnector]:
    link = Reconnector("hypervisor", server.open, server.close, server.change, interval_s=0.001)
    yield link
    server.release.set()
    server.answers.put("end")
    link.stop(TIMEOUT_S)


def test_start_returns_with_the_connection(server: Server, link: Reconnector) -> None:
    server.answers.put("first")
    link.start(TIMEOUT_S)
    assert link.current == "first"
    assert server.next() == "changed"


def test_a_lost_connection_is_closed_and_made_again(server: Server, link: Reconnector) -> None:
    server.answers.put("first")
    link.start(TIMEOUT_S)
    assert server.next() == "changed"
    server.lost.set()
    assert [server.next(), server.next()] == ["closed first", "changed"]
    assert link.current is None
    server.answers.put("second")
    assert server.next() == "changed"
    assert link.current == "second"


def test_a_connection_that_its_user_found_dead_is_made_again(server: Server, link: Reconnector) -> None:
    server.answers.put("one")
    link.start(TIMEOUT_S)
    assert server.next() == "changed"
    link.drop("another")
    assert link.current == "one"
    server.answers.put("two")
    link.drop("one")
    assert [server.next() for _ in range(3)] == ["closed one", "changed", "changed"]
    assert link.current == "two"


def test_trouble_is_logged_once_and_tried_again(
    server: Server, link: Reconnector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(5):
        server.answers.put(errors.HypervisorUnavailable("node1"))
    link.start(TIMEOUT_S)
    assert link.current is None
    server.answers.put("late")
    assert [server.next() for _ in range(6)] == ["refused"] * 5 + ["changed"]
    assert caplog.text.count("trying again") == 1
    assert caplog.text.count("Peer connected") == 1


def test_an_error_of_any_sort_ends_no_thread(
    server: Server, link: Reconnector, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers.put(ZeroDivisionError())
    server.answers.put("second")
    link.start(TIMEOUT_S)
    assert [server.next(), server.next()] == ["refused", "changed"]
    assert "Traceback" in caplog.text


def test_stop_closes(server: Server, link: Reconnector) -> None:
    server.answers.put("first")
    link.start(TIMEOUT_S)
    link.stop(TIMEOUT_S)
    assert link.current is None
    assert [server.next(), server.next()] == ["changed", "closed first"]
    assert server.events.empty()


def test_stop_before_start(link: Reconnector) -> None:
    link.stop(TIMEOUT_S)


def test_an_attempt_that_hangs_holds_up_neither_start_nor_stop(
    server: Server, link: Reconnector, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers.put("hang")
    link.start(0.001)
    assert "waiting for it" in caplog.text
    assert link.current is None
    link.stop(0.001)
    server.release.set()
    assert [server.next(), server.next()] == ["changed", "closed hang"]

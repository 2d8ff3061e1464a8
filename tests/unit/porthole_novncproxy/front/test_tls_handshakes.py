# SPDX-License-Identifier: Apache-2.0
import ssl
import threading

import pytest

from porthole_novncproxy.front.tls_handshakes import HandshakeThread, Step
from support.processes import wait_until

LONG_S = 30


class Loop:
    """Keeps the calls that the thread asks for."""

    def __init__(self):
        self.calls = []

    def call_soon(self, action):
        self.calls.append(action)


class Socket:
    """Notes its handshake in ``order``, once it may."""

    def __init__(self, name, order, may_go=None, error=None):
        self.name, self.order, self.may_go, self.error = name, order, may_go, error

    def do_handshake(self):
        if self.may_go is not None:
            assert self.may_go.wait(LONG_S)
        self.order.append(self.name)
        if self.error is not None:
            raise self.error


class House:
    def __init__(self):
        self.loop = Loop()
        self.thread = HandshakeThread(self.loop)
        self.order, self.done = [], []
        self.may_go = threading.Event()

    def start(self, source, name, error=None):
        socket = Socket(name, self.order, self.may_go, error)
        step = Step(source, socket, lambda error: self.done.append((name, error)))
        self.thread.start(step)
        return step

    def finish(self, count):
        self.may_go.set()
        wait_until(lambda: len(self.loop.calls) == count, LONG_S, "the steps are made")
        for call in self.loop.calls:
            call()


@pytest.fixture
def house():
    made = House()
    yield made
    made.may_go.set()
    made.thread.close()


def test_each_source_has_its_turn(house):
    """However many steps another source has waiting."""
    for number in range(50):
        house.start("192.0.2.1", f"flood {number}")
    house.start("192.0.2.2", "one")
    house.start("192.0.2.3", "two")
    house.finish(52)
    assert {"one", "two"} < set(house.order[:5])
    assert [name for name in house.order if "flood" in name] == [f"flood {number}" for number in range(50)]


def test_what_the_handshake_raises_is_told_in_the_loop(house):
    wanted = ssl.SSLWantReadError()
    for error in (None, wanted, ConnectionResetError()):
        house.start("192.0.2.1", "x", error)
    house.finish(3)
    assert [error for _name, error in house.done] == [None, wanted, house.done[2][1]]
    assert isinstance(house.done[2][1], ConnectionResetError)


def test_a_fault_ends_one_handshake_and_not_the_thread(house, caplog):
    house.start("192.0.2.1", "broken", ValueError("a fault"))
    house.start("192.0.2.1", "good")
    house.finish(2)
    assert isinstance(house.done[0][1], OSError)
    assert house.done[1] == ("good", None)
    assert "TLS handshake step failed" in caplog.text


def test_a_step_is_withdrawn_only_before_it_is_under_way(house):
    under_way = house.start("192.0.2.1", "first")
    wait_until(lambda: not house.thread._waiting, LONG_S, "the first step is under way")
    waits = house.start("192.0.2.1", "second")
    assert not house.thread.withdraw(under_way)
    assert house.thread.withdraw(waits)
    assert not house.thread.withdraw(waits)
    house.finish(1)
    assert house.order == ["first"]
    assert not house.thread._waiting


def test_the_thread_ends_with_the_step_under_way():
    house = House()
    house.start("192.0.2.1", "first")
    house.start("192.0.2.1", "second")
    closing = threading.Thread(target=house.thread.close)
    closing.start()
    house.may_go.set()
    closing.join(LONG_S)
    # Whoever closed it finds the step's end in the loop.
    assert not house.thread._thread.is_alive()
    assert len(house.order) <= 1

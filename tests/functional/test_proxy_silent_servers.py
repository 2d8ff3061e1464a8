# SPDX-License-Identifier: Apache-2.0
"""VNC servers that are silent: their clients are told so, and nobody else notices."""

import logging
import statistics
import threading
import time

import pytest

from support.crowd import Crowd
from support.deadlines import MACHINE_SLACK_S, crowd_limit_s, time_call
from support.processes import wait_until
from support.proxy import InProcessProxy, count_descriptors, open_console
from support.vnc_servers import BlackHole, EchoVnc, SilentServer
from support.websocket import RawWebSocket, assert_refused

DIAL_TIMEOUT_S = 5.0
PAUSE_S = 2.0
CLIENTS = 200
INSTANCES = 4


@pytest.fixture
def proxy(web_root, stack):
    """As the daemon is by default."""
    return stack.enter_context(
        InProcessProxy(
            web_root,
            dial_timeout_s=DIAL_TIMEOUT_S,
            request_timeout_s=10.0,
            handshake_threads=64,
            pause_s=PAUSE_S,
        )
    )


class Convalescent(EchoVnc):
    """Says nothing until it is well."""

    def __init__(self):
        self.is_well = threading.Event()
        super().__init__()

    def serve(self, sock):
        self.is_well.wait(30)
        super().serve(sock)


def dials():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("handshake-")]


@pytest.mark.parametrize("kind", [SilentServer, BlackHole])
def test_clients_of_silent_servers_hold_up_nobody_else(proxy, stack, caplog, kind):
    """All on one compute host, which the healthy server is on too: a silent guest does not close its host."""
    caplog.set_level(logging.INFO)
    echo = stack.enter_context(EchoVnc())
    servers = [stack.enter_context(kind()) for _ in range(INSTANCES)]
    tokens = [proxy.issue(server) for server in servers]

    def visit():
        open_console(proxy, echo).close()

    quiet_s = statistics.median(time_call(visit) for _ in range(20))
    descriptors = count_descriptors()
    took = []
    with Crowd(proxy.novnc_port, tokens, CLIENTS, pause_s=1.0) as crowd:
        # Through the first dials, and the pauses behind them.
        until = time.monotonic() + DIAL_TIMEOUT_S + PAUSE_S
        while time.monotonic() < until:
            took.append(time_call(visit))
            time.sleep(0.05)
    limit_s = crowd_limit_s(quiet_s)
    assert max(took) < limit_s, f"{max(took):.2f} s, and {quiet_s:.4f} s when it is quiet"
    # Every client has been told what is wrong, most of them several times.
    assert set(crowd.answers) == {504}
    assert crowd.answers[504] > CLIENTS
    found = [message for message in caplog.messages if message.startswith("Silence found")]
    assert len(found) == INSTANCES
    # One client every two seconds tries each server, besides those that came before anything was known.
    refused = [record for record in caplog.records if record.getMessage().startswith("Console refused")]
    assert len(refused) < crowd.answers[504] / 2
    wait_until(lambda: proxy.counter.total == 0, DIAL_TIMEOUT_S + MACHINE_SLACK_S, "all dials to end")
    wait_until(lambda: count_descriptors() <= descriptors, 10, "the descriptors to be as before")
    assert len(dials()) <= 64


def test_a_server_that_speaks_again_is_tried_again_in_seconds(proxy, stack, caplog):
    caplog.set_level(logging.INFO)
    server = stack.enter_context(Convalescent())
    token = proxy.issue(server)
    assert_refused(proxy.novnc_port, f"/?token={token}", 504)
    # Known to be silent: told at once.
    began = time.monotonic()
    assert_refused(proxy.novnc_port, f"/?token={token}", 504)
    assert time.monotonic() - began < DIAL_TIMEOUT_S / 2
    server.is_well.set()

    def opens():
        with RawWebSocket(proxy.novnc_port, f"/?token={token}") as client:
            return client.reply.status == 101

    wait_until(opens, PAUSE_S + MACHINE_SLACK_S, "the console to open")
    assert any(message.startswith("Silence ended") for message in caplog.messages)


def test_two_instances_at_one_address_are_silent_each_for_itself(proxy, stack):
    """What stands in front of them may tell them apart by their path."""
    server = stack.enter_context(Convalescent())
    first, second = proxy.issue(server), proxy.issue(server)
    assert_refused(proxy.novnc_port, f"/?token={first}", 504)
    server.is_well.set()
    with RawWebSocket(proxy.novnc_port, f"/?token={second}") as client:
        assert client.reply.status == 101

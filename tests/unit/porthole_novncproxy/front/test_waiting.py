# SPDX-License-Identifier: Apache-2.0
"""Which connection ends when there are too many: the oldest that waits, of its source or the source with the most."""

import logging

from hypothesis import given
from hypothesis import strategies as st

from porthole_novncproxy.doors import NOVNC
from porthole_novncproxy.front.connection import Connection
from porthole_novncproxy.front.waiting import Waiting, WaitingLimits
from support.api import FakeClock

ONE, OTHER, PROXY = "192.0.2.1", "192.0.2.2", "192.0.2.9"
WIDE = 1000


class Crowd:
    def __init__(self, total=WIDE, per_source=WIDE, descriptor_mark=None):
        self.clock = FakeClock()
        limits = WaitingLimits(total, per_source, descriptor_mark)
        self.waiting = Waiting(limits, lambda address: address == PROXY, self.clock)
        self.ended = []
        self.next_fd = 10

    def come(self, address=ONE, is_idle=True, fd=None):
        """A new connection; return it."""
        self.next_fd += 1
        connection = Connection(None, address, NOVNC, fd or self.next_fd)
        self.waiting.enter(connection)
        if is_idle:
            self.waiting.set_idle(connection, lambda: self.ended.append(connection))
        return connection


def test_more_than_its_share_ends_the_oldest_of_the_same_source():
    crowd = Crowd(per_source=3)
    other = crowd.come(OTHER)
    first, second, *_ = [crowd.come() for _ in range(5)]
    assert crowd.ended == [first, second]
    assert other not in crowd.ended
    assert crowd.waiting.total == 4


def test_a_source_is_a_64_of_ipv6():
    crowd = Crowd(per_source=2)
    first = crowd.come("2001:db8::1")
    for number in range(2, 4):
        crowd.come(f"2001:db8::{number}")
    crowd.come("2001:db8:0:1::1")
    assert crowd.ended == [first]


def test_a_site_of_ipv6_has_one_share_when_all_are_too_many():
    crowd = Crowd(total=5)
    one, other = crowd.come(ONE), crowd.come(OTHER)
    site = [crowd.come(f"2001:db8:0:{number:x}::1") for number in range(20)]
    assert crowd.ended == site[:17]
    crowd.waiting.leave(site[-1])
    crowd.come("2001:db8:0:99::1")
    for connection in (one, other):
        crowd.waiting.leave(connection)
    assert crowd.ended == site[:17]


def test_a_trusted_proxy_is_many_clients_and_has_the_total_limit_alone():
    crowd = Crowd(total=5, per_source=2)
    connections = [crowd.come(PROXY) for _ in range(5)]
    assert crowd.ended == []
    crowd.come(OTHER)
    assert crowd.ended == connections[:1]


def test_a_source_that_comes_again_and_again_ends_its_own_and_not_a_client_on_a_slow_line():
    for crowd in (Crowd(total=5), Crowd(descriptor_mark=16)):
        slow = crowd.come(OTHER)
        for _ in range(50):
            crowd.come()
        assert slow not in crowd.ended
        assert crowd.waiting.total == 5


def test_a_request_that_is_being_answered_is_not_ended():
    crowd = Crowd(total=2, per_source=2)
    busy = [crowd.come(is_idle=False) for _ in range(3)]
    idle = crowd.come()
    assert crowd.ended == []
    crowd.come()
    assert crowd.ended == [idle]
    # It waits for its client again, as the newest.
    crowd.waiting.set_idle(busy[0], lambda: crowd.ended.append(busy[0]))
    crowd.waiting.leave(busy[1])
    assert crowd.waiting.total == 3


def test_near_the_descriptor_limit_each_new_one_ends_the_oldest():
    crowd = Crowd(descriptor_mark=100)
    first, second = crowd.come(fd=98), crowd.come(OTHER, fd=99)
    assert crowd.ended == []
    crowd.come(fd=100)
    crowd.come(fd=101)
    assert crowd.ended == [first, second]


def test_a_console_counts_no_more():
    crowd = Crowd(per_source=1)
    for _ in range(5):
        connection = crowd.come()
        crowd.waiting.set_busy(connection)
        crowd.waiting.leave(connection)
        crowd.waiting.leave(connection)
    assert crowd.ended == []
    assert crowd.waiting.total == 0


def test_the_log_has_one_line_for_a_flood(caplog):
    caplog.set_level(logging.INFO)
    crowd = Crowd(per_source=1)
    for _ in range(100):
        crowd.come()
    assert len(caplog.records) == 1
    crowd.clock.now_s += 10
    crowd.come()
    assert 'limit="[novncproxy] max_waiting_connections_per_source" count=99' in caplog.text


@given(st.lists(st.tuples(st.sampled_from([ONE, OTHER, PROXY]), st.sampled_from(["come", "busy", "leave"]))))
def test_the_bounds_hold_for_idle_connections_and_nothing_is_left(steps):
    crowd = Crowd(total=6, per_source=3)
    alive = []
    for address, step in steps:
        alive = [connection for connection in alive if connection not in crowd.ended]
        if step == "come" or not alive:
            alive.append(crowd.come(address))
        elif step == "busy":
            crowd.waiting.set_busy(alive[0])
        else:
            crowd.waiting.leave(alive.pop(0))
        idle = [connection for connection in alive if connection.fd in crowd.waiting._idle]
        assert len(idle) <= 6
        assert all(sum(each.address == source for each in idle) <= 3 for source in (ONE, OTHER))
    for connection in alive:
        crowd.waiting.leave(connection)
    waiting = crowd.waiting
    assert [*waiting._sources, *waiting._counts, *waiting._idle, *waiting._idle_of] == []

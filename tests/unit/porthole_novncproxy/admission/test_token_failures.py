# SPDX-License-Identifier: Apache-2.0
import logging

import pytest

from porthole_common import errors
from porthole_common.allowance import SITE_TIMES
from porthole_novncproxy.admission.token_failures import BURST, KNOWN_S, LOG_PAUSE_S, MAX_KNOWN, REFILL_S, TokenFailures
from support.api import FakeClock

SOURCE, OTHER = "192.0.2.1", "192.0.2.2"
GOOD, BAD = "good token", "bad token"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def failures(clock):
    return TokenFailures(clock)


def fail(failures, times, source=SOURCE):
    for _ in range(times):
        failures.note_failure(source, BAD)


def is_refused(failures, source=SOURCE, token=BAD):
    try:
        failures.check(source, token)
    except errors.TokensRefused as exc:
        return exc.wait_s > 0
    return False


def test_some_failures_in_a_short_time_are_free_and_then_each_has_its_time(failures, clock):
    fail(failures, BURST - 1)
    assert not is_refused(failures)
    fail(failures, 1)
    assert is_refused(failures)
    assert not is_refused(failures, OTHER)
    clock.now_s += REFILL_S
    assert not is_refused(failures)
    fail(failures, 1)
    assert is_refused(failures)
    clock.now_s += BURST * REFILL_S
    fail(failures, BURST - 1)
    assert not is_refused(failures)


def test_failures_far_apart_cost_nothing(failures, clock):
    for _ in range(10 * BURST):
        assert not is_refused(failures)
        fail(failures, 1)
        clock.now_s += REFILL_S


def test_one_source_is_a_64_of_ipv6(failures):
    for number in range(BURST):
        failures.note_failure(f"2001:db8::{number:x}", BAD)
    assert is_refused(failures, "2001:db8::ffff")
    assert not is_refused(failures, "2001:db8:0:1::1")


def test_the_networks_of_one_site_are_bounded_together(failures, caplog):
    """Of 20 000 tokens from one /48, each from another /64, all were asked about."""
    asked = 0
    for number in range(20_000):
        source = f"2001:db8:0:{number:x}::1"
        if not is_refused(failures, source):
            failures.note_failure(source, BAD)
            asked += 1
    assert asked == SITE_TIMES * BURST
    assert not is_refused(failures, "2001:db8:1::1")
    assert len(caplog.records) == 1


def test_a_token_that_was_valid_a_moment_ago_has_its_chance(failures, clock):
    """A user behind the attacker's address reloads a console, or the page reconnects."""
    failures.note_valid(GOOD)
    fail(failures, BURST)
    assert not is_refused(failures, token=GOOD)
    assert is_refused(failures, token=None)
    clock.now_s += KNOWN_S
    fail(failures, BURST)
    assert is_refused(failures, token=GOOD)


def test_a_token_that_has_become_invalid_has_no_chance(failures):
    """Else its owner could ask for it for ever."""
    failures.note_valid(GOOD)
    fail(failures, BURST)
    failures.note_failure(SOURCE, GOOD)
    assert is_refused(failures, token=GOOD)


def test_the_memory_is_bounded_and_holds_no_token(failures):
    for number in range(MAX_KNOWN + 10):
        failures.note_valid(f"token {number}")
    assert len(failures._known) == MAX_KNOWN
    assert "token 1" not in repr(vars(failures))


def test_the_log_has_one_line_a_minute_while_a_source_is_refused(failures, clock, caplog):
    caplog.set_level(logging.INFO)
    end_s = clock.now_s + LOG_PAUSE_S
    while clock.now_s < end_s:
        fail(failures, BURST)
        clock.now_s += REFILL_S
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"Tokens refused client={SOURCE}" in caplog.text
    assert BAD not in caplog.text
    fail(failures, 1)
    assert len(caplog.records) == 2

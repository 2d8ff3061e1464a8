# SPDX-License-Identifier: Apache-2.0
import math
import time

import pytest

from porthole_common import errors
from porthole_common.deadline import Deadline, RequestAbandoned, get_remaining_s

LONG_S = 30


def test_what_is_left_until_a_deadline() -> None:
    assert LONG_S - 10 < get_remaining_s(time.monotonic() + LONG_S) <= LONG_S


@pytest.mark.parametrize("ago_s", [0, 1])
def test_nothing_is_left_of_a_deadline_that_has_passed(ago_s: int) -> None:
    with pytest.raises(TimeoutError, match="the deadline has passed"):
        get_remaining_s(time.monotonic() - ago_s)


FIRST, SECOND = errors.RpcUnavailable("consoleauth", "check_token"), errors.VncServerTimeout("192.0.2.1", 5900)


def test_a_deadline_without_a_bound_is_never_due_and_waits_for_nothing() -> None:
    deadline = Deadline()
    assert (deadline.due_at, deadline.waits_for) == (math.inf, None)


def test_a_step_says_when_it_is_late_and_what_that_means() -> None:
    deadline = Deadline()
    before = time.monotonic()
    with deadline.step(LONG_S, FIRST):
        assert before + LONG_S <= deadline.due_at <= time.monotonic() + LONG_S
        assert deadline.waits_for is FIRST
    assert deadline.due_at == math.inf
    # The whole may be late between two steps.
    assert deadline.waits_for is FIRST
    with deadline.step(LONG_S, SECOND):
        assert deadline.waits_for is SECOND


def test_a_step_is_due_no_later_than_the_whole() -> None:
    deadline = Deadline(1)
    due_at = deadline.due_at
    with deadline.step(LONG_S, FIRST):
        assert deadline.due_at == due_at
    with deadline.step(0, FIRST):
        assert deadline.due_at < due_at
    assert deadline.due_at == due_at


def test_a_step_that_fails_is_over() -> None:
    deadline = Deadline()
    with pytest.raises(KeyError), deadline.step(1, FIRST):
        raise KeyError
    assert deadline.due_at == math.inf


def test_work_that_claims_the_request_is_not_given_up() -> None:
    deadline = Deadline()
    deadline.claim()
    deadline.claim()
    assert not deadline.give_up()
    assert not deadline.given_up


def test_work_that_was_given_up_cannot_claim_the_request() -> None:
    deadline = Deadline()
    assert not deadline.given_up
    assert [deadline.give_up(), deadline.give_up()] == [True, False]
    assert deadline.given_up
    for _ in range(2):
        with pytest.raises(RequestAbandoned):
            deadline.claim()

# SPDX-License-Identifier: Apache-2.0
"""Who shares a limit and who has none, how it comes back, and what it takes of the memory."""

import pytest

from porthole_api.console_limit import OPTION, ConsoleLimit
from porthole_common import errors
from porthole_common.allowance import MAX_TRACKED
from porthole_common.context import RequestContext
from support.api import FakeClock


def user(user_id: str = "rita", project_id: str = "red", is_admin: bool = False) -> RequestContext:
    return RequestContext(user_id=user_id, project_id=project_id, is_admin=is_admin, overwrite=False)


def count(limit: ConsoleLimit, context: RequestContext, at_most: int = 100) -> int:
    """Return how many consoles the user gets now."""
    for number in range(at_most):
        try:
            limit.take(context)
        except errors.RateReached:
            return number
    return at_most


def test_so_many_at_once_and_the_same_in_each_minute() -> None:
    clock = FakeClock()
    limit = ConsoleLimit(clock, 6)
    assert count(limit, user()) == 6
    clock.now_s += 10
    assert count(limit, user()) == 1
    clock.now_s += 60
    assert count(limit, user()) == 6
    clock.now_s += 3600
    assert count(limit, user()) == 6


def test_the_user_is_told_when_to_try_again() -> None:
    clock = FakeClock()
    limit = ConsoleLimit(clock, 6)
    count(limit, user())
    clock.now_s += 0.5
    with pytest.raises(errors.RateReached) as caught:
        limit.take(user())
    assert (caught.value.limit, caught.value.wait_s) == (OPTION, 10)
    clock.now_s += caught.value.wait_s
    limit.take(user())


def test_a_refusal_costs_nothing() -> None:
    clock = FakeClock()
    limit = ConsoleLimit(clock, 6)
    for _ in range(5):
        count(limit, user())
    clock.now_s += 10
    assert count(limit, user()) == 1


def test_each_user_in_each_project_has_one() -> None:
    limit = ConsoleLimit(FakeClock(), 3)
    count(limit, user())
    for other in (user("bert"), user(project_id="blue"), user('rita", "red', ""), user("", "rita")):
        assert count(limit, other) == 3


def test_administrators_have_none() -> None:
    """A portal asks with their rights, for everybody."""
    assert count(ConsoleLimit(FakeClock(), 3), user(is_admin=True)) == 100


def test_zero_is_no_limit() -> None:
    assert count(ConsoleLimit(FakeClock(), 0), user()) == 100


def test_many_users_take_a_bounded_memory() -> None:
    limit = ConsoleLimit(FakeClock(), 3)
    for number in range(MAX_TRACKED + 10):
        limit.take(user(f"user{number}" * 20))
    assert limit._allowance is not None
    assert len(limit._allowance._used) == MAX_TRACKED
    assert {len(key) for key in limit._allowance._used} == {32}

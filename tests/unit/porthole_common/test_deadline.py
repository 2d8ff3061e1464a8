# SPDX-License-Identifier: Apache-2.0
import time

import pytest

from porthole_common.deadline import get_remaining_s

LONG_S = 30


def test_what_is_left_until_a_deadline() -> None:
    assert LONG_S - 10 < get_remaining_s(time.monotonic() + LONG_S) <= LONG_S


@pytest.mark.parametrize("ago_s", [0, 1])
def test_nothing_is_left_of_a_deadline_that_has_passed(ago_s: int) -> None:
    with pytest.raises(TimeoutError, match="the deadline has passed"):
        get_remaining_s(time.monotonic() - ago_s)

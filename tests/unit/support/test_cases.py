# SPDX-License-Identifier: Apache-2.0
"""Every table in a loop relies on this: an error leaves the block, and it names its case."""

import pytest

from support.cases import MAX_VALUE_CHARS, naming


def fail_in(*case: object) -> AssertionError:
    with pytest.raises(AssertionError) as caught, naming(*case):
        raise AssertionError("wrong")
    return caught.value


def test_an_error_leaves_the_block_with_its_case() -> None:
    error = fail_in("novnc", 7)
    assert (str(error), error.__notes__) == ("wrong", ["case: 'novnc', 7"])


def test_an_error_that_is_missing_has_its_case_too() -> None:
    with pytest.raises(pytest.fail.Exception) as caught, naming("novnc"), pytest.raises(KeyError):
        pass
    assert caught.value.__notes__ == ["case: 'novnc'"]


def test_a_long_value_leaves_room_for_the_next() -> None:
    (note,) = fail_in("x" * 100_000, 7).__notes__
    assert note.endswith("x..., 7")
    assert len(note) < MAX_VALUE_CHARS + 20

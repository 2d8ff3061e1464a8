# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_common.primitives import read_int, read_seconds, read_text, read_time
from support.cases import naming

NAN, INFINITY = float("nan"), float("inf")
ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()), st.just(10**400)
)


def read_count(value: Any) -> int:
    return read_int(value, 0)


def test_what_is_taken() -> None:
    assert [read_text(value) for value in (None, "", "x" * 255)] == [None, "", "x" * 255]
    assert [read_count(value) for value in (0, 7, "5900")] == [0, 7, 5900]
    assert [read_seconds(value) for value in (0, 0.5, 600)] == [0.0, 0.5, 600.0]
    assert read_time("2030-01-02T05:04:05+02:00") == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_what_is_refused() -> None:
    cases: list[tuple[Callable[[Any], Any], list[Any]]] = [
        (read_text, [1, [], "x" * 256]),
        (read_count, [None, True, 0.5, NAN, INFINITY, -1, "-1", "x", "", []]),
        (read_seconds, [None, True, NAN, INFINITY, -INFINITY, -0.1, 10**400, 1e18, "5", []]),
        (read_time, [None, 5, "", "x", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]),
    ]
    for read, values in cases:
        for value in values:
            with naming(read, value), pytest.raises(ValueError):
                read(value)


@given(ANYTHING)
def test_nothing_raises_another_error(value: Any) -> None:
    for read in (read_text, read_count, read_seconds, read_time):
        try:
            read(value)
        except ValueError:
            continue

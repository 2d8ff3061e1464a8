# SPDX-License-Identifier: Apache-2.0
"""A fixture for the tests of the proxy that loop over a table: it names the case that failed."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

# Enough to tell two cases apart; some inputs are kilobytes long.
MAX_NOTE_CHARS = 500


@contextlib.contextmanager
def name_case(*inputs: object) -> Iterator[None]:
    """Add the ``inputs`` of a case to the report of a failure inside the block.

    The failure itself may come from an assertion, from ``pytest.raises``, or from the code under test.
    """
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"Case: {', '.join(map(repr, inputs))}"[:MAX_NOTE_CHARS])
        raise


@pytest.fixture
def case() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """Give a test that loops over a table the context manager that names a case."""
    return name_case

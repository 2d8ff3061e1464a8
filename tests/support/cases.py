# SPDX-License-Identifier: Apache-2.0
"""The cases of a table inside one test: a failure names its case.

Why: a loop over a table costs one test instead of one per row, and the report must still say which row failed.
The unit tests call it in each loop over a table.
"""

from collections.abc import Iterator
from contextlib import contextmanager

MAX_VALUE_CHARS = 100


@contextmanager
def naming(*case: object) -> Iterator[None]:
    """Add the case to any error that leaves the block: an assertion, an unexpected error, a missing one.

    pytest prints the note below the error. ``case`` has the values that distinguish this row of the table.
    """
    try:
        yield
    except BaseException as exc:
        exc.add_note("case: " + ", ".join(map(_shorten, case)))
        raise


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS] + "..."

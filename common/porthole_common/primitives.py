# SPDX-License-Identifier: Apache-2.0
"""Values of a dictionary that came over the bus, or out of the token store: of their type, and within their bounds.

Why: JSON, as Python reads it, has NaN and Infinity, and ``int()`` and ``float()`` take more than a number. A session
with NaN seconds would never end. Each function raises ValueError, and no other error, for a value that it does not
take. No I/O; called by :mod:`porthole_common.model`.
"""

from datetime import UTC, datetime
from typing import Any

# The longest run, and the longest id of a project or a user, that is taken from outside: as long as Nova's columns.
_MAX_TEXT_CHARS = 255
# A hundred years: far more than any token has left.
_LONGEST_S = 100 * 366 * 86400


def read_text(value: Any) -> str | None:
    """Return text of up to 255 characters, or None.

    :raises ValueError: when it is anything else.
    """
    if value is not None and not (isinstance(value, str) and len(value) <= _MAX_TEXT_CHARS):
        raise ValueError(f"it is not text of up to {_MAX_TEXT_CHARS} characters")
    return value


def read_int(value: Any, least: int) -> int:
    """Return a whole number from ``least`` on, which may come as text.

    :raises ValueError: when it is anything else; a number with a fraction too.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("it is not a whole number")
    number = int(value)
    if number < least:
        raise ValueError(f"{number} is less than {least}")
    return number


def read_seconds(value: Any) -> float:
    """Return a number of seconds from 0 to a hundred years.

    :raises ValueError: when it is anything else; NaN and Infinity too.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LONGEST_S:
        raise ValueError(f"it is not from 0 to {_LONGEST_S} seconds")
    return float(value)


def read_time(value: Any) -> datetime:
    """Return a time in ISO 8601 as an aware one, in UTC.

    :raises ValueError: when it is anything else, or before the first year or after the last one in UTC.
    """
    if not isinstance(value, str):
        raise ValueError("it is not a time")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("it is a time that no clock shows") from exc

# SPDX-License-Identifier: Apache-2.0
"""The filters of a list, as they come over the bus: texts that a field must equal, and times. Pure.

Called by :mod:`porthole_common.open_session`, and by the history in consoleauth.
"""

from collections.abc import Callable, Container, Mapping
from datetime import datetime
from typing import Any

from porthole_common import errors

_MAX_CHARS = 255


def parse_filters(
    value: Mapping[str, Any], known: Container[str], convert: Callable[[datetime], datetime]
) -> tuple[dict[str, str], dict[str, datetime]]:
    """Return the filters among ``known``, and the times ``since`` and ``until``, each by its name.

    ``convert`` returns a time as the caller keeps it; a ValueError or an OverflowError of it means that it is no time.

    :raises RequestInvalid: when a filter is unknown, or is no text of at most 255 characters, or no time.
    """
    equal: dict[str, str] = {}
    times: dict[str, datetime] = {}
    for name, item in value.items():
        if not isinstance(item, str) or len(item) > _MAX_CHARS or not item.isprintable():
            raise errors.RequestInvalid(f"Invalid input for filter {name[:64]}: it is not short plain text.")
        if name in ("since", "until"):
            times[name] = _parse_time(name, item, convert)
        elif name in known:
            equal[name] = item
        else:
            raise errors.RequestInvalid(f"There is no filter {name[:64]!r}.")
    return equal, times


def _parse_time(name: str, text: str, convert: Callable[[datetime], datetime]) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("it has no offset")
        return convert(moment)
    except (ValueError, OverflowError):
        raise errors.RequestInvalid(
            f"Invalid input for {name}: it must be a time with its offset, such as 2026-07-01T12:00:00Z."
        ) from None

# SPDX-License-Identifier: Apache-2.0
"""The pages of a list: how many items a client asks for, and the link to the next page.

Why: each list of the API has the same two parameters, ``limit`` and ``marker``, as Nova's have. Called by the handlers
of lists.
"""

from collections.abc import Sequence
from urllib.parse import urlencode

from porthole_common import errors

# As Nova's [api] max_limit.
MAX_LIMIT = 1000
# A larger number is no limit, and Python would take its time for one of a million digits.
_MAX_LIMIT_DIGITS = 9
LARGEST_LIMIT = 10**_MAX_LIMIT_DIGITS - 1

Query = Sequence[tuple[str, str]]


def parse_limit(text: str) -> int:
    """Return the limit, 1 to MAX_LIMIT; 0, and more than MAX_LIMIT, mean MAX_LIMIT.

    :raises RequestInvalid: when it is not a number from 0 up.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_LIMIT_DIGITS):
        raise errors.RequestInvalid("Invalid input for query parameter limit: it must be a number from 0 up.")
    return min(int(text) or MAX_LIMIT, MAX_LIMIT)


def build_next(url: str, query: Query, marker: str) -> list[dict[str, str]]:
    """Return the links of a page that others follow: the one to the next page, behind the item ``marker``."""
    after = urlencode([*((name, value) for name, value in query if name != "marker"), ("marker", marker)])
    return [{"rel": "next", "href": f"{url}?{after}"}]

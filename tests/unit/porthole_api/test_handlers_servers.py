# SPDX-License-Identifier: Apache-2.0
"""From a query to filters."""

import pytest

from porthole_api.handlers.servers import parse_filters
from porthole_api.servers import MAX_LIMIT, Filters
from porthole_common import errors


@pytest.mark.parametrize(
    ("query", "filters"),
    [
        ({}, Filters()),
        ({"name": "vm", "status": "active", "marker": "m", "limit": "5"}, Filters("vm", "ACTIVE", "m", 5)),
        ({"limit": "0"}, Filters(limit=MAX_LIMIT)),
        ({"limit": str(MAX_LIMIT + 1)}, Filters(limit=MAX_LIMIT)),
        ({"limit": "999999999"}, Filters(limit=MAX_LIMIT)),
        ({"name": "", "status": ""}, Filters(name="")),
        ({"all_tenants": "True", "deleted": "False", "changes-since": "x"}, Filters()),
    ],
)
def test_what_a_query_asks_for(query: dict[str, str], filters: Filters) -> None:
    assert parse_filters(query) == filters


@pytest.mark.parametrize("limit", ["", "-1", "1.5", "ten", "\u0661", "1" * 5000])
def test_a_limit_that_is_no_number_is_refused(limit: str) -> None:
    with pytest.raises(errors.RequestInvalid, match="limit"):
        parse_filters({"limit": limit})

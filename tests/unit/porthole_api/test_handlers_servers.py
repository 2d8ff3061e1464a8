# SPDX-License-Identifier: Apache-2.0
"""From a query to filters."""

from urllib.parse import parse_qsl

import pytest

from porthole_api.handlers.servers import parse_filters
from porthole_api.paging import MAX_LIMIT
from porthole_api.servers import Filters
from porthole_common import errors
from support.cases import naming


def test_what_a_query_asks_for() -> None:
    cases = [
        ("", Filters()),
        ("name=vm&status=active&marker=m&limit=5", Filters("vm", "ACTIVE", marker="m", limit=5)),
        ("host=h&project_id=p", Filters(host="h", project_id="p")),
        ("tenant_id=p", Filters(project_id="p")),
        ("limit=0", Filters(limit=MAX_LIMIT)),
        (f"limit={MAX_LIMIT + 1}", Filters(limit=MAX_LIMIT)),
        ("limit=999999999", Filters(limit=MAX_LIMIT)),
        ("name=&status=", Filters(name="")),
        ("all_tenants=True&deleted=False&changes-since=x", Filters(all_projects=True)),
        ("all_tenants=", Filters(all_projects=True)),
        ("all_tenants=1", Filters(all_projects=True)),
        ("all_tenants=0", Filters()),
        ("sort_key=uuid", Filters(sort=(("uuid", True),))),
        ("sort_dir=asc", Filters(sort=(("created_at", False),))),
        ("sort_key=uuid&sort_dir=asc&sort_key=host", Filters(sort=(("uuid", False), ("host", True)))),
    ]
    for query, filters in cases:
        with naming(query, filters):
            assert parse_filters(parse_qsl(query, keep_blank_values=True)) == filters


def test_a_limit_that_is_no_number_is_refused() -> None:
    for limit in ["", "-1", "1.5", "ten", "\u0661", "1" * 5000]:
        with naming(limit), pytest.raises(errors.RequestInvalid, match="limit"):
            parse_filters([("limit", limit)])


def test_another_value_that_does_not_do_is_refused() -> None:
    cases = [
        ("all_tenants=maybe", "all_tenants"),
        ("sort_key=secret", "sort_key"),
        ("sort_key=uuid&sort_dir=up", "sort_dir"),
        ("sort_key=uuid&sort_dir=asc&sort_dir=asc", "sort_dir"),
    ]
    for query, name in cases:
        with naming(query, name), pytest.raises(errors.RequestInvalid, match=f"parameter {name}:"):
            parse_filters(parse_qsl(query))

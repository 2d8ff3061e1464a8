# SPDX-License-Identifier: Apache-2.0
"""The rules for listing and showing servers."""

from typing import Any

from oslo_policy import policy

from porthole_api.policies.base import ADMIN, READER_OR_ADMIN, SCOPE_TYPES

INDEX = "os_compute_api:servers:index"
DETAIL = "os_compute_api:servers:detail"
SHOW = "os_compute_api:servers:show"
INDEX_ALL_TENANTS = "os_compute_api:servers:index:get_all_tenants"
DETAIL_ALL_TENANTS = "os_compute_api:servers:detail:get_all_tenants"
ALLOW_ALL_FILTERS = "os_compute_api:servers:allow_all_filters"

_LIST = {"method": "GET", "path": "/servers"}
_LIST_DETAILS = {"method": "GET", "path": "/servers/detail"}


def _build(name: str, check: str, description: str, *operations: Any) -> policy.DocumentedRuleDefault:
    return policy.DocumentedRuleDefault(name, check, description, list(operations), scope_types=SCOPE_TYPES)


RULES = [
    _build(INDEX, READER_OR_ADMIN, "List the project's servers.", _LIST),
    _build(DETAIL, READER_OR_ADMIN, "List the project's servers with details.", _LIST_DETAILS),
    _build(INDEX_ALL_TENANTS, ADMIN, "List the servers of all projects.", _LIST),
    _build(DETAIL_ALL_TENANTS, ADMIN, "List the servers of all projects with details.", _LIST_DETAILS),
    _build(ALLOW_ALL_FILTERS, ADMIN, "Narrow a list by host; else the filter is ignored.", _LIST, _LIST_DETAILS),
    _build(SHOW, READER_OR_ADMIN, "Show a server.", {"method": "GET", "path": "/servers/{server_id}"}),
]

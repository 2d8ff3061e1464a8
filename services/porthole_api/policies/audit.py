# SPDX-License-Identifier: Apache-2.0
"""The rules for reading the history of consoles."""

from typing import Any

from oslo_policy import policy

from porthole_api.policies.base import ADMIN, READER_OR_ADMIN, SCOPE_TYPES

INDEX = "porthole:audit:index"
INDEX_ALL_PROJECTS = "porthole:audit:index:all_projects"

_OPERATIONS: Any = [{"method": "GET", "path": "/porthole/v1/audit"}]
RULES = [
    policy.DocumentedRuleDefault(
        name=INDEX,
        check_str=READER_OR_ADMIN,
        description="List what happened at the consoles of the project.",
        operations=_OPERATIONS,
        scope_types=SCOPE_TYPES,
    ),
    policy.DocumentedRuleDefault(
        name=INDEX_ALL_PROJECTS,
        check_str=ADMIN,
        description="List what happened at all consoles, and at which proxies and compute hosts.",
        operations=_OPERATIONS,
        scope_types=SCOPE_TYPES,
    ),
]

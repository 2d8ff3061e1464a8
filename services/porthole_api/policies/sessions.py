# SPDX-License-Identifier: Apache-2.0
"""The rules for open console sessions: who may see them, and who may end them."""

from oslo_policy import policy

from porthole_api.policies.base import ADMIN, MEMBER_OR_ADMIN, READER_OR_ADMIN, SCOPE_TYPES

INDEX = "porthole:sessions:index"
INDEX_ALL_PROJECTS = "porthole:sessions:index:all_projects"
SHOW = "porthole:sessions:show"
END = "porthole:sessions:end"
END_ALL = "porthole:sessions:end_all"

RULES = [
    policy.DocumentedRuleDefault(
        name=INDEX,
        check_str=READER_OR_ADMIN,
        description="List the console sessions of the project.",
        operations=[{"method": "GET", "path": "/porthole/v1/sessions"}],
        scope_types=SCOPE_TYPES,
    ),
    policy.DocumentedRuleDefault(
        name=INDEX_ALL_PROJECTS,
        check_str=ADMIN,
        description="List all console sessions, and at which proxies and compute hosts they are.",
        operations=[{"method": "GET", "path": "/porthole/v1/sessions"}],
        scope_types=SCOPE_TYPES,
    ),
    policy.DocumentedRuleDefault(
        name=SHOW,
        check_str=MEMBER_OR_ADMIN,
        description="Show an open console session.",
        operations=[{"method": "GET", "path": "/porthole/v1/sessions/{session_id}"}],
        scope_types=SCOPE_TYPES,
    ),
    policy.DocumentedRuleDefault(
        name=END,
        check_str=MEMBER_OR_ADMIN,
        description="End a console session.",
        operations=[{"method": "DELETE", "path": "/porthole/v1/sessions/{session_id}"}],
        scope_types=SCOPE_TYPES,
    ),
    policy.DocumentedRuleDefault(
        name=END_ALL,
        check_str=MEMBER_OR_ADMIN,
        description="End all console sessions of a server, and revoke all its console URLs.",
        operations=[{"method": "DELETE", "path": "/porthole/v1/servers/{server_id}/sessions"}],
        scope_types=SCOPE_TYPES,
    ),
]

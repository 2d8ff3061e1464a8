# SPDX-License-Identifier: Apache-2.0
"""The rule for opening a console."""

from oslo_policy import policy

from porthole_api.policies.base import MEMBER_OR_ADMIN, SCOPE_TYPES

CREATE = "os_compute_api:os-remote-consoles"

RULES = [
    policy.DocumentedRuleDefault(
        name=CREATE,
        check_str=MEMBER_OR_ADMIN,
        description="Open a console of a server.",
        operations=[
            {"method": "POST", "path": "/servers/{server_id}/action (os-getVNCConsole)"},
            {"method": "POST", "path": "/servers/{server_id}/remote-consoles"},
        ],
        scope_types=SCOPE_TYPES,
    ),
]

# SPDX-License-Identifier: Apache-2.0
"""The rules for making a console URL by Porthole's own route."""

from oslo_policy import policy

from porthole_api.policies.base import MEMBER_OR_ADMIN, READER_OR_ADMIN, SCOPE_TYPES

CREATE = "porthole:consoles:create"
CREATE_VIEW = "porthole:consoles:create_view"

RULES = [
    policy.DocumentedRuleDefault(
        name=CREATE,
        check_str=MEMBER_OR_ADMIN,
        description="Make a URL that controls the screen of a server.",
        operations=[{"method": "POST", "path": "/porthole/v1/servers/{server_id}/consoles"}],
        scope_types=SCOPE_TYPES,
    ),
    policy.DocumentedRuleDefault(
        name=CREATE_VIEW,
        check_str=READER_OR_ADMIN,
        description="Make a URL that shows the screen of a server, and lets through no input.",
        operations=[{"method": "POST", "path": "/porthole/v1/servers/{server_id}/consoles"}],
        scope_types=SCOPE_TYPES,
    ),
]

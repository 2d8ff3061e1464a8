# SPDX-License-Identifier: Apache-2.0
"""The rule for looking up a console token."""

from oslo_policy import policy

from porthole_api.policies.base import ADMIN, SCOPE_TYPES

SHOW = "os_compute_api:os-console-auth-tokens"

RULES = [
    policy.DocumentedRuleDefault(
        name=SHOW,
        check_str=ADMIN,
        description="Show where the console of a token is.",
        operations=[{"method": "GET", "path": "/os-console-auth-tokens/{console_token}"}],
        scope_types=SCOPE_TYPES,
    ),
]

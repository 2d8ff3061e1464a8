# SPDX-License-Identifier: Apache-2.0
"""Who may do what, as it stands without a policy file: Nova's rules, by Nova's names.

Why in code: a policy file then holds what an operator wants otherwise, and nothing else. One module per kind of
resource. Called by :mod:`porthole_api.policy`, and by oslo.policy's commands through ``list_rules``.
"""

from oslo_policy import policy

from porthole_api.policies import base, console_auth_tokens, remote_consoles, servers


def list_rules() -> list[policy.RuleDefault]:
    """Return all rules."""
    return [*base.RULES, *console_auth_tokens.RULES, *remote_consoles.RULES, *servers.RULES]

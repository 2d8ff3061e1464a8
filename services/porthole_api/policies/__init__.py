# SPDX-License-Identifier: Apache-2.0
"""The default rules, which apply without a policy file: Nova's rules, with Nova's names, and Porthole's own.

Why in code: a policy file then holds only what an operator changes. One module per kind of resource: :mod:`servers`,
:mod:`remote_consoles`, :mod:`consoles`, :mod:`sessions`, :mod:`console_auth_tokens` and :mod:`audit`; :mod:`base` has
the personas that they refer to.
Called by :mod:`porthole_api.policy`, and by oslo.policy's commands through ``list_rules``.
"""

from oslo_policy import policy

from porthole_api.policies import audit, base, console_auth_tokens, consoles, remote_consoles, servers, sessions


def list_rules() -> list[policy.RuleDefault]:
    """Return all rules."""
    return [
        *audit.RULES,
        *base.RULES,
        *console_auth_tokens.RULES,
        *consoles.RULES,
        *remote_consoles.RULES,
        *servers.RULES,
        *sessions.RULES,
    ]

# SPDX-License-Identifier: Apache-2.0
"""The personas in the other rules: administrator, member and reader (Keystone's default roles)."""

from oslo_policy import policy

IS_ADMIN = "context_is_admin"
ADMIN = f"rule:{IS_ADMIN}"
MEMBER_OR_ADMIN = "rule:project_member_or_admin"
READER_OR_ADMIN = "rule:project_reader_or_admin"
# A token for the whole system, or for a domain, names no project, and so no servers.
SCOPE_TYPES = ["project"]

RULES = [
    policy.RuleDefault(IS_ADMIN, "role:admin", "An administrator sees all servers, also those without a project."),
    policy.RuleDefault("project_member_api", "role:member and project_id:%(project_id)s", "A member of the project."),
    policy.RuleDefault("project_reader_api", "role:reader and project_id:%(project_id)s", "A reader of the project."),
    policy.RuleDefault(
        "project_member_or_admin", f"rule:project_member_api or {ADMIN}", "A member of the project, or administrator."
    ),
    policy.RuleDefault(
        "project_reader_or_admin", f"rule:project_reader_api or {ADMIN}", "A reader of the project, or administrator."
    ),
]

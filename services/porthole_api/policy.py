# SPDX-License-Identifier: Apache-2.0
"""The one place where a user's request is allowed or refused: oslo.policy with Porthole's rules.

Why the file is read only at the start and at SIGHUP, and not at each request: a bad edit is then one line in the log,
and changes nothing. Called by the handlers and by :mod:`porthole_api.consoles`.
"""

from typing import Any, Protocol

from oslo_config import cfg
from oslo_policy import policy

from porthole_api.policies import base, list_rules
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.log import get_logger

LOG = get_logger(__name__)
OPTION = "[oslo_policy] policy_file"
# oslo.policy's default; this file may be missing.
_DEFAULT_FILE = "policy.yaml"


class Owned(Protocol):
    """What a rule may be about: an instance, a session, or the user's own project, as the context has it."""

    @property
    def project_id(self) -> str | None: ...  # noqa: D102

    @property
    def user_id(self) -> str | None: ...  # noqa: D102


class Policy:
    """The rules in force: the default rules, and those of ``[oslo_policy] policy_file`` over them. Thread-safe."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        """Read the policy file.

        :raises ConfigInvalid: when the file is named and missing, or is not valid.
        """
        self._conf = conf
        self._enforcer = _build_enforcer(conf)

    def reload(self) -> None:
        """Read the policy file again; an invalid file is logged, and the rules stay as they were."""
        try:
            self._enforcer = _build_enforcer(self._conf)
        except errors.ConfigInvalid as error:
            LOG.error("Policy refused", reason=error)
            return
        LOG.info("Policy reread", file=self._enforcer.policy_path)

    def is_admin(self, context: RequestContext) -> bool:
        """Return True when the user is an administrator, who sees all servers, also those without a project."""
        return self._enforce(base.IS_ADMIN, context, {})

    def allows(self, context: RequestContext, action: str, owned: Owned | None = None) -> bool:
        """Return True when the user may do ``action`` to what is ``owned``; without it, in the user's own project."""
        owner = owned or context
        return self._enforce(action, context, {"project_id": owner.project_id, "user_id": owner.user_id})

    def authorize(self, context: RequestContext, action: str, owned: Owned | None = None) -> None:
        """Check that the user may do ``action``, as :meth:`allows` says it.

        :raises PolicyForbidden: when the user may not.
        """
        if not self.allows(context, action, owned):
            raise errors.PolicyForbidden(action)

    def _enforce(self, rule: str, context: RequestContext, target: dict[str, Any]) -> bool:
        return bool(self._enforcer.authorize(rule, target, context))


def _build_enforcer(conf: cfg.ConfigOpts) -> policy.Enforcer:
    enforcer = policy.Enforcer(conf)
    enforcer.register_defaults(list_rules())
    try:
        enforcer.load_rules(force_reload=True)
        enforcer.check_rules(raise_on_violation=True)
    except (policy.InvalidDefinitionError, cfg.Error, OSError) as error:
        raise errors.ConfigInvalid(OPTION, str(error)) from error
    except (AttributeError, TypeError, ValueError) as error:
        # The file is not YAML, or is not a mapping of names to rules.
        raise errors.ConfigInvalid(OPTION, f"{enforcer.policy_path} is not a policy file: {error}") from error
    name = conf.oslo_policy.policy_file
    if enforcer.policy_path is None and name != _DEFAULT_FILE:
        raise errors.ConfigInvalid(OPTION, f"{name} does not exist")
    # From now on no request reads the disk.
    enforcer.use_conf = False
    return enforcer

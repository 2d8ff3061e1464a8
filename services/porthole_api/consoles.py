# SPDX-License-Identifier: Apache-2.0
"""Opening a console: find the host, ask it for a console, have the token stored, and only then return the URL.

Why: every route that opens a console ends here, and the policy is checked here. An administrator's question about a
token is answered here too. Called by :mod:`porthole_api.handlers.consoles`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from porthole_api.console_limit import ConsoleLimit
from porthole_api.directory import Directory, Located
from porthole_api.policies import console_auth_tokens, consoles, remote_consoles
from porthole_api.policy import Policy
from porthole_api.servers import check_visible, get_server
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline
from porthole_common.log import get_logger
from porthole_common.model import ConnectInfo, ConsoleMode, ConsoleType
from porthole_compute.rpcapi import ComputeAPI
from porthole_consoleauth.rpcapi import ConsoleAuthAPI, TokenWish

LOG = get_logger(__name__)
# The calls that open a console: get_vnc_console on its host, and authorize_console.
CALLS_PER_REQUEST = 2
# What Nova's routes ask of a token: nothing but what consoleauth's options say.
NO_WISH = TokenWish()
# Of Porthole's own route; Nova's has one rule.
_RULES = {ConsoleMode.CONTROL: consoles.CREATE, ConsoleMode.VIEW: consoles.CREATE_VIEW}
NO_LIMIT = ConsoleLimit(time.monotonic, 0)

Runner = Callable[[RequestContext, Callable[[Deadline], ConnectInfo], int], ConnectInfo]


def run_here(_context: RequestContext, work: Callable[[Deadline], ConnectInfo], _calls: int) -> ConnectInfo:
    """Return what ``work(deadline)`` returns."""
    return work(Deadline())


@dataclass(frozen=True)
class ConsoleOpener:
    """Opens consoles, with the directory, the two services and the policy.

    ``run`` keeps the deadline of a request: see :meth:`porthole_common.rpc.Rpc.run`. ``limit`` bounds how often a user
    may open one; by default it does not.
    """

    directory: Directory
    compute: ComputeAPI
    consoleauth: ConsoleAuthAPI
    policy: Policy
    run: Runner = run_here
    limit: ConsoleLimit = NO_LIMIT

    def open_console(self, context: RequestContext, server_id: str, console_type: str) -> ConnectInfo:
        """Return a new console as Nova's routes give it: one that controls the screen. See :meth:`create_console`."""
        return self._open(context, server_id, console_type, remote_consoles.CREATE, NO_WISH)

    def create_console(
        self, context: RequestContext, server_id: str, console_type: str, wish: TokenWish
    ) -> ConnectInfo:
        """Return a new console of the server: its URL, its mode, its uses, and when the URL expires. It is stored.

        :raises InstanceNotFound: when no such instance exists, or another project owns it.
        :raises PolicyForbidden: when the user may see the instance, but may not open its console.
        :raises ConsoleTypeUnavailable: when Porthole, or the instance, has no console of that type.
        :raises RateReached: when the user has asked for too many consoles in a short time.
        :raises Conflict: when the state of the instance allows no console.
        :raises RequestInvalid: when the wish is for a longer life than ``[consoleauth] token_ttl`` allows.
        :raises Unavailable: when its host, its hypervisor, the token store or the bus does not answer.
        """
        return self._open(context, server_id, console_type, _RULES[wish.mode], wish)

    def _open(
        self, context: RequestContext, server_id: str, console_type: str, rule: str, wish: TokenWish
    ) -> ConnectInfo:
        located = get_server(self.directory, context, server_id)
        self.policy.authorize(context, rule, located.instance)
        if console_type not in set(ConsoleType):
            raise errors.ConsoleTypeUnavailable(console_type)
        if located.unavailable:
            raise located.unavailable
        self.limit.take(context)
        # The log lines are consoleauth's "Console token authorized" and "Request answered".
        return self.run(
            context,
            lambda deadline: self._issue(context, located, console_type, rule, wish, deadline),
            CALLS_PER_REQUEST,
        )

    def _issue(
        self,
        context: RequestContext,
        located: Located,
        console_type: str,
        rule: str,
        wish: TokenWish,
        deadline: Deadline,
    ) -> ConnectInfo:
        """Make the calls that open a console."""
        uuid = located.instance.uuid
        try:
            connect_info = self._ask(context, located.host, uuid, console_type, deadline)
        except errors.InstanceNotFound:
            # The instance has just been deleted, or has moved to another host. What is found there may be another
            # project's, which has the same UUID.
            located = self.directory.await_move(uuid, located.host)
            check_visible(located, context, uuid)
            self.policy.authorize(context, rule, located.instance)
            if located.unavailable:
                raise located.unavailable from None
            connect_info = self._ask(context, located.host, uuid, console_type, deadline)
        # Only when the store has the token for certain: otherwise the URL could never open.
        said = self.consoleauth.authorize_console(context, connect_info, deadline, wish)
        return replace(connect_info, expires_at=said.expires_at, uses=said.uses, mode=wish.mode)

    def _ask(self, context: RequestContext, host: str, uuid: str, console_type: str, deadline: Deadline) -> ConnectInfo:
        """Return the console that the host gives, if it is the one that was asked for.

        :raises RemoteFailure: when it is of another instance, host or type; the user may have no right to that one.
        """
        info = self.compute.get_vnc_console(context, host, uuid, console_type, deadline)
        if (info.instance_uuid, info.compute_host, info.console_type) != (uuid, host, console_type):
            LOG.error(
                "Console answer refused",
                compute=host,
                instance=uuid,
                console_type=console_type,
                reason=f"it is the {info.console_type} of {info.instance_uuid} on {info.compute_host}",
            )
            raise errors.RemoteFailure("compute", "get_vnc_console")
        return info

    def show_token(self, context: RequestContext, token: str) -> ConnectInfo:
        """Return the console that ``token`` opens. Looking a token up does not consume it.

        :raises PolicyForbidden: when the user is not an administrator.
        :raises ConsoleTokenNotFound: when the token is malformed, unknown, expired or revoked.
        :raises Unavailable: when the token store or the bus does not answer.
        """
        self.policy.authorize(context, console_auth_tokens.SHOW)
        try:
            return self.consoleauth.check_token(context, token)
        except errors.TokenInvalid:
            raise errors.ConsoleTokenNotFound from None

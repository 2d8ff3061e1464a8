# SPDX-License-Identifier: Apache-2.0
"""Opening a console: find the host, ask it for a console, have the token stored, and only then give the URL.

Why: this is what the whole service is for, in one place whatever route the request came by, who may do it included.
What an administrator asks of an open console is here too. Called by
:mod:`porthole_api.handlers.consoles`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from porthole_api.directory import Directory, Located
from porthole_api.policies import console_auth_tokens, remote_consoles
from porthole_api.policy import Policy
from porthole_api.servers import get_server
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline
from porthole_common.model import ConnectInfo, ConsoleType
from porthole_compute.rpcapi import ComputeAPI
from porthole_consoleauth.rpcapi import ConsoleAuthAPI

# What a console takes of the bus: its host is asked, and its token stored.
CALLS_PER_REQUEST = 2

Runner = Callable[[RequestContext, Callable[[Deadline], ConnectInfo], int], ConnectInfo]


def run_here(_context: RequestContext, work: Callable[[Deadline], ConnectInfo], _calls: int) -> ConnectInfo:
    """Return what ``work(deadline)`` returns."""
    return work(Deadline())


@dataclass(frozen=True)
class ConsoleOpener:
    """What it takes to open a console: the directory, the two services, who may, and what keeps the deadline.

    ``run``: see :meth:`porthole_common.rpc.Rpc.run`.
    """

    directory: Directory
    compute: ComputeAPI
    consoleauth: ConsoleAuthAPI
    policy: Policy
    run: Runner = run_here

    def open_console(self, context: RequestContext, server_id: str, console_type: str) -> ConnectInfo:
        """Return a new console of the server: its URL, whose token is stored, and when that dies.

        :raises InstanceNotFound: when there is no such instance, or it is another project's.
        :raises PolicyForbidden: when the user may see the instance, and not this.
        :raises ConsoleTypeUnavailable: when Porthole, or the instance, has no console of that type.
        :raises Conflict: when the instance is in no state to show a screen.
        :raises Unavailable: when its host, its hypervisor, the token store or the bus does not answer.
        """
        located = get_server(self.directory, context, server_id)
        self.policy.authorize(context, remote_consoles.CREATE, located.instance)
        if console_type not in set(ConsoleType):
            raise errors.ConsoleTypeUnavailable(console_type)
        if located.unavailable:
            raise located.unavailable
        # consoleauth logs that the token is authorized, and "Request answered" to whom it was given.
        return self.run(
            context, lambda deadline: self._issue(context, located, console_type, deadline), CALLS_PER_REQUEST
        )

    def _issue(self, context: RequestContext, located: Located, console_type: str, deadline: Deadline) -> ConnectInfo:
        """Make all the calls that a console takes."""
        uuid = located.instance.uuid
        try:
            connect_info = self.compute.get_vnc_console(context, located.host, uuid, console_type, deadline)
        except errors.InstanceNotFound:
            # It has just gone, or moved: then its next host has it.
            located = self.directory.await_move(uuid, located.host)
            connect_info = self.compute.get_vnc_console(context, located.host, uuid, console_type, deadline)
        # No URL before the store has the token for certain: it could never open anything.
        return replace(connect_info, expires_at=self.consoleauth.authorize_console(context, connect_info, deadline))

    def show_token(self, context: RequestContext, token: str) -> ConnectInfo:
        """Return what ``token`` opens, which it does no longer and no less often for having been looked at.

        :raises PolicyForbidden: when the user is not an administrator.
        :raises ConsoleTokenNotFound: when it is malformed, unknown, expired or revoked.
        :raises Unavailable: when the token store or the bus does not answer.
        """
        self.policy.authorize(context, console_auth_tokens.SHOW)
        try:
            return self.consoleauth.check_token(context, token)
        except errors.TokenInvalid:
            raise errors.ConsoleTokenNotFound from None

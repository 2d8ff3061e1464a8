# SPDX-License-Identifier: Apache-2.0
"""A consoleauth as a process, and another service's side of its RPC in this one."""

import uuid
from collections.abc import Callable
from typing import Any

from oslo_config import cfg

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.model import ConnectInfo, ConsoleType, TokenReason, build_token
from porthole_common.rpc import Rpc
from porthole_consoleauth.rpcapi import ConsoleAuthAPI
from support.daemons import Porthole
from support.rabbitmq import RabbitMQ

RPC_TIMEOUT_S = 4
OPTIONS = {"rpc": {"call_timeout": RPC_TIMEOUT_S}, "memcache": {"timeout": 0.5, "connect_timeout": 0.5}}


def context() -> RequestContext:
    return RequestContext(user_id="user1", project_id="project1", overwrite=False)


def new_uuid() -> str:
    return str(uuid.uuid4())


class Caller:
    """Another service's side of the RPC: one Rpc, as each process has one."""

    def __init__(self, broker: RabbitMQ) -> None:
        self.rpc = Rpc(cfg.CONF, RPC_TIMEOUT_S, transport_url=broker.transport_url)
        self.api = ConsoleAuthAPI(self.rpc)

    def authorize(self, instance_uuid: str | None = None, **changes: Any) -> str:
        """Have a new token authorized and return it."""
        instance_uuid = instance_uuid or new_uuid()
        values: dict[str, Any] = {
            "instance_uuid": instance_uuid,
            "console_type": ConsoleType.NOVNC,
            "host": "192.0.2.1",
            "port": 5901,
            "access_url": "http://proxy:6080/console.html",
            "compute_host": "host1",
            "token": build_token(instance_uuid),
            **changes,
        }
        self.api.authorize_console(context(), ConnectInfo(**values))
        return str(values["token"])

    def is_valid(self, token: str) -> bool:
        """Say whether the token opens something; whatever is not "unknown" is raised."""
        try:
            self.api.check_token(context(), token)
        except errors.TokenInvalid as exc:
            if exc.reason != TokenReason.UNKNOWN:
                raise
            return False
        return True

    def works(self) -> bool:
        """Say whether a token can be had and used now."""
        try:
            return self.is_valid(self.authorize())
        except errors.Unavailable:
            return False


def start(make_porthole: Callable[..., Porthole], **arguments: Any) -> Porthole:
    return make_porthole(**{"daemons": ["consoleauth"], "options": OPTIONS, **arguments})

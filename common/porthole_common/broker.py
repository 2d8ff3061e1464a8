# SPDX-License-Identifier: Apache-2.0
"""The examination of a broker: one connection, step by step, so that the step that fails names the cause.

Why not through oslo.messaging: it tries for ever and says "connection failed" to an address, a password, a virtual host
and a certificate alike. The steps: the broker's name resolves, its port takes a connection, TLS stands where it is
configured, the broker lets the user in, the virtual host is open to the user, a queue may be declared, a message is
taken.

:mod:`porthole_common.broker_watch` calls this when a daemon's connection fails, and ``porthole doctor`` always; so a
log line and a finding have the same words. The steps are in :mod:`porthole_common.broker_connection`, the words in
:mod:`porthole_common.broker_trouble`.
"""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from porthole_common.broker_connection import (
    FAILURES,
    Blocked,
    Unblocked,
    check_tls,
    connect,
    count_consumers,
    drop_connection,
    find_protocol,
    limit_waits,
    use_queue,
)
from porthole_common.broker_trouble import (
    STEP_TIMEOUT_S,
    Broker,
    Cause,
    Trouble,
    judge_address,
    judge_amqp,
    judge_blocked,
    judge_tls,
)

__all__ = ["BlockedConnections", "Broker", "BrokerState", "Cause", "Trouble", "examine_broker", "judge_address"]

# How long each examination waits for a broker to say that it reads from a blocked connection again.
_UNBLOCKED_S = 0.1


@dataclass(frozen=True)
class BrokerState:
    """The result of one examination: ``trouble`` is None when the daemons can use the broker.

    ``consumers``: how many processes consume from a queue, by the queue's name.
    """

    trouble: Trouble | None = None
    consumers: Mapping[str, int] = field(default_factory=dict)


class BlockedConnections:
    """The connections that brokers have blocked, at most one for each broker. For one thread.

    Why they are kept: RabbitMQ does not notice the end of a connection that it has blocked. An examination every few
    seconds would leave one more connection each time, at a broker that is short of memory.
    """

    def __init__(self) -> None:
        self._sessions: dict[Broker, Any] = {}

    def keep(self, broker: Broker, session: Any) -> None:
        """Take over ``session``, a connection that ``broker`` has blocked."""
        self._sessions[broker] = session

    def check_blocked(self, broker: Broker) -> bool:
        """Return True while ``broker`` still blocks the connection that was kept; False without one."""
        session = self._sessions.get(broker)
        if session is None:
            return False
        try:
            while True:
                session.drain_events(timeout=_UNBLOCKED_S)
        except TimeoutError:
            return True
        except (Unblocked, *FAILURES):
            self.drop(broker)
            return False

    def drop(self, broker: Broker) -> None:
        """Close the connection that was kept, if there is one."""
        session = self._sessions.pop(broker, None)
        if session is not None:
            drop_connection(session)

    def close(self) -> None:
        """Close all of them."""
        for broker in list(self._sessions):
            self.drop(broker)


def examine_broker(broker: Broker, queues: Mapping[str, str], blocked: BlockedConnections | None = None) -> BrokerState:
    """Connect to ``broker`` as the daemons do, and count the consumers of ``queues`` (name: key of the count).

    ``blocked`` keeps a connection that the broker blocks; a caller that examines again passes the same object.
    """
    kept = BlockedConnections() if blocked is None else blocked
    try:
        state = _examine(broker, queues, kept)
    finally:
        if blocked is None:
            kept.close()
    if state.trouble is not None and state.trouble.cause is not Cause.BLOCKED:
        kept.drop(broker)
    return state


def _examine(broker: Broker, queues: Mapping[str, str], kept: BlockedConnections) -> BrokerState:
    try:
        with socket.create_connection((broker.host, broker.port), STEP_TIMEOUT_S) as sock:
            if broker.tls is not None:
                check_tls(sock, broker)
    except (ssl.SSLError, ssl.CertificateError, FileNotFoundError, PermissionError) as exc:
        return BrokerState(judge_tls(broker, exc))
    except OSError as exc:
        return BrokerState(judge_address(broker, exc))
    session: Any = None
    try:
        session = connect(broker)
        limit_waits(session)
        counts = count_consumers(session, queues)
        is_blocked = kept.check_blocked(broker)
        use_queue(session, publishes=not is_blocked)
        session.close()
        return BrokerState(judge_blocked(broker) if is_blocked else None, counts)
    except Blocked:
        kept.keep(broker, session)
        return BrokerState(judge_blocked(broker))
    except FAILURES as exc:
        if session is not None:
            # It cannot be closed in order: the broker may not answer.
            drop_connection(session)
        return BrokerState(judge_amqp(broker, exc, lambda: find_protocol(broker)))

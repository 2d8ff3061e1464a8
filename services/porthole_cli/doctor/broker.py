# SPDX-License-Identifier: Apache-2.0
"""The brokers as findings: the result of :mod:`porthole_common.broker`, with an id for monitoring.

Why so little: a daemon that cannot use its broker logs the same text. Called by :mod:`examination`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from porthole_cli.doctor import finding
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_common import broker as port
from porthole_common.broker import Broker, Cause, Trouble

_IDS = {
    Cause.ADDRESS: FindingId.BROKER_ADDRESS,
    Cause.TLS: FindingId.BROKER_TLS,
    Cause.PROTOCOL: FindingId.BROKER_PROTOCOL,
    Cause.CREDENTIALS: FindingId.BROKER_CREDENTIALS,
    Cause.VHOST: FindingId.BROKER_VHOST,
    Cause.PERMISSIONS: FindingId.BROKER_PERMISSIONS,
    Cause.BLOCKED: FindingId.BROKER_BLOCKED,
}


@dataclass(frozen=True)
class BrokerResult:
    """The result of examining one broker. ``consumers``: how many processes consume from a queue, by its key."""

    finding: Finding
    consumers: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_usable(self) -> bool:
        """Whether the daemons can use it."""
        return self.finding.id is FindingId.BROKER_OK


def examine_broker(broker: Broker, queues: Mapping[str, str]) -> BrokerResult:
    """Connect to ``broker`` as the daemons do, and count the consumers of ``queues`` (name: key of the count)."""
    result = port.examine_broker(broker, queues)
    if result.trouble is not None:
        return BrokerResult(_build_finding(broker, result.trouble))
    how = "over TLS" if broker.tls is not None else "without TLS"
    text = f"user {broker.user} has virtual host {broker.virtual_host}, {how}"
    return BrokerResult(finding.ok(FindingId.BROKER_OK, text, str(broker)), result.consumers)


def judge_address(broker: Broker, exc: OSError) -> Finding:
    """Return the finding of a broker that refused the connection, or stayed silent."""
    return _build_finding(broker, port.judge_address(broker, exc))


def _build_finding(broker: Broker, trouble: Trouble) -> Finding:
    return finding.error(_IDS[trouble.cause], str(broker), trouble.problem, trouble.mend)

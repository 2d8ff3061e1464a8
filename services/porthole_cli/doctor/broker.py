# SPDX-License-Identifier: Apache-2.0
"""The brokers as findings: what :mod:`porthole_common.broker` met, with an id for monitoring.

Why so little: a daemon that cannot use its broker logs the same words. Called by :mod:`examination`.
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
class Met:
    """What was met at one broker. ``consumers``: how many processes consume from a queue, by the queue's name."""

    finding: Finding
    consumers: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_usable(self) -> bool:
        """Whether the daemons can work with it."""
        return self.finding.id is FindingId.BROKER_OK


def examine_broker(broker: Broker, queues: Mapping[str, str]) -> Met:
    """Connect to ``broker`` as the daemons do, and count the consumers of ``queues`` (name: key of the count)."""
    met = port.examine_broker(broker, queues)
    if met.trouble is not None:
        return Met(_build_finding(broker, met.trouble))
    how = "over TLS" if broker.tls is not None else "without TLS"
    text = f"user {broker.user} has virtual host {broker.virtual_host}, {how}"
    return Met(finding.ok(FindingId.BROKER_OK, text, str(broker)), met.consumers)


def judge_address(broker: Broker, exc: OSError) -> Finding:
    """Return what it means that no connection could be made, or that it stayed silent."""
    return _build_finding(broker, port.judge_address(broker, exc))


def _build_finding(broker: Broker, trouble: Trouble) -> Finding:
    return finding.error(_IDS[trouble.cause], str(broker), trouble.problem, trouble.mend)

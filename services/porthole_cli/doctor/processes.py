# SPDX-License-Identifier: Apache-2.0
"""Clocks, descriptors and metrics: what every process has, whatever it does.

Why clocks: one host's clock writes the time at which a URL expires, and another's user reads it; every clock judges
certificates, and logs of several hosts are read together. What tokens and sessions do follows from no two clocks. Pure.
"""

import ipaddress
from collections.abc import Iterable
from datetime import datetime
from statistics import median

from porthole_cli.doctor import finding
from porthole_cli.doctor.facts import Daemons
from porthole_cli.doctor.finding import Finding, FindingId, Severity

SKEW_WARNING_S = 2.0
SKEW_ERROR_S = 60.0
# With fewer descriptors a daemon cannot start to serve.
FEW_DESCRIPTORS = 512
DOCTOR = "(this host)"


def judge_clocks(daemons: Daemons) -> list[Finding]:
    """Return the hosts whose clock differs from most others; one finding in order when all agree.

    A clock is read over RPC, so its error is up to half the time of the call; only a larger difference counts.
    """
    offsets: dict[str, tuple[float, float]] = {}
    for presence, vitals, asked_at, answered_at in daemons.list_described():
        measured = measure_offset(vitals.now, asked_at, answered_at)
        # Of several processes of a host, the fastest answer is the most exact one.
        best = offsets.get(presence.host)
        if best is None or measured[1] < best[1]:
            offsets[presence.host] = measured
    if not offsets:
        return []
    # The doctor's own clock is one of them; its offset is 0 by definition.
    reference = median([0.0, *(offset for offset, _ in offsets.values())])
    findings = []
    for host, (offset, uncertainty_s) in sorted({**offsets, DOCTOR: (0.0, 0.0)}.items()):
        skew_s = offset - reference
        if abs(skew_s) - uncertainty_s > SKEW_WARNING_S:
            findings.append(_build_skew(host, skew_s))
    if findings:
        return findings
    return [
        finding.ok(
            FindingId.CLOCK_OK, f"within {SKEW_WARNING_S:g} s of each other: {', '.join(sorted(offsets))}, and here"
        )
    ]


def measure_offset(now: datetime, asked_at: datetime, answered_at: datetime) -> tuple[float, float]:
    """Return how far a clock is ahead that showed ``now`` between the other two times, and the possible error.

    Both in seconds. Source: the clock offset of NTP (RFC 5905 section 8), with one time stamp on the far side.
    """
    half = (answered_at - asked_at) / 2
    return (now - (asked_at + half)).total_seconds(), half.total_seconds()


def judge_descriptors(daemons: Daemons) -> list[Finding]:
    """Return the processes that may open fewer descriptors than their own limits need."""
    findings = []
    lowest: tuple[int, str] | None = None
    for presence, vitals, *_ in daemons.list_described():
        limit = vitals.descriptor_limit
        lowest = min(filter(None, (lowest, (limit, f"{presence.daemon} on {presence.host}"))))
        if limit >= vitals.descriptors_needed:
            continue
        severity = Severity.ERROR if limit < min(FEW_DESCRIPTORS, vitals.descriptors_needed) else Severity.WARNING
        problem = (
            f"porthole-{presence.daemon} (process {vitals.pid}) may open {limit} descriptors, and its own limits need "
            f"{vitals.descriptors_needed}: it refuses connections when the descriptors run out."
        )
        mend = f"Set LimitNOFILE={vitals.descriptors_needed} in its unit (ulimit -n by hand) and restart it"
        mend += ", or lower [novncproxy] max_sessions." if presence.daemon == "novncproxy" else "."
        findings.append(Finding(FindingId.DESCRIPTORS_LOW, severity, presence.host, problem, mend))
    if findings or lowest is None:
        return _unique(findings)
    return [finding.ok(FindingId.DESCRIPTORS_OK, f"enough everywhere; the fewest are {lowest[0]} of {lowest[1]}")]


def judge_metrics(daemons: Daemons) -> list[Finding]:
    """Return the daemons whose metrics other machines may read; nothing when no daemon serves any."""
    served = [(presence, vitals.metrics_host) for presence, vitals, *_ in daemons.list_described()]
    findings = []
    for presence, address in served:
        if not address or _is_loopback(address):
            continue
        problem = (
            f"porthole-{presence.daemon} serves its metrics at {address}: every machine that reaches that address can "
            "read them, without a login. They name the compute hosts, and say how much the consoles are used."
        )
        mend = (
            "Set [metrics] bind_host = 127.0.0.1 there, and let an agent or a reverse proxy with TLS and a login on "
            "that host pass them on. If only the monitoring network reaches the address, a firewall must say so."
        )
        findings.append(finding.warning(FindingId.METRICS_OFF_LOOPBACK, presence.host, problem, mend))
    if findings or not any(address for _, address in served):
        return _unique(findings)
    return [finding.ok(FindingId.METRICS_OK, "all daemons that serve metrics do so on loopback")]


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        # Any other name may be any address.
        return address == "localhost"


def _build_skew(host: str, skew_s: float) -> Finding:
    where = "the host of the doctor" if host == DOCTOR else host
    direction = "ahead of" if skew_s > 0 else "behind"
    problem = (
        f"The clock of {where} is {abs(skew_s):.0f} s {direction} "
        "most others: certificates expire there at another time, and URLs seem to."
    )
    mend = f"On {where}: timedatectl, and systemctl restart systemd-timesyncd or chronyd."
    severity = Severity.ERROR if abs(skew_s) >= SKEW_ERROR_S else Severity.WARNING
    return Finding(FindingId.CLOCK_SKEW, severity, host, problem, mend)


def _unique(findings: Iterable[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))

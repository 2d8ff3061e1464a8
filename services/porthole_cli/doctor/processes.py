# SPDX-License-Identifier: Apache-2.0
"""Clocks and descriptors: what is true of any process, whatever it does.

Why clocks: ``expires_at`` is written by one daemon's clock and shown, or enforced, by another's, certificates are
judged by every clock, and logs of several hosts are read together. Pure.
"""

from collections.abc import Iterable
from datetime import datetime
from statistics import median

from porthole_cli.doctor import finding
from porthole_cli.doctor.facts import Daemons
from porthole_cli.doctor.finding import Finding, FindingId, Severity

SKEW_WARNING_S = 2.0
SKEW_ERROR_S = 60.0
# Below this a daemon cannot even begin to serve.
FEW_DESCRIPTORS = 512
DOCTOR = "(this host)"


def judge_clocks(daemons: Daemons) -> list[Finding]:
    """Return the hosts whose clock differs from most others'; one finding in order when there are none.

    A clock is read over RPC, so it is known to half the time that the answer took; only what is beyond that counts.
    """
    offsets: dict[str, tuple[float, float]] = {}
    for presence, vitals, asked_at, heard_at in daemons.list_heard():
        measured = measure_offset(vitals.now, asked_at, heard_at)
        # Of several processes of a host, the one that answered fastest says it best.
        best = offsets.get(presence.host)
        if best is None or measured[1] < best[1]:
            offsets[presence.host] = measured
    if not offsets:
        return []
    # The doctor's own clock is one among them: 0, by definition.
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


def measure_offset(now: datetime, asked_at: datetime, heard_at: datetime) -> tuple[float, float]:
    """Return how far ahead a clock is that showed ``now`` at some moment between the other two, and how uncertain.

    Both in seconds. Source: the clock offset of NTP (RFC 5905 section 8), with one time stamp on the far side.
    """
    half = (heard_at - asked_at) / 2
    return (now - (asked_at + half)).total_seconds(), half.total_seconds()


def judge_descriptors(daemons: Daemons) -> list[Finding]:
    """Return the processes that may open fewer descriptors than their own limits need."""
    findings = []
    lowest: tuple[int, str] | None = None
    for presence, vitals, *_ in daemons.list_heard():
        limit = vitals.descriptor_limit
        lowest = min(filter(None, (lowest, (limit, f"{presence.daemon} on {presence.host}"))))
        if limit >= vitals.descriptors_needed:
            continue
        severity = Severity.ERROR if limit < min(FEW_DESCRIPTORS, vitals.descriptors_needed) else Severity.WARNING
        problem = (
            f"porthole-{presence.daemon} (process {vitals.pid}) may open {limit} descriptors and needs "
            f"{vitals.descriptors_needed} at its own limits: above that, connections are refused."
        )
        mend = f"Set LimitNOFILE={vitals.descriptors_needed} in its unit (ulimit -n by hand) and restart it"
        mend += ", or lower [novncproxy] max_sessions." if presence.daemon == "novncproxy" else "."
        findings.append(Finding(FindingId.DESCRIPTORS_LOW, severity, presence.host, problem, mend))
    if findings or lowest is None:
        return _unique(findings)
    return [finding.ok(FindingId.DESCRIPTORS_OK, f"enough everywhere; the fewest are {lowest[0]} of {lowest[1]}")]


def _build_skew(host: str, skew_s: float) -> Finding:
    where = "the host of the doctor" if host == DOCTOR else host
    direction = "ahead of" if skew_s > 0 else "behind"
    problem = (
        f"The clock of {where} is {abs(skew_s):.0f} s {direction} "
        "most others': what expires there does so at another time."
    )
    mend = f"On {where}: timedatectl, and systemctl restart systemd-timesyncd or chronyd."
    severity = Severity.ERROR if abs(skew_s) >= SKEW_ERROR_S else Severity.WARNING
    return Finding(FindingId.CLOCK_SKEW, severity, host, problem, mend)


def _unique(findings: Iterable[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))

# SPDX-License-Identifier: Apache-2.0
"""The daemons on the bus: which ones answer, and which ones should.

Why two counts: a process that hangs keeps its queue at the broker and answers nothing, so its share of the users'
requests is lost. The broker counts the processes that consume, discovery counts those that answer. A compute that has
stopped does not consume any more; the apis remember that it existed. Pure.
"""

from collections import Counter

from porthole_cli.doctor import finding
from porthole_cli.doctor.facts import Daemons
from porthole_cli.doctor.finding import Finding, FindingId

_NONE = {
    "api": (FindingId.API_NONE, "users cannot ask for a console"),
    "compute": (FindingId.COMPUTE_NONE, "no instance is known"),
    "consoleauth": (FindingId.CONSOLEAUTH_NONE, "every request for a console ends in 503"),
    "novncproxy": (FindingId.NOVNCPROXY_NONE, "no URL of a console opens"),
}


def judge_daemons(daemons: Daemons) -> list[Finding]:
    """Return which daemons are missing, silent or duplicated; one finding in order when all is well."""
    findings = [
        *_judge_absence(daemons),
        *_judge_silence(daemons),
        *_judge_lost_computes(daemons),
        *_judge_duplicates(daemons),
        *_judge_duplicate_instances(daemons),
        *_judge_undescribed(daemons),
        *_judge_versions(daemons),
    ]
    return findings or [finding.ok(FindingId.DAEMONS_OK, _count(daemons))]


def _judge_absence(daemons: Daemons) -> list[Finding]:
    present = {presence.daemon for presence in daemons.presences}
    findings = []
    for daemon, (finding_id, consequence) in _NONE.items():
        # A daemon that hangs is present, and has a finding of its own.
        if daemon in present or daemons.consumers.get(daemon, 0):
            continue
        problem = f"No porthole-{daemon} is on the bus: {consequence}."
        mend = (
            f"On its host: systemctl start porthole-{daemon}, then journalctl -u porthole-{daemon} -n 50. It "
            "must use the same transport_url; status 78 means that its configuration is wrong."
        )
        findings.append(finding.error(finding_id, "", problem, mend))
    return findings


def _judge_silence(daemons: Daemons) -> list[Finding]:
    answered = Counter(presence.daemon for presence in daemons.presences)
    # The computes that the apis remember have findings of their own.
    answered["compute"] += len(_find_lost(daemons))
    findings = []
    for daemon, number in daemons.consumers.items():
        missing = number - answered[daemon]
        if missing <= 0:
            continue
        hosts = sorted({each.host for each in daemons.presences if each.daemon == daemon})
        others = f"; those on {', '.join(hosts)} do" if hosts else ""
        problem = (
            f"{missing} of {number} porthole-{daemon} on the bus "
            f"{'does' if missing == 1 else 'do'} not answer{others}. It hangs, or its host "
            "was cut off a moment ago; until it ends, its share of the requests fails."
        )
        mend = (
            f"On {'the other hosts' if hosts else 'its host'}: systemctl restart porthole-{daemon}. Upgrade a daemon "
            "whose version is too old for discovery."
        )
        findings.append(finding.error(FindingId.DAEMONS_UNHEARD, "", problem, mend))
    return findings


def _find_lost(daemons: Daemons) -> dict[str, float]:
    """Return ``{host: seconds since its last message}`` of the computes that the apis know and that did not answer."""
    present = {presence.host for presence in daemons.presences if presence.daemon == "compute"}
    lost: dict[str, float] = {}
    for api in daemons.apis:
        for host, silent_s in api.description.silent_s.items():
            if host not in present:
                lost[host] = min(silent_s, lost.get(host, silent_s))
    return lost


def _judge_lost_computes(daemons: Daemons) -> list[Finding]:
    findings = []
    for host, silent_s in sorted(_find_lost(daemons).items()):
        problem = (
            f"porthole-compute on {host} is stopped, or hangs; its last message "
            f"came {silent_s:.0f} s ago. No console of its instances opens."
        )
        mend = (
            f"On {host}: systemctl restart porthole-compute. If the host was "
            "removed for good, restart porthole-api, which then forgets it."
        )
        findings.append(finding.error(FindingId.COMPUTE_LOST, host, problem, mend))
    return findings


def _judge_duplicates(daemons: Daemons) -> list[Finding]:
    names = Counter(presence.host for presence in daemons.presences if presence.daemon == "compute")
    findings = []
    for host, number in names.items():
        if number == 1:
            continue
        problem = f"{number} porthole-compute have the name {host}: each gets requests for the other's instances."
        mend = "Give each node its own [DEFAULT] host (unset, it is the machine's name), or stop the superfluous one."
        findings.append(finding.error(FindingId.DAEMONS_DUPLICATE, host, problem, mend))
    return findings


def _judge_duplicate_instances(daemons: Daemons) -> list[Finding]:
    """Return a finding for each instance that runs on several hosts, by the word of the first api that says so."""
    duplicates: dict[str, list[str]] = {}
    for api in daemons.apis:
        for uuid, hosts in api.description.duplicates.items():
            duplicates.setdefault(uuid, hosts)
    findings = []
    for uuid, (first, *others) in sorted(duplicates.items()):
        problem = (
            f"The instance {uuid} runs on {first} and on {' and '.join(others)}. Consoles, name and owner are those of "
            f"{first}; a guest that is another one, or a copy, has no console."
        )
        mend = (
            "Run the doctor again: an instance that migrates may be on two hosts for a moment. Else stop one of them "
            "(virsh domuuid, virsh destroy), at once if both use one disk; give a copy a UUID of its own."
        )
        findings.append(finding.error(FindingId.INSTANCES_DUPLICATE, first, problem, mend))
    return findings


def _judge_undescribed(daemons: Daemons) -> list[Finding]:
    findings = []
    for process in daemons.undescribed:
        presence = process.presence
        if process.is_old:
            problem = f"porthole-{presence.daemon} failed to describe itself, or its version is too old to do so."
            mend = f"On {presence.host}: journalctl -u porthole-{presence.daemon} -n 50; upgrade it if it is old."
        else:
            problem = f"porthole-{presence.daemon} answered discovery, but no further question in time."
            mend = (
                f"Run the doctor again. If that does not help, the host is overloaded or a thread hangs: on "
                f"{presence.host}, journalctl -u porthole-{presence.daemon} -n 50, and restart it."
            )
        findings.append(finding.error(FindingId.DAEMONS_MUTE, presence.host, problem, mend))
    return findings


def _judge_versions(daemons: Daemons) -> list[Finding]:
    versions: dict[str, set[str]] = {}
    for presence, vitals, *_ in daemons.list_described():
        versions.setdefault(vitals.version, set()).add(f"{presence.daemon} on {presence.host}")
    if len(versions) < 2:
        return []
    listed = "; ".join(f"{version or 'unknown'}: {', '.join(sorted(who))}" for version, who in sorted(versions.items()))
    mend = "Finish the upgrade: install the same version everywhere and restart the older daemons."
    return [finding.warning(FindingId.DAEMONS_VERSIONS, "", f"Versions differ ({listed}).", mend)]


def _count(daemons: Daemons) -> str:
    counts = Counter(presence.daemon for presence in daemons.presences)
    hosts = len({presence.host for presence in daemons.presences})
    listed = ", ".join(f"{counts[daemon]} {daemon}" for daemon in _NONE)
    return f"{listed} on {hosts} host{'' if hosts == 1 else 's'}, and all answer"

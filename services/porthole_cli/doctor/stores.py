# SPDX-License-Identifier: Apache-2.0
"""memcached, as each consoleauth sees it, and libvirt, as each compute does.

Why not asked from here: a memcached that listens on loopback answers its own host, and the doctor may be on another.
Whether the consoleauths share one store is not a matter of options alone, since 127.0.0.1 is another place on every
host: a token that one of them authorized must be known to all. Pure.
"""

from porthole_cli.doctor import finding
from porthole_cli.doctor.facts import Daemons, TokenTrip
from porthole_cli.doctor.finding import Finding, FindingId

_SAME = (
    "Give every consoleauth the same [memcache] servers, in addresses that mean the same "
    "everywhere (not 127.0.0.1 with consoleauths on several hosts), and restart them."
)


def judge_memcached(daemons: Daemons, trip: TokenTrip) -> list[Finding]:
    """Return what is wrong with the token store; one finding in order when it was seen at all and nothing is."""
    findings = []
    for store in daemons.stores:
        host = store.presence.host
        findings += [
            judge_server(server, refusal, host) for server, refusal in store.description.servers.items() if refusal
        ]
    findings += _judge_lists(daemons)
    findings += _judge_sharing(trip)
    if findings or not daemons.stores:
        return findings
    servers = sorted({server for store in daemons.stores for server in store.description.servers})
    sharing = "answers" if len(daemons.stores) == 1 else f"is the same for all {len(daemons.stores)} consoleauths"
    return [finding.ok(FindingId.MEMCACHED_OK, f"{', '.join(servers)} {sharing}")]


def judge_server(server: str, refusal: str, host: str) -> Finding:
    """Return the finding of one memcached that does not answer ``host``; ``refusal`` is why."""
    problem = f"memcached at {server} does not answer from {host}: {refusal}. Tokens that belong there cannot be had."
    mend = (
        "On its host: systemctl start memcached, and see that it listens there (-l in "
        f"/etc/memcached.conf) and that {host} gets through to it; or correct [memcache] servers."
    )
    return finding.error(FindingId.MEMCACHED_UNREACHABLE, host, problem, mend)


def judge_hypervisors(daemons: Daemons) -> list[Finding]:
    """Return the computes whose hypervisor does not answer; one finding in order when there are none."""
    findings = []
    for compute in daemons.computes:
        host, description = compute.presence.host, compute.description
        if not description.refusal:
            continue
        problem = f"compute on {host} does not reach {description.hypervisor}: {description.refusal.rstrip('.')}."
        mend = (
            f"On {host}: systemctl status libvirtd (or virtqemud), and as the "
            f"daemon's user: virsh -r -c '{description.hypervisor}' list. The "
            "user needs the read-only socket; the URI is [libvirt] connection_uri."
        )
        findings.append(finding.error(FindingId.LIBVIRT_UNREACHABLE, host, problem, mend))
    if findings or not daemons.computes:
        return findings
    uris = sorted({compute.description.hypervisor for compute in daemons.computes})
    hosts = ", ".join(sorted(compute.presence.host for compute in daemons.computes))
    return [finding.ok(FindingId.LIBVIRT_OK, f"{', '.join(uris)} answers on {hosts}")]


def _judge_lists(daemons: Daemons) -> list[Finding]:
    lists = {store.presence.host: tuple(store.description.servers) for store in daemons.stores}
    if len({frozenset(servers) for servers in lists.values()}) < 2:
        return []
    listed = "; ".join(f"{host}: {', '.join(servers)}" for host, servers in sorted(lists.items()))
    problem = f"The consoleauths do not list the same memcached servers ({listed}): a token works by chance."
    return [finding.error(FindingId.MEMCACHED_DIFFERS, "", problem, _SAME)]


def _judge_sharing(trip: TokenTrip) -> list[Finding]:
    strangers = sorted(host for host, knew in trip.before.items() if knew is False)
    if not strangers:
        return []
    knowing = ", ".join(sorted(host for host, knew in trip.before.items() if knew is True)) or "another"
    problem = (
        f"consoleauth on {', '.join(strangers)} does not know a token that {knowing} has just authorized: they do not "
        "share one memcached, and a console opens by chance."
    )
    return [finding.error(FindingId.MEMCACHED_NOT_SHARED, strangers[0], problem, _SAME)]

# SPDX-License-Identifier: Apache-2.0
"""memcached, as each consoleauth sees it, and libvirt, as each compute sees it.

Why the daemons are asked: a memcached that listens on loopback answers only its own host, and the doctor may run on
another. The options alone do not show whether the consoleauths share one store, since 127.0.0.1 is another machine on
every host: a token that one consoleauth authorized must be known to all. Pure.
"""

from porthole_cli.doctor import finding
from porthole_cli.doctor.facts import Daemons, TokenCheck
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_common.diagnosis import StoreRoom

# memcached rounds each item up, so that it is full before all of its bytes are used.
NEARLY_FULL = 0.75
_MIB = 1 << 20
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_SAME = (
    "Give every consoleauth the same [memcache] servers, in addresses that mean the same "
    "everywhere (not 127.0.0.1 with consoleauths on several hosts), and restart them."
)


def judge_memcached(daemons: Daemons, token_check: TokenCheck) -> list[Finding]:
    """Return what is wrong with the token store; one finding in order when a consoleauth answered and all is well."""
    findings = []
    for store in daemons.stores:
        host = store.presence.host
        findings += [
            judge_server(server, refusal, host) for server, refusal in store.description.servers.items() if refusal
        ]
    findings += _judge_rooms(daemons)
    findings += _judge_lists(daemons)
    findings += _judge_sharing(token_check)
    if findings or not daemons.stores:
        return findings
    servers = sorted({server for store in daemons.stores for server in store.description.servers})
    sharing = "answers" if len(daemons.stores) == 1 else f"is the same for all {len(daemons.stores)} consoleauths"
    return [finding.ok(FindingId.MEMCACHED_OK, f"{', '.join(servers)} {sharing}")]


def judge_server(server: str, refusal: str, host: str) -> Finding:
    """Return the finding that one memcached does not answer ``host``; ``refusal`` is why."""
    problem = f"memcached at {server} does not answer {host}: {refusal}. The tokens on it cannot be read."
    mend = (
        "On its host: systemctl start memcached. Check that it listens at that address (-l in "
        f"/etc/memcached.conf) and that {host} reaches it; or correct [memcache] servers."
    )
    return finding.error(FindingId.MEMCACHED_UNREACHABLE, host, problem, mend)


def judge_hypervisors(daemons: Daemons) -> list[Finding]:
    """Return the computes whose hypervisor does not answer, at all or about a guest; else one finding in order."""
    findings = []
    for compute in daemons.computes:
        host, description = compute.presence.host, compute.description
        findings += [_judge_held_guest(uuid, description.hypervisor, host) for uuid in description.overdue]
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


def _judge_held_guest(uuid: str, hypervisor: str, host: str) -> Finding:
    problem = (
        f"{hypervisor} on {host} does not answer about instance {uuid}. It has no console, and its state is UNKNOWN."
    )
    mend = (
        f"On {host}: ps -o pid,stat -p $(pgrep -f {uuid}). libvirtd waits for that QEMU, and holds the domain's lock "
        "meanwhile. Let a stopped QEMU go on (kill -CONT PID), or end it (kill -KILL PID)."
    )
    return finding.error(FindingId.LIBVIRT_GUEST_HELD, host, problem, mend)


def _judge_rooms(daemons: Daemons) -> list[Finding]:
    """Return what is wrong with the memory of each memcached, once for all consoleauths that share it."""
    findings: dict[tuple[str, str], Finding] = {}
    for store in daemons.stores:
        for server, room in store.description.rooms.items():
            address = server.rpartition(":")[0].strip("[]")
            where = store.presence.host if address in _LOOPBACK else address
            for found in (_judge_eviction(server, room, where), _judge_filling(server, room, where)):
                if found is not None:
                    findings.setdefault((found.id, f"{where} {server}"), found)
    return list(findings.values())


def _judge_eviction(server: str, room: StoreRoom, where: str) -> Finding | None:
    mend = (
        "On its host: write -M into /etc/memcached.conf, and a larger -m if it was full, and restart memcached when "
        "few users wait for a console: the URLs that are not opened yet become void."
    )
    if room.evictions:
        problem = (
            f"memcached at {server} was full and has deleted {room.evictions} items that were in use: unused URLs of "
            "users became void."
        )
        return finding.error(FindingId.MEMCACHED_EVICTED, where, problem, mend)
    if room.evicts:
        problem = (
            f"memcached at {server} runs without -M: when it is full, it deletes tokens that are in use, and one user "
            "who asks for many URLs makes those of others void."
        )
        return finding.warning(FindingId.MEMCACHED_EVICTS, where, problem, mend)
    return None


def _judge_filling(server: str, room: StoreRoom, where: str) -> Finding | None:
    if not room.refusals and room.used_bytes < NEARLY_FULL * room.limit_bytes:
        return None
    used, limit = room.used_bytes / _MIB, room.limit_bytes / _MIB
    problem = f"memcached at {server} uses {used:.1f} of {limit:.1f} MiB"
    if room.refusals:
        problem += f", and has refused {room.refusals} items for want of room since it started"
    problem += ". While it is full, users get 503 for a new console."
    mend = (
        "On its host: raise -m in /etc/memcached.conf, and restart memcached when few users wait for a console: the "
        "URLs that are not opened yet become void. The log of porthole-api says who asks for consoles; [api] "
        "max_consoles_per_minute bounds each user."
    )
    return finding.warning(FindingId.MEMCACHED_FULL, where, problem, mend)


def _judge_lists(daemons: Daemons) -> list[Finding]:
    lists = {store.presence.host: tuple(store.description.servers) for store in daemons.stores}
    if len({frozenset(servers) for servers in lists.values()}) < 2:
        return []
    listed = "; ".join(f"{host}: {', '.join(servers)}" for host, servers in sorted(lists.items()))
    problem = f"The consoleauths list different memcached servers ({listed}): a token works only by chance."
    return [finding.error(FindingId.MEMCACHED_DIFFERS, "", problem, _SAME)]


def _judge_sharing(token_check: TokenCheck) -> list[Finding]:
    strangers = sorted(host for host, knew in token_check.before.items() if knew is False)
    if not strangers:
        return []
    knowing = ", ".join(sorted(host for host, knew in token_check.before.items() if knew is True)) or "another"
    problem = (
        f"consoleauth on {', '.join(strangers)} does not know a token that {knowing} has just authorized: they do not "
        "share one memcached, and a console opens only by chance."
    )
    return [finding.error(FindingId.MEMCACHED_NOT_SHARED, strangers[0], problem, _SAME)]

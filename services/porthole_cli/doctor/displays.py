# SPDX-License-Identifier: Apache-2.0
"""VNC servers: where they listen, where the proxies dial, and whether the proxies reach them.

Why the proxies are asked: an address that answers on the hypervisor, or here, may not answer on the proxy's host, and
127.0.0.1 is another machine there. A guest's listen address is in its own XML; the options of a host apply to guests
that listen on a wildcard address, or on loopback (``porthole_compute.domain_xml.get_proxy_host``). Pure.
"""

import ipaddress
from collections.abc import Iterator, Sequence

from porthole_cli.doctor import finding
from porthole_cli.doctor.facts import Daemons, Described, DialResult
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_common.diagnosis import Display, HostDescription, ProxyDescription
from porthole_common.model import Target

# At most so many displays of one host are dialled: what keeps a proxy from one keeps it from its neighbours.
MAX_DIALLED = 8
MAX_NAMED = 3
# Security types that use TLS: TLS and VeNCrypt (the registry of RFC 6143 section 8.4.2).
_ENCRYPTED = frozenset({18, 19})
EXCLUSIVE = "allow-exclusive"


def choose_targets(host: HostDescription, proxy: ProxyDescription) -> list[Target]:
    """Return which VNC servers of ``host`` the proxy is asked to dial: those that it could reach at their address."""
    here = proxy.vitals.shares_loopback(host.vitals)
    targets = [display.target for display in host.displays if here or not is_loopback(display.target.host)]
    return list(dict.fromkeys(targets))[:MAX_DIALLED]


def judge_displays(daemons: Daemons, dialled: Sequence[DialResult]) -> list[Finding]:
    """Return what is wrong between the proxies and the VNC servers; one finding in order when all is well."""
    findings = []
    for compute in daemons.computes:
        findings += _judge_loopback(compute, [proxy.description for proxy in daemons.proxies])
        findings += _judge_wildcard(compute, dialled)
        findings += _judge_sharing(compute)
        findings += _judge_reach(compute, dialled)
    if findings or not daemons.computes:
        return findings
    displays = sum(len(compute.description.displays) for compute in daemons.computes)
    reached = sum(len(each.reaches or ()) for each in dialled)
    text = f"{_count(displays, 'screen')} on {_count(len(daemons.computes), 'host')}"
    return [finding.ok(FindingId.VNC_OK, f"{text}; {_describe_dials(reached)}" if displays else text)]


def is_loopback(host: str) -> bool:
    """Return True when ``host`` is a loopback address, or its usual name."""
    address = _parse(host)
    return host == "localhost" if address is None else address.is_loopback


def is_wildcard(host: str | None) -> bool:
    """Return True when a server that listens on ``host`` listens on every address."""
    address = _parse(host or "0.0.0.0")  # noqa: S104
    return address is not None and address.is_unspecified


def _judge_loopback(compute: Described[HostDescription], proxies: Sequence[ProxyDescription]) -> list[Finding]:
    host = compute.description
    if not is_loopback(host.proxyclient_address):
        return []
    remote = sorted({each.vitals.host for each in proxies if not each.vitals.shares_loopback(host.vitals)})
    if not remote:
        return []
    dialled = [display for display in host.displays if is_loopback(display.target.host)]
    makes = finding.error if dialled or not host.displays else finding.warning
    whose = f"{_name(dialled)} and every" if dialled else "a"
    problem = (
        f"[vnc] server_proxyclient_address of {compute.presence.host} is "
        f"{host.proxyclient_address}, and a proxy runs on {', '.join(remote)}: that proxy dials its own "
        f"host for {whose} guest that listens on loopback or on every address."
    )
    mend = (
        f"On {compute.presence.host}, set [vnc] server_proxyclient_address to its address in the network "
        "that it shares with the proxies, let the guests listen there, and restart porthole-compute."
    )
    return [makes(FindingId.VNC_PROXYCLIENT_LOOPBACK, compute.presence.host, problem, mend)]


def _judge_wildcard(compute: Described[HostDescription], dialled: Sequence[DialResult]) -> list[Finding]:
    types = {
        reach.target: frozenset(reach.security_types)
        for each in dialled
        if each.compute_host == compute.presence.host
        for reach in each.reaches or ()
        if reach.security_types
    }
    open_to_all = [
        display
        for display in compute.description.displays
        if is_wildcard(display.listen) and not (types.get(display.target) or {0}) <= _ENCRYPTED
    ]
    if not open_to_all:
        return []
    problem = (
        f"The VNC server of {_name(open_to_all)} on {compute.presence.host} listens on every address, "
        "without TLS: anybody who reaches the host can open the screen without the proxy and its tokens."
    )
    mend = (
        "In the domain's XML (or nova.conf's [vnc] server_listen) let it listen only on "
        "the address of the internal network, or on 127.0.0.1 with the proxy on the "
        "same host; or close the ports 5900 to 6900 to all hosts but the proxies."
    )
    return [finding.warning(FindingId.VNC_WILDCARD, compute.presence.host, problem, mend)]


def _judge_sharing(compute: Described[HostDescription]) -> list[Finding]:
    # Unset is QEMU's default and means the same; every guest of Nova has it, and a warning for every guest is no help.
    exclusive = [display for display in compute.description.displays if display.share_policy == EXCLUSIVE]
    if not exclusive:
        return []
    problem = (
        f"{_name(exclusive)} on {compute.presence.host}: sharePolicy is {EXCLUSIVE}, "
        "so a viewer that asks for exclusive access ends all other consoles of the guest."
    )
    mend = "Set sharePolicy='force-shared' on <graphics> in the domain's XML, and restart the guest."
    return [finding.warning(FindingId.VNC_EXCLUSIVE, compute.presence.host, problem, mend)]


def _judge_reach(compute: Described[HostDescription], dialled: Sequence[DialResult]) -> Iterator[Finding]:
    host = compute.presence.host
    displays = {display.target: display for display in compute.description.displays}
    for each in dialled:
        if each.compute_host != host or each.reaches is None:
            continue
        missed = [reach for reach in each.reaches if reach.problem and reach.target in displays]
        refused = [displays[reach.target] for reach in missed if reach.problem == "refused"]
        silent = [displays[reach.target] for reach in missed if reach.problem == "silent"]
        insecure: dict[str, list[Display]] = {}
        for reach in missed:
            if reach.problem == "security":
                insecure.setdefault(reach.reason, []).append(displays[reach.target])
        hidden = [display for display in refused if _is_hidden(display)]
        other = [display for display in refused if not _is_hidden(display)]
        for reason, which in insecure.items():
            yield _judge_security(host, each.proxy_host, reason, which)
        if hidden:
            yield _judge_hidden(host, each.proxy_host, hidden)
        if other:
            problem = f"The VNC server of {_name(other)} on {host} refuses the proxy on {each.proxy_host}."
            mend = (
                f"On {host}, see what listens there (ss -ltnp) and virsh vncdisplay; let the "
                "guest listen on an address that the proxy reaches. A firewall may also refuse."
            )
            yield finding.error(FindingId.VNC_UNREACHABLE, host, problem, mend)
        if silent:
            problem = f"The proxy on {each.proxy_host} gets no answer from the VNC server of {_name(silent)} on {host}."
            mend = (
                f"Let the proxy's host reach {host} (routes, firewall, ports 5900 "
                "to 6900); if it reaches the host, the guest's QEMU hangs: virsh domstate."
            )
            yield finding.error(FindingId.VNC_UNREACHABLE, host, problem, mend)


def _judge_security(host: str, proxy_host: str, reason: str, displays: Sequence[Display]) -> Finding:
    problem = (
        f"The proxy on {proxy_host} and the VNC server of {_name(displays)} on "
        f"{host} do not agree on security: {reason}. No console of it opens."
    )
    mend = (
        "Compare [vnc] auth_schemes, vencrypt_ca_certs and vencrypt_client_cert on the "
        "proxy's host with vnc_tls, vnc_tls_x509_verify and the certificate in "
        f"/etc/pki/libvirt-vnc on {host}, which must be for the address that is dialled."
    )
    return finding.error(FindingId.VNC_SECURITY, host, problem, mend)


def _judge_hidden(host: str, proxy_host: str, displays: Sequence[Display]) -> Finding:
    address = displays[0].target.host
    problem = (
        f"The VNC server of {_name(displays)} on {host} listens on {displays[0].listen}, and the proxy on "
        f"{proxy_host} dials {address}, [vnc] server_proxyclient_address: nothing listens there."
    )
    mend = f"Let the guest listen on {address} (domain's XML, or nova.conf's [vnc] server_listen), and restart it."
    return finding.error(FindingId.VNC_LISTENS_ON_LOOPBACK, host, problem, mend)


def _is_hidden(display: Display) -> bool:
    return is_loopback(display.listen or "") and not is_loopback(display.target.host)


def _name(displays: Sequence[Display]) -> str:
    named = ", ".join(f"{display.name} ({display.target})" for display in displays[:MAX_NAMED])
    left = len(displays) - MAX_NAMED
    return named if left <= 0 else f"{named} and {left} more"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number or 'no'} {word}s"


def _describe_dials(answered: int) -> str:
    """Return the text for ``answered`` dials that were all answered; several proxies may dial one screen."""
    match answered:
        case 0:
            return "none was dialled"
        case 1:
            return "1 dial was answered"
        case _:
            return f"all {answered} dials were answered"


def _parse(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None

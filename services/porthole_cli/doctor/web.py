# SPDX-License-Identifier: Apache-2.0
"""The way of a browser: base URL, certificate, Origin, and the noVNC behind them.

Why together: each can be right and not fit the others. A URL that says https needs something in front that speaks TLS,
and a proxy that believes it; a certificate bears the URL's name or none. What a browser would meet is tried from here
(:mod:`doors`), and what the proxies say of themselves is held against it. Pure.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from porthole_cli.doctor import finding
from porthole_cli.doctor.facts import Daemons, Door, Heard
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_common.diagnosis import CertificateDates, ProxyDescription

EXPIRES_SOON = timedelta(days=14)
# noVNC's first version with what console.html uses.
OLDEST_NOVNC = (1, 3)
_OPTION = "[vnc] novncproxy_base_url"


def list_base_urls(daemons: Daemons, default: str) -> list[str]:
    """Return the URLs that users are given, each once; ``default`` when no compute says one."""
    return list(dict.fromkeys(each.description.novncproxy_base_url for each in daemons.computes)) or [default]


def judge_web(daemons: Daemons, doors: Sequence[Door], now: datetime) -> list[Finding]:
    """Return what is wrong between a browser and the proxy; findings in order for what is not."""
    certificates = _judge_certificates(daemons, doors, now)
    urls = [each for door in doors for each in (*_judge_scheme(daemons, door), *_judge_door(door))]
    findings = [*urls, *certificates, *judge_novnc(daemons)]
    if doors and not urls:
        text = f"{', '.join(door.url for door in doors)} opens from here, and its Origin is let in"
        findings.insert(0, finding.ok(FindingId.URL_OK, text))
    shown = [proxy.description.certificate for proxy in daemons.proxies] + [door.certificate for door in doors]
    known = [certificate for certificate in shown if certificate is not None]
    if known and not certificates:
        end = min(certificate.not_after for certificate in known)
        findings.append(finding.ok(FindingId.CERTIFICATE_OK, f"good until {end:%Y-%m-%d}"))
    return findings


def judge_novnc(daemons: Daemons) -> list[Finding]:
    """Return the proxies without noVNC, or with one that is too old; one finding in order when there are none."""
    findings = []
    versions = set()
    for proxy in daemons.proxies:
        description = proxy.description
        if not description.novnc:
            findings.append(build_novnc_missing(proxy.presence.host, description.web))
            continue
        versions.add(description.novnc_version or "of a version that it does not say")
        if _is_old(description.novnc_version):
            problem = (
                f"noVNC {description.novnc_version} in {description.web} "
                "is older than 1.3; the console page needs that."
            )
            mend = (
                "Install a newer one (apt-get install novnc, or a release "
                "of noVNC's) and name its folder in [DEFAULT] web."
            )
            findings.append(finding.warning(FindingId.NOVNC_OLD, proxy.presence.host, problem, mend))
    if findings or not versions:
        return list(dict.fromkeys(findings))
    return [finding.ok(FindingId.NOVNC_OK, f"noVNC {', '.join(sorted(versions))}")]


def build_novnc_missing(host: str, web: str) -> Finding:
    """Return the finding of a web root without noVNC."""
    problem = (
        f"There is no noVNC in [DEFAULT] web ({web or 'empty'}): "
        "the console page stays blank, or the proxy does not start."
    )
    mend = (
        "apt-get install novnc, or name the folder with noVNC's "
        "core/rfb.js in [DEFAULT] web; then restart porthole-novncproxy."
    )
    return finding.error(FindingId.NOVNC_MISSING, host, problem, mend)


def judge_certificate(certificate: CertificateDates, url: str | None, host: str, now: datetime) -> list[Finding]:
    """Return what is wrong with the dates of a certificate, and with its names for ``url``."""
    renew = "Renew it, put it where [DEFAULT] cert points, and: systemctl reload porthole-novncproxy"
    findings = []
    if certificate.not_after <= now:
        problem = f"The certificate expired on {certificate.not_after:%Y-%m-%d %H:%M} UTC; browsers refuse it."
        findings.append(finding.error(FindingId.CERTIFICATE_EXPIRED, host, problem, renew))
    elif certificate.not_after <= now + EXPIRES_SOON:
        problem = f"The certificate expires on {certificate.not_after:%Y-%m-%d %H:%M} UTC."
        findings.append(finding.warning(FindingId.CERTIFICATE_EXPIRES_SOON, host, problem, renew))
    if certificate.not_before > now:
        problem = (
            f"The certificate is valid from {certificate.not_before:%Y-%m-%d %H:%M} "
            "UTC on; browsers refuse it until then."
        )
        mend = f"Wait, or have it issued anew; compare this host's clock (timedatectl). {renew}"
        findings.append(finding.error(FindingId.CERTIFICATE_NOT_YET_VALID, host, problem, mend))
    name = urlsplit(url).hostname if url else None
    if name and not bears_name(certificate.names, name):
        problem = f"The certificate is for {', '.join(certificate.names) or 'no name'}, and users are sent to {name}."
        mend = f"Have a certificate issued that names {name}, or give {_OPTION} a name of the certificate."
        findings.append(finding.error(FindingId.CERTIFICATE_NAME, host, problem, mend))
    return findings


def bears_name(names: Iterable[str], wanted: str) -> bool:
    """Say whether a certificate with these subjectAltNames is one for ``wanted`` (RFC 9525 section 6.3)."""
    return any(_matches(name.lower().rstrip("."), wanted.lower().rstrip(".")) for name in names)


def _matches(name: str, wanted: str) -> bool:
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(wanted)
    except ValueError:
        pass
    if not name.startswith("*."):
        return name == wanted
    label, separator, rest = wanted.partition(".")
    return bool(label and separator) and rest == name.removeprefix("*.")


def _judge_certificates(daemons: Daemons, doors: Sequence[Door], now: datetime) -> list[Finding]:
    findings = []
    for proxy in daemons.proxies:
        # Its names count for the URL only where the proxy itself answers there; what is served there says that best.
        if proxy.description.certificate is not None:
            findings += judge_certificate(proxy.description.certificate, None, proxy.presence.host, now)
    for door in doors:
        if door.certificate is None:
            continue
        host = urlsplit(door.url).netloc
        told = {each.id for each in findings}
        served = judge_certificate(door.certificate, door.url, host, now)
        findings += [each for each in served if each.id not in told]
        if door.mistrust and not served:
            problem = f"The certificate at {door.url} is not trusted on this host: {door.mistrust}."
            mend = (
                "If the browsers of your users know the authority, nothing; else have the "
                "certificate issued by one they know, and put the whole chain into [DEFAULT] cert."
            )
            findings.append(finding.warning(FindingId.CERTIFICATE_UNTRUSTED, host, problem, mend))
    return list(dict.fromkeys(findings))


def _judge_scheme(daemons: Daemons, door: Door) -> Iterable[Finding]:
    is_https = urlsplit(door.url).scheme == "https"
    bare = [proxy for proxy in daemons.proxies if proxy.description.certificate is None]
    if is_https:
        helpless = [proxy for proxy in bare if not proxy.description.trusted_proxies]
        if helpless:
            problem = (
                f"{_OPTION} is {door.url}, and the proxy on {_hosts(helpless)} has no certificate and trusts no "
                "reverse proxy: it cannot be what speaks TLS there, and refuses the Origin of every browser (403)."
            )
            mend = (
                "Give the proxy [DEFAULT] cert and key; or, with a reverse proxy in front, its address in [console] "
                "trusted_proxies, and have it send X-Forwarded-Proto; or write http in the URL."
            )
            yield finding.error(FindingId.URL_HTTPS_WITHOUT_CERTIFICATE, _hosts(helpless), problem, mend)
        return
    certified = [proxy for proxy in daemons.proxies if proxy.description.certificate is not None]
    if certified:
        strict = [proxy for proxy in certified if proxy.description.ssl_only]
        makes = finding.error if strict else finding.warning
        consequence = (
            "and it takes nothing else (ssl_only): no console opens" if strict else "but users are not sent to it"
        )
        problem = f"The proxy on {_hosts(strict or certified)} speaks TLS, {consequence}: {_OPTION} is {door.url}."
        mend = f"Write https in {_OPTION} on every compute node, and restart porthole-compute there."
        yield makes(FindingId.URL_HTTP_WITH_CERTIFICATE, _hosts(strict or certified), problem, mend)


def _judge_door(door: Door) -> Iterable[Finding]:
    host = urlsplit(door.url).netloc
    if door.problem:
        mend = (
            "See that the name resolves and the port is open, from where the users are; correct "
            f"{_OPTION} on the compute nodes if it is the wrong address. If only this host cannot reach it, nothing."
        )
        yield finding.warning(
            FindingId.URL_UNREACHABLE, host, f"{door.url} cannot be opened from here: {door.problem}.", mend
        )
        return
    if door.page_status not in {200, None}:
        mend = f"Correct the path in {_OPTION}: /console.html, or a page of noVNC's; or the reverse proxy's path."
        yield finding.error(
            FindingId.URL_NO_PAGE, host, f"{door.url} answers HTTP {door.page_status} and no page.", mend
        )
    if door.upgrade_status == 403:
        problem = (
            f"A page at {door.url} may not open a console there: its Origin is refused (403), so every browser is."
        )
        mend = (
            "A reverse proxy must pass the Host header on (or its name stand in [console] allowed_origins), be named "
            "in [console] trusted_proxies and send X-Forwarded-Proto; and the scheme of the URL must be the browser's."
        )
        yield finding.error(FindingId.URL_ORIGIN, host, problem, mend)
    elif door.upgrade_status not in {401, None}:
        problem = f"A WebSocket at {door.url} with a console's token was answered HTTP {door.upgrade_status}."
        mend = (
            "404 and 400: the reverse proxy does not pass WebSockets on (Upgrade and Connection headers), or not "
            "this path. 429: limits of [novncproxy]. 503: the daemons behind the proxy; see the other findings."
        )
        yield finding.error(FindingId.URL_UPGRADE, host, problem, mend)


def _is_old(version: str | None) -> bool:
    numbers = (version or "").split(".")[:2]
    if len(numbers) < 2 or not all(number.isdecimal() for number in numbers):
        return False
    return tuple(map(int, numbers)) < OLDEST_NOVNC


def _hosts(proxies: Sequence[Heard[ProxyDescription]]) -> str:
    return ", ".join(sorted({proxy.presence.host for proxy in proxies}))

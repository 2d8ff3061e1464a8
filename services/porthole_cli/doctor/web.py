# SPDX-License-Identifier: Apache-2.0
"""What a browser needs: base URL, certificate, Origin, and noVNC behind them.

Why together: each can be right and not fit the others. An https URL needs a TLS server in front, and a proxy that
trusts it; a certificate must have the name in the URL. :mod:`url_check` tries what a browser would do, and the result
is compared with what the proxies say of themselves. Pure.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from porthole_cli.doctor import finding
from porthole_cli.doctor.facts import Daemons, Described, UrlCheck
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_common.diagnosis import CertificateDates, ProxyDescription

EXPIRES_SOON = timedelta(days=14)
# noVNC's first version with what console.html uses.
OLDEST_NOVNC = (1, 3)
_OPTION = "[vnc] novncproxy_base_url"


def list_base_urls(daemons: Daemons, default: str) -> list[str]:
    """Return the URLs that users get, each once; ``default`` when no compute names a URL."""
    return list(dict.fromkeys(each.description.novncproxy_base_url for each in daemons.computes)) or [default]


def judge_web(daemons: Daemons, checks: Sequence[UrlCheck], now: datetime) -> list[Finding]:
    """Return what is wrong between a browser and the proxy, and what is in order."""
    certificates = _judge_certificates(daemons, checks, now)
    urls = [each for check in checks for each in (*_judge_scheme(daemons, check), *_judge_url(check))]
    findings = [*urls, *certificates, *judge_novnc(daemons)]
    if checks and not urls:
        text = f"{', '.join(check.url for check in checks)} opens from here, and its Origin is accepted"
        findings.insert(0, finding.ok(FindingId.URL_OK, text))
    shown = [proxy.description.certificate for proxy in daemons.proxies] + [check.certificate for check in checks]
    known = [certificate for certificate in shown if certificate is not None]
    if known and not certificates:
        end = min(certificate.not_after for certificate in known)
        findings.append(finding.ok(FindingId.CERTIFICATE_OK, f"good until {end:%Y-%m-%d}"))
    return findings


def judge_novnc(daemons: Daemons) -> list[Finding]:
    """Return the proxies without noVNC, or with a noVNC that is too old; one finding in order when all are well."""
    findings = []
    versions = set()
    for proxy in daemons.proxies:
        description = proxy.description
        if not description.novnc:
            findings.append(build_novnc_missing(proxy.presence.host, description.web))
            continue
        versions.add(description.novnc_version or "of an unknown version")
        if _is_old(description.novnc_version):
            problem = (
                f"noVNC {description.novnc_version} in {description.web} "
                "is older than 1.3; the console page needs that."
            )
            mend = (
                "Install a newer version (apt-get install novnc, or a release "
                "of noVNC) and name its folder in [DEFAULT] web."
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
        "apt-get install novnc, or name the folder with noVNC's core/rfb.js in [DEFAULT] web (lib/rfb.js alone, as in "
        "npm's package of 1.5 and 1.6, is not enough); then restart porthole-novncproxy."
    )
    return finding.error(FindingId.NOVNC_MISSING, host, problem, mend)


def judge_certificate(certificate: CertificateDates, url: str | None, host: str, now: datetime) -> list[Finding]:
    """Return what is wrong with the dates of a certificate, and with its names if ``url`` is given."""
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
        mend = f"Wait, or get a new one; compare this host's clock (timedatectl). {renew}"
        findings.append(finding.error(FindingId.CERTIFICATE_NOT_YET_VALID, host, problem, mend))
    name = urlsplit(url).hostname if url else None
    if name and not bears_name(certificate.names, name):
        problem = f"The certificate is for {', '.join(certificate.names) or 'no name'}, and users are sent to {name}."
        mend = f"Get a certificate that names {name}, or use a name of the certificate in {_OPTION}."
        findings.append(finding.error(FindingId.CERTIFICATE_NAME, host, problem, mend))
    return findings


def bears_name(names: Iterable[str], wanted: str) -> bool:
    """Return True when a certificate with these subjectAltNames is valid for ``wanted`` (RFC 9525 section 6.3)."""
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


def _judge_certificates(daemons: Daemons, checks: Sequence[UrlCheck], now: datetime) -> list[Finding]:
    findings = []
    for proxy in daemons.proxies:
        # Another server may answer at the URL; the names are therefore judged by the certificate served there.
        if proxy.description.certificate is not None:
            findings += judge_certificate(proxy.description.certificate, None, proxy.presence.host, now)
    for check in checks:
        if check.certificate is None:
            continue
        host = urlsplit(check.url).netloc
        told = {each.id for each in findings}
        served = judge_certificate(check.certificate, check.url, host, now)
        findings += [each for each in served if each.id not in told]
        if check.mistrust and not served:
            problem = f"The certificate at {check.url} is not trusted on this host: {check.mistrust}."
            mend = (
                "If the browsers of your users know the authority, do nothing; else get a certificate "
                "from an authority that they know, and put the whole chain into [DEFAULT] cert."
            )
            findings.append(finding.warning(FindingId.CERTIFICATE_UNTRUSTED, host, problem, mend))
    return list(dict.fromkeys(findings))


def _judge_scheme(daemons: Daemons, check: UrlCheck) -> Iterable[Finding]:
    is_https = urlsplit(check.url).scheme == "https"
    bare = [proxy for proxy in daemons.proxies if proxy.description.certificate is None]
    if is_https:
        helpless = [proxy for proxy in bare if not proxy.description.trusted_proxies]
        if helpless:
            problem = (
                f"{_OPTION} is {check.url}, and the proxy on {_hosts(helpless)} has no certificate and trusts no "
                "reverse proxy: it cannot speak TLS at that URL, and refuses the Origin of every browser (403)."
            )
            mend = (
                "Set [DEFAULT] cert and key for the proxy; or, with a reverse proxy in front, put its address into "
                "[console] trusted_proxies and let it send X-Forwarded-Proto; or write http in the URL."
            )
            yield finding.error(FindingId.URL_HTTPS_WITHOUT_CERTIFICATE, _hosts(helpless), problem, mend)
        return
    certified = [proxy for proxy in daemons.proxies if proxy.description.certificate is not None]
    if certified:
        strict = [proxy for proxy in certified if proxy.description.ssl_only]
        makes = finding.error if strict else finding.warning
        consequence = (
            "and accepts nothing else (ssl_only): no console opens" if strict else "but the URL does not use it"
        )
        problem = f"The proxy on {_hosts(strict or certified)} speaks TLS, {consequence}: {_OPTION} is {check.url}."
        mend = f"Write https in {_OPTION} on every compute node, and restart porthole-compute there."
        yield makes(FindingId.URL_HTTP_WITH_CERTIFICATE, _hosts(strict or certified), problem, mend)


def _judge_url(check: UrlCheck) -> Iterable[Finding]:
    host = urlsplit(check.url).netloc
    if check.problem:
        mend = (
            "Check that the name resolves and the port is open for the users' hosts; correct "
            f"{_OPTION} on the compute nodes if the address is wrong. If only this host cannot reach it, do nothing."
        )
        yield finding.warning(
            FindingId.URL_UNREACHABLE, host, f"{check.url} cannot be opened from here: {check.problem}.", mend
        )
        return
    if check.page_status not in {200, None}:
        mend = (
            f"Correct the path in {_OPTION}: /console.html, or a page of noVNC if [DEFAULT] web has one (npm's package "
            "has none); or the path in the reverse proxy."
        )
        yield finding.error(
            FindingId.URL_NO_PAGE, host, f"{check.url} answers HTTP {check.page_status} instead of a page.", mend
        )
    if check.upgrade_status == 403:
        problem = (
            f"A page at {check.url} cannot open a console: its Origin is refused (403), so no browser can open one."
        )
        mend = (
            "A reverse proxy must pass the Host header on (or its name must be in [console] allowed_origins), be "
            "listed in [console] trusted_proxies and send X-Forwarded-Proto; the scheme in the URL must be the "
            "browser's."
        )
        yield finding.error(FindingId.URL_ORIGIN, host, problem, mend)
    elif check.upgrade_status not in {401, None}:
        problem = f"A WebSocket at {check.url} with a console's token got the answer HTTP {check.upgrade_status}."
        mend = (
            "404 and 400: the reverse proxy does not forward WebSockets (Upgrade and Connection headers), or not "
            "this path. 429: a limit in [novncproxy]. 503: the daemons behind the proxy; see the other findings."
        )
        yield finding.error(FindingId.URL_UPGRADE, host, problem, mend)


def _is_old(version: str | None) -> bool:
    numbers = (version or "").split(".")[:2]
    if len(numbers) < 2 or not all(number.isdecimal() for number in numbers):
        return False
    return tuple(map(int, numbers)) < OLDEST_NOVNC


def _hosts(proxies: Sequence[Described[ProxyDescription]]) -> str:
    return ", ".join(sorted({proxy.presence.host for proxy in proxies}))

# SPDX-License-Identifier: Apache-2.0
from datetime import timedelta
from typing import Any

import pytest

from porthole_cli.doctor.facts import UrlCheck
from porthole_cli.doctor.finding import Severity
from porthole_cli.doctor.web import bears_name, judge_certificate, judge_novnc, judge_web, list_base_urls
from support.clouds import ids, make_daemons
from support.descriptions import NOW, make_certificate, make_host, make_proxy

HTTP = "http://console.example:6080/console.html"
HTTPS = "https://console.example:6080/console.html"
CERTIFICATE = make_certificate()


def check(url: str = HTTP, **changes: Any) -> UrlCheck:
    return UrlCheck(url, **{"page_status": 200, "upgrade_status": 401, **changes})


def troubles(found: Any, *checks: UrlCheck) -> list[tuple[str, Severity]]:
    findings = judge_web(found, checks, NOW)
    return [(str(each.id), each.severity) for each in findings if each.severity is not Severity.OK]


def proxies(**changes: Any) -> Any:
    return make_daemons(proxies=[make_proxy(**changes)])


def test_http_in_order() -> None:
    assert ids(judge_web(make_daemons(), [check()], NOW)) == ["url.ok", "novnc.ok"]


def test_https_in_order() -> None:
    served = check(HTTPS, certificate=CERTIFICATE)
    findings = judge_web(proxies(certificate=CERTIFICATE, ssl_only=True), [served], NOW)
    assert ids(findings) == ["url.ok", "novnc.ok", "certificate.ok"]
    assert findings[2].problem == "good until 2026-09-29"


def test_https_in_front_of_the_proxy() -> None:
    assert troubles(proxies(trusted_proxies=("192.0.2.9",)), check(HTTPS, certificate=CERTIFICATE)) == []


def test_https_and_nobody_who_speaks_it() -> None:
    assert troubles(make_daemons(), check(HTTPS, problem="refused")) == [
        ("url.https_without_certificate", Severity.ERROR),
        ("url.unreachable", Severity.WARNING),
    ]


@pytest.mark.parametrize(("ssl_only", "severity"), [(False, Severity.WARNING), (True, Severity.ERROR)])
def test_http_and_a_certificate(ssl_only: bool, severity: Severity) -> None:
    found = proxies(certificate=CERTIFICATE, ssl_only=ssl_only)
    assert troubles(found, check()) == [("url.http_with_certificate", severity)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"problem": "Connection refused", "page_status": None, "upgrade_status": None},
            ("url.unreachable", "warning"),
        ),
        ({"page_status": 404}, ("url.no_page", "error")),
        ({"upgrade_status": 403}, ("url.origin", "error")),
        ({"upgrade_status": 400}, ("url.upgrade", "error")),
        ({"upgrade_status": 503}, ("url.upgrade", "error")),
    ],
)
def test_one_url(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    assert troubles(make_daemons(), check(**changes)) == [expected]


@pytest.mark.parametrize(
    ("days", "expected"),
    [(-0.1, ["certificate.expired"]), (13, ["certificate.expires_soon"]), (15, [])],
)
def test_when_a_certificate_ends(days: float, expected: list[str]) -> None:
    certificate = make_certificate(days=days)
    assert ids(judge_certificate(certificate, None, "controller", NOW)) == expected
    # What the file holds and what is served is told once.
    found = proxies(certificate=certificate)
    assert [each for each, _ in troubles(found, check(HTTPS, certificate=certificate))] == expected


def test_a_certificate_of_tomorrow() -> None:
    before = NOW - timedelta(days=2)
    assert ids(judge_certificate(CERTIFICATE, None, "controller", before)) == ["certificate.not_yet_valid"]


def test_an_old_certificate_is_served_though_the_file_is_new() -> None:
    found = proxies(certificate=CERTIFICATE)
    assert troubles(found, check(HTTPS, certificate=make_certificate(days=-1))) == [
        ("certificate.expired", Severity.ERROR)
    ]


def test_a_name_that_is_not_the_urls() -> None:
    found = proxies(certificate=make_certificate(("other.example",)))
    served = check(HTTPS, certificate=make_certificate(("other.example",)), mistrust="Hostname mismatch")
    assert troubles(found, served) == [("certificate.name", Severity.ERROR)]


def test_an_authority_that_is_not_known_here() -> None:
    served = check(HTTPS, certificate=CERTIFICATE, mistrust="self-signed certificate")
    assert troubles(proxies(certificate=CERTIFICATE), served) == [("certificate.untrusted", Severity.WARNING)]


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        (("console.example",), "Console.Example", True),
        (("console.example.",), "console.example", True),
        (("*.example",), "console.example", True),
        (("*.example",), "example", False),
        (("*.example",), "a.b.example", False),
        (("192.0.2.1",), "192.0.2.1", True),
        (("2001:db8::1",), "2001:db8:0:0:0:0:0:1", True),
        (("192.0.2.1",), "192.0.2.2", False),
        ((), "console.example", False),
    ],
)
def test_names(names: tuple[str, ...], wanted: str, expected: bool) -> None:
    assert bears_name(names, wanted) is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"novnc": False}, "novnc.missing"),
        ({"novnc": False, "web": ""}, "novnc.missing"),
        ({"novnc_version": "1.2.0"}, "novnc.old"),
        ({"novnc_version": "0.6.2"}, "novnc.old"),
        ({"novnc_version": "1.3.0"}, "novnc.ok"),
        ({"novnc_version": "1.10.0"}, "novnc.ok"),
        ({"novnc_version": "2.0-beta"}, "novnc.ok"),
        ({"novnc_version": None}, "novnc.ok"),
    ],
)
def test_novnc(changes: dict[str, Any], expected: str) -> None:
    assert ids(judge_novnc(proxies(**changes))) == [expected]


def test_a_novnc_of_an_unknown_version_is_called_so() -> None:
    (found,) = judge_novnc(proxies(novnc_version=None))
    assert found.problem == "noVNC of an unknown version"


def test_each_base_url_once() -> None:
    found = make_daemons(computes=[make_host("a"), make_host("b"), make_host("c", novncproxy_base_url=HTTPS)])
    assert list_base_urls(found, HTTP) == ["http://192.0.2.10:6080/console.html", HTTPS]
    assert list_base_urls(make_daemons(computes=()), HTTP) == [HTTP]

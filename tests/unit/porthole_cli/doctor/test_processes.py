# SPDX-License-Identifier: Apache-2.0
from datetime import timedelta
from typing import Any

import pytest

from porthole_cli.doctor.finding import Severity
from porthole_cli.doctor.processes import judge_clocks, judge_descriptors, judge_metrics, measure_offset
from support.clouds import described, ids, make_daemons
from support.descriptions import NOW, make_api, make_host, make_proxy, make_store, make_vitals


def skewed(host: str, seconds: float) -> Any:
    return make_vitals(host, now=NOW + timedelta(seconds=seconds))


def test_the_offset_is_from_the_middle_and_uncertain_by_half() -> None:
    later = NOW + timedelta(seconds=4)
    assert measure_offset(NOW + timedelta(seconds=12), NOW, later) == (10, 2)
    assert measure_offset(NOW - timedelta(seconds=8), NOW, later) == (-10, 2)


@pytest.mark.parametrize(
    ("seconds", "severity"),
    [
        (0, None),
        (1.9, None),
        (-2.05, None),
        (2.5, Severity.WARNING),
        (-30, Severity.WARNING),
        (61, Severity.ERROR),
        (-86400, Severity.ERROR),
    ],
)
def test_one_host_differs(seconds: float, severity: Severity | None) -> None:
    findings = judge_clocks(make_daemons(computes=[make_host(vitals=skewed("compute1", seconds))]))
    if severity is None:
        assert ids(findings) == ["clock.ok"]
        return
    assert ids(findings) == ["clock.skew"]
    assert (findings[0].severity, findings[0].host) == (severity, "compute1")
    assert ("ahead of" if seconds > 0 else "behind") in findings[0].problem


def test_the_doctors_own_clock_is_the_one_that_differs() -> None:
    found = make_daemons(
        apis=[make_api(vitals=skewed("controller", 100))],
        stores=[make_store(vitals=skewed("controller", 100))],
        proxies=[make_proxy(vitals=skewed("controller", 100))],
        computes=[make_host(vitals=skewed("compute1", 100)), make_host(vitals=skewed("compute2", 100))],
    )
    findings = judge_clocks(found)
    assert [each.host for each in findings] == ["(this host)"]
    assert "100 s behind" in findings[0].problem


def test_an_answer_that_took_long_says_little() -> None:
    found = make_daemons()
    slow = described("compute", make_host(vitals=skewed("compute1", 3)))
    found.computes = [type(slow)(slow.presence, slow.description, NOW, NOW + timedelta(seconds=4))]
    assert ids(judge_clocks(found)) == ["clock.ok"]


def test_nobody_was_heard() -> None:
    nobody = make_daemons(apis=(), computes=(), stores=(), proxies=())
    assert judge_clocks(nobody) == []
    assert judge_descriptors(nobody) == []
    assert judge_metrics(nobody) == []


@pytest.mark.parametrize(
    ("limit", "needed", "severity"),
    [
        (1000, 1000, None),
        (999, 1000, Severity.WARNING),
        (512, 20000, Severity.WARNING),
        (256, 20000, Severity.ERROR),
        (100, 200, Severity.ERROR),
    ],
)
def test_descriptors(limit: int, needed: int, severity: Severity | None) -> None:
    vitals = make_vitals(descriptor_limit=limit, descriptors_needed=needed)
    findings = judge_descriptors(make_daemons(proxies=[make_proxy(vitals=vitals)]))
    if severity is None:
        assert ids(findings) == ["descriptors.ok"]
        assert f"{limit} of novncproxy on controller" in findings[0].problem
        return
    assert ids(findings) == ["descriptors.low"]
    assert findings[0].severity is severity
    assert f"may open {limit} descriptors, and its own limits need {needed}" in findings[0].problem
    assert "max_sessions" in findings[0].mend


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", []),
        ("127.0.0.1", ["metrics.ok"]),
        ("::1", ["metrics.ok"]),
        ("localhost", ["metrics.ok"]),
        ("0.0.0.0", ["metrics.off_loopback"]),
        ("192.0.2.11", ["metrics.off_loopback"]),
        ("::", ["metrics.off_loopback"]),
        ("node1", ["metrics.off_loopback"]),
    ],
)
def test_metrics_off_loopback(address: str, expected: list[str]) -> None:
    found = make_daemons(computes=[make_host(vitals=make_vitals("compute1", metrics_host=address))])
    findings = judge_metrics(found)
    assert ids(findings) == expected
    if expected == ["metrics.off_loopback"]:
        assert (findings[0].severity, findings[0].host) == (Severity.WARNING, "compute1")
        assert f"porthole-compute serves its metrics at {address}:" in findings[0].problem
        assert "[metrics] bind_host" in findings[0].mend


def test_the_workers_of_a_proxy_are_one_finding() -> None:
    proxies = [make_proxy(vitals=make_vitals(pid=pid, metrics_host="0.0.0.0")) for pid in (1, 2)]
    assert ids(judge_metrics(make_daemons(proxies=proxies))) == ["metrics.off_loopback"]

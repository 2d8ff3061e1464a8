# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from porthole_cli.doctor.displays import MAX_DIALLED, choose_targets, judge_displays
from porthole_cli.doctor.facts import DialResult
from porthole_cli.doctor.finding import Severity
from porthole_common.diagnosis import Reach
from porthole_common.model import Target
from support.clouds import ids, make_daemons, reached
from support.descriptions import make_display, make_host, make_proxy, make_vitals

LOOPBACK = Target("127.0.0.1", 5900)
SAME_PLACE = make_vitals("controller", boot_id="boot-of-compute1")


def host_of(*displays: Any, **changes: Any) -> Any:
    return make_host(displays=displays, **changes)


def test_a_screen_in_order() -> None:
    findings = judge_displays(make_daemons(), [reached()])
    assert ids(findings) == ["vnc.ok"]
    assert findings[0].problem == "1 screen on 1 host; 1 dial was answered"


def test_a_number_is_said_once() -> None:
    found = make_daemons()
    assert judge_displays(found, [reached()] * 2)[0].problem == "1 screen on 1 host; all 2 dials were answered"
    assert judge_displays(found, [])[0].problem == "1 screen on 1 host; none was dialled"
    assert judge_displays(make_daemons(computes=[host_of()]), [])[0].problem == "no screens on 1 host"


def test_nothing_is_said_of_what_nobody_saw() -> None:
    assert judge_displays(make_daemons(computes=()), []) == []


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("refused", "The VNC server of vm1 (192.0.2.11:5900) on compute1 refuses the proxy on controller"),
        ("silent", "The proxy on controller gets no answer from the VNC server of vm1 (192.0.2.11:5900) on compute1"),
    ],
)
def test_a_screen_out_of_reach(problem: str, words: str) -> None:
    findings = judge_displays(make_daemons(), [reached(problem=problem)])
    assert ids(findings) == ["vnc.unreachable"]
    assert words in findings[0].problem


def test_security_that_does_not_meet_is_told_by_reason() -> None:
    others = [make_display(name=f"vm{n}", target=Target("192.0.2.11", 5900 + n)) for n in range(3)]
    found = make_daemons(computes=[host_of(*others)])
    reasons = ("its certificate is not accepted (expired)", "it offers no TLS", "it offers no TLS")
    reaches = [Reach(other.target, "security", (19,), reason) for other, reason in zip(others, reasons, strict=True)]
    findings = judge_displays(found, [DialResult("controller", "compute1", tuple(reaches))])
    assert ids(findings) == ["vnc.security"] * 2
    assert "vm0 (192.0.2.11:5900) on compute1" in findings[0].problem
    assert "vm1 (192.0.2.11:5901), vm2 (192.0.2.11:5902) on compute1" in findings[1].problem
    assert "it offers no TLS" in findings[1].problem


def test_a_guest_that_hides_behind_loopback_from_the_address_that_is_dialled() -> None:
    found = make_daemons(computes=[host_of(make_display("127.0.0.1"))])
    assert ids(judge_displays(found, [reached()])) == ["vnc.ok"]
    findings = judge_displays(found, [reached(problem="refused")])
    assert ids(findings) == ["vnc.listens_on_loopback"]
    assert "listens on 127.0.0.1, and the proxy on controller dials 192.0.2.11" in findings[0].problem


def test_a_proxy_elsewhere_and_a_screen_on_loopback() -> None:
    host = host_of(make_display("127.0.0.1", "127.0.0.1"), proxyclient_address="127.0.0.1")
    findings = judge_displays(make_daemons(computes=[host]), [DialResult("controller", "compute1", ())])
    assert ids(findings) == ["vnc.proxyclient_loopback"]
    assert (findings[0].severity, findings[0].host) == (Severity.ERROR, "compute1")


def test_a_proxy_in_the_same_place_may_dial_loopback() -> None:
    host = host_of(make_display("127.0.0.1", "127.0.0.1"), proxyclient_address="127.0.0.1")
    found = make_daemons(computes=[host], proxies=[make_proxy(vitals=SAME_PLACE)])
    assert ids(judge_displays(found, [reached(LOOPBACK)])) == ["vnc.ok"]


@pytest.mark.parametrize(("displays", "severity"), [((), Severity.ERROR), ((make_display(),), Severity.WARNING)])
def test_an_option_that_no_guest_needs_yet(displays: Any, severity: Severity) -> None:
    findings = judge_displays(make_daemons(computes=[host_of(*displays, proxyclient_address="::1")]), [reached()])
    assert ids(findings) == ["vnc.proxyclient_loopback"]
    assert findings[0].severity is severity


@pytest.mark.parametrize(
    ("listen", "types", "expected"),
    [
        ("0.0.0.0", (1,), "vnc.wildcard"),
        ("::", (2,), "vnc.wildcard"),
        (None, (1,), "vnc.wildcard"),
        # It lets in over TLS and without.
        ("0.0.0.0", (1, 19), "vnc.wildcard"),
        ("0.0.0.0", (19,), "vnc.ok"),
        ("0.0.0.0", (18, 19), "vnc.ok"),
        ("192.0.2.11", (1,), "vnc.ok"),
    ],
)
def test_a_screen_on_every_address(listen: str | None, types: tuple[int, ...], expected: str) -> None:
    found = make_daemons(computes=[host_of(make_display(listen))])
    assert ids(judge_displays(found, [reached(types=types)])) == [expected]


def test_a_wildcard_that_nobody_dialled_counts_as_without_tls() -> None:
    found = make_daemons(computes=[host_of(make_display("0.0.0.0"))])
    findings = judge_displays(found, [])
    assert ids(findings) == ["vnc.wildcard"]
    assert findings[0].severity is Severity.WARNING


@pytest.mark.parametrize(
    ("policy", "expected"),
    [(None, "vnc.ok"), ("force-shared", "vnc.ok"), ("ignore", "vnc.ok"), ("allow-exclusive", "vnc.exclusive")],
)
def test_the_share_policy(policy: str | None, expected: str) -> None:
    found = make_daemons(computes=[host_of(make_display(share_policy=policy))])
    assert ids(judge_displays(found, [reached()])) == [expected]


def test_many_screens_are_named_as_some() -> None:
    displays = [make_display(name=f"vm{n}", share_policy="allow-exclusive") for n in range(9)]
    findings = judge_displays(make_daemons(computes=[host_of(*displays)]), [])
    assert "vm2 (192.0.2.11:5900) and 6 more on compute1" in findings[0].problem


def test_only_a_proxy_in_the_same_place_is_asked_to_dial_loopback() -> None:
    host = host_of(make_display("127.0.0.1", "127.0.0.1"), make_display())
    assert choose_targets(host, make_proxy()) == [Target("192.0.2.11", 5900)]
    assert choose_targets(host, make_proxy(vitals=SAME_PLACE)) == [LOOPBACK, Target("192.0.2.11", 5900)]


def test_so_many_are_dialled_and_none_twice() -> None:
    displays = [make_display(target=Target("192.0.2.11", 5900 + n // 2)) for n in range(100)]
    targets = choose_targets(host_of(*displays), make_proxy())
    assert targets == [Target("192.0.2.11", 5900 + n) for n in range(MAX_DIALLED)]

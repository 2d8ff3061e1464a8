# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from porthole_cli.doctor import finding
from porthole_cli.doctor.finding import Finding, FindingId, Severity
from porthole_cli.doctor.report import (
    MAX_FINDINGS,
    MAX_HOST_CHARS,
    MAX_TEXT_CHARS,
    Report,
    format_json,
    format_text,
    parse_json,
)

FINE = finding.ok(FindingId.BROKER_OK, "it answers", "192.0.2.10:5672")
WARNING = finding.warning(FindingId.VNC_WILDCARD, "compute1", "It listens everywhere.", "Have it listen elsewhere.")
ERROR = finding.error(FindingId.COMPUTE_NONE, "", "No compute.", "Start one: systemctl start porthole-compute")


def build(*findings: Finding, not_examined: tuple[str, ...] = ()) -> Report:
    return Report(findings, not_examined, 1.23)


@pytest.mark.parametrize(
    ("findings", "severity", "status"),
    [
        ((), Severity.OK, 0),
        ((FINE,), Severity.OK, 0),
        ((WARNING, FINE), Severity.WARNING, 1),
        ((WARNING, ERROR, FINE), Severity.ERROR, 2),
    ],
)
def test_the_exit_status_is_that_of_the_worst(findings: tuple[Finding, ...], severity: Severity, status: int) -> None:
    assert (build(*findings).severity, build(*findings).exit_status) == (severity, status)


def test_json_has_every_finding_whole() -> None:
    document = json.loads(format_json(build(WARNING, FINE, not_examined=("clocks",))))
    assert document == {
        "severity": "warning",
        "findings": [
            {
                "id": "vnc.wildcard",
                "severity": "warning",
                "host": "compute1",
                "problem": "It listens everywhere.",
                "mend": "Have it listen elsewhere.",
            },
            {"id": "broker.ok", "severity": "ok", "host": "192.0.2.10:5672", "problem": "it answers", "mend": ""},
        ],
        "not_examined": ["clocks"],
        "seconds": 1.2,
    }


def test_the_text_begins_with_the_worst_and_ends_with_what_is_in_order() -> None:
    assert format_text(build(FINE, WARNING, ERROR, not_examined=("clocks",)), 80, colours=False) == (
        "porthole doctor: 1 error, 1 warning, 1 in order (1.2 s)\n"
        "\n"
        "ERROR    compute.none\n"
        "         No compute.\n"
        "         Mend: Start one: systemctl start porthole-compute\n"
        "\n"
        "WARNING  vnc.wildcard  (compute1)\n"
        "         It listens everywhere.\n"
        "         Mend: Have it listen elsewhere.\n"
        "\n"
        "Not examined, because of the above: clocks.\n"
        "\n"
        "In order:\n"
        "  broker  192.0.2.10:5672: it answers\n"
    )


@pytest.mark.parametrize("width", [1, 40, 80, 500])
def test_lines_fit_the_terminal_and_a_command_is_not_broken_at_a_hyphen(width: int) -> None:
    text = "the certificate of the porthole-novncproxy is a long story, " * 10
    shown = format_text(build(finding.error(FindingId.BROKER_TLS, "", text, text)), width, colours=False)
    assert max(map(len, shown.splitlines())) <= min(max(width, 40), 110)
    assert "porthole-\n" not in shown


def test_colours_are_for_terminals_alone() -> None:
    assert "\x1b" not in format_text(build(ERROR), 80, colours=False)
    assert "\x1b[1;31mERROR  \x1b[0m  compute.none" in format_text(build(ERROR), 80, colours=True)


def test_a_report_of_another_process_is_read_and_its_texts_are_cut() -> None:
    report = build(WARNING, FINE, not_examined=("clocks",))
    assert parse_json(format_json(report)) == Report(report.findings, report.not_examined, 1.2)
    [cut] = parse_json(format_json(build(finding.error(FindingId.VNC_OK, "h" * 10**6, "p" * 10**6, "m")))).findings
    assert (len(cut.host), len(cut.problem), cut.mend) == (MAX_HOST_CHARS + 3, MAX_TEXT_CHARS + 3, "m")


def test_what_is_not_a_report_is_refused() -> None:
    good = json.loads(format_json(build(WARNING)))
    for bad in (
        {**good, "findings": good["findings"] * (MAX_FINDINGS + 1)},
        {**good, "not_examined": ["x"] * MAX_FINDINGS},
        {**good, "not_examined": "clocks"},
        {**good, "findings": {"id": "x"}},
        {**good, "findings": ["x"]},
        {**good, "findings": [{**good["findings"][0], "id": []}]},
        {**good, "seconds": float("nan")},
        {**good, "seconds": float("inf")},
        {**good, "seconds": 10**400},
        {**good, "seconds": None},
        [],
        None,
    ):
        with pytest.raises(ValueError, match=r"."):
            parse_json(json.dumps(bad))
    for text in ("", "{", "[" * 100_000, "{}"):
        with pytest.raises(ValueError, match=r"."):
            parse_json(text)

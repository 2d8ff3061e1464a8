# SPDX-License-Identifier: Apache-2.0
"""What the operator sees: text for a terminal, or JSON for a program; and the exit status.

Why not cliff's table: a sentence and a command do not fit into a column. Errors come first, then warnings; each thing
that is in order is one line at the end. Pure; called by :mod:`command`.
"""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from porthole_cli.doctor.finding import Finding, FindingId, Severity

# The convention of monitoring plugins: 0 fine, 1 warnings, 2 errors.
EXIT_STATUS = {Severity.OK: 0, Severity.WARNING: 1, Severity.ERROR: 2}
MAX_WIDTH = 110
# Limits of a report from another process; they guard the doctor's memory, and a standalone's report is far smaller.
MAX_FINDINGS = 500
MAX_TEXT_CHARS = 2000
MAX_HOST_CHARS = 255
_INDENT = " " * 9
_COLOURS = {Severity.ERROR: "\x1b[1;31m", Severity.WARNING: "\x1b[1;33m"}
_PLAIN = "\x1b[0m"


@dataclass(frozen=True)
class Report:
    """The findings in the order they were made, what could not be examined because of them, and how long it took."""

    findings: tuple[Finding, ...]
    not_examined: tuple[str, ...]
    seconds: float

    @property
    def severity(self) -> Severity:
        """The worst of the findings."""
        return max((finding.severity for finding in self.findings), key=list(Severity).index, default=Severity.OK)

    @property
    def exit_status(self) -> int:
        """0 when all is well, 1 when there are warnings, 2 when there are errors."""
        return EXIT_STATUS[self.severity]

    def count(self, severity: Severity) -> int:
        """Return how many findings have that severity."""
        return sum(finding.severity is severity for finding in self.findings)


def format_json(report: Report) -> str:
    """Return ``{severity, findings: [{id, severity, host, problem, mend}], not_examined: [text], seconds}``."""
    document: dict[str, Any] = {
        "severity": report.severity,
        "findings": [asdict(finding) for finding in report.findings],
        "not_examined": list(report.not_examined),
        "seconds": round(report.seconds, 1),
    }
    return json.dumps(document, indent=2) + "\n"


def parse_json(text: str) -> Report:
    """Return the report that :func:`format_json` wrote, perhaps in another process; its texts pass :func:`show`.

    :raises ValueError: when ``text`` is not a report.
    """
    try:
        document = json.loads(text)
        findings, gaps, seconds = document["findings"], document["not_examined"], float(document["seconds"])
        if not (isinstance(findings, list) and isinstance(gaps, list) and len(findings) + len(gaps) <= MAX_FINDINGS):
            raise ValueError("no report, or too many findings")
        if not math.isfinite(seconds):
            raise ValueError("no time")
        return Report(tuple(map(_parse_finding, findings)), tuple(map(show, gaps)), seconds)
    except (KeyError, TypeError, OverflowError, RecursionError) as exc:
        raise ValueError("no report") from exc


def _parse_finding(value: Mapping[str, Any]) -> Finding:
    return Finding(
        FindingId(value["id"]),
        Severity(value["severity"]),
        show(value["host"], MAX_HOST_CHARS),
        show(value["problem"]),
        show(value["mend"]),
    )


def show(text: object, max_chars: int = MAX_TEXT_CHARS) -> str:
    """Return at most ``max_chars`` of ``text``, with "..." if it was longer, for a terminal.

    A character that is not printable, such as an escape, becomes a question mark.
    """
    shown = str(text)
    shown = shown if len(shown) <= max_chars else shown[:max_chars] + "..."
    return "".join(char if char.isprintable() else "?" for char in shown)


def format_text(report: Report, width: int, colours: bool) -> str:
    """Return the report for a terminal of ``width`` columns."""
    width = min(max(width, 40), MAX_WIDTH)
    blocks = [_format_summary(report)]
    for severity in (Severity.ERROR, Severity.WARNING):
        chosen = [finding for finding in report.findings if finding.severity is severity]
        blocks += [_format_trouble(finding, width, colours) for finding in chosen]
    if report.not_examined:
        text = f"Not examined, because of the above: {', '.join(report.not_examined)}."
        blocks.append(textwrap.fill(text, width))
    fine = [finding for finding in report.findings if finding.severity is Severity.OK]
    if fine:
        blocks.append(_format_fine(fine, width))
    return "\n\n".join(blocks) + "\n"


def _format_summary(report: Report) -> str:
    errors, warnings, fine = (report.count(each) for each in (Severity.ERROR, Severity.WARNING, Severity.OK))
    counts = [_plural(errors, "error")] if errors else []
    counts += [_plural(warnings, "warning")] if warnings else []
    counts += [f"{fine} in order"] if fine else []
    return f"porthole doctor: {', '.join(counts)} ({report.seconds:.1f} s)"


def _format_trouble(finding: Finding, width: int, colours: bool) -> str:
    label = f"{finding.severity.upper():7}"
    if colours:
        label = f"{_COLOURS[finding.severity]}{label}{_PLAIN}"
    head = f"{label}  {finding.id}" + (f"  ({finding.host})" if finding.host else "")
    return "\n".join([head, *_wrap(finding.problem, width, _INDENT), *_wrap(f"Mend: {finding.mend}", width, _INDENT)])


def _format_fine(findings: Sequence[Finding], width: int) -> str:
    lines = ["In order:"]
    subjects = [finding.id.partition(".")[0] for finding in findings]
    margin = max(map(len, subjects)) + 4
    for subject, finding in zip(subjects, findings, strict=True):
        text = f"{finding.host}: {finding.problem}" if finding.host else finding.problem
        wrapped = _wrap(text, width, " " * margin)
        lines += [f"  {subject}".ljust(margin) + wrapped[0].lstrip(), *wrapped[1:]]
    return "\n".join(lines)


def _wrap(text: str, width: int, indent: str) -> list[str]:
    # A command or an address stays whole, so that it can be copied.
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"

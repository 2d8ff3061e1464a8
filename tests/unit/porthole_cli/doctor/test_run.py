# SPDX-License-Identifier: Apache-2.0
"""The deadline of an examination, and the report of one that hangs or fails."""

import threading
from collections.abc import Sequence

from oslo_config import cfg

from porthole_cli.doctor import finding
from porthole_cli.doctor.examination import Examination
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_cli.doctor.run import examine
from support.clouds import ids

WELL = finding.ok(FindingId.CONFIG_OK, "fine")


class Scripted(Examination):
    """Finds one thing in order, and then hangs until ``released`` or raises ``failure``."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__(cfg.ConfigOpts())
        self.failure = failure
        self.released = threading.Event()
        self.done = threading.Event()

    def run(self, files: Sequence[str]) -> None:
        self.findings.append(WELL)
        self.stage = f"the file {files[0]}"
        if self.failure is not None:
            raise self.failure
        self.released.wait(30)
        self.findings.append(WELL)
        self.done.set()


def find_trouble(findings: Sequence[Finding]) -> str:
    return next(each.problem for each in findings if each is not WELL)


def test_an_examination_that_hangs_is_given_up_and_its_stage_named() -> None:
    examination = Scripted()
    report = examine(examination, ["x"], budget_s=0.1)
    examination.released.set()
    assert examination.done.wait(30)
    # What a late thread finds is not in the report any more.
    assert ids(report.findings) == ["config.ok", "doctor.deadline"]
    assert "during the file x" in find_trouble(report.findings)
    assert report.not_examined == ("the stages after that",)


def test_a_doctor_that_fails_is_a_finding_without_the_error_text() -> None:
    report = examine(Scripted(KeyError("secret")), ["x"])
    assert ids(report.findings) == ["config.ok", "doctor.failed"]
    assert find_trouble(report.findings).endswith("during the file x: KeyError.")
    assert "secret" not in repr(report)

# SPDX-License-Identifier: Apache-2.0
"""Runs an examination under one deadline, and makes the report.

Why a thread: an operator gets an answer in half a minute, whatever hangs. An examination that takes too long is left
behind, and the report holds what was found until then. A fault of the doctor itself is a finding, and hides no other.
Called by :mod:`choice`, and by :mod:`porthole_cli.doctor_socket` inside a standalone.
"""

import functools
import threading
import time
from collections.abc import Callable, Sequence

from oslo_config import cfg

from porthole_cli.doctor import finding
from porthole_cli.doctor.bus import Bus
from porthole_cli.doctor.examination import BUDGET_S, Examination, Ports
from porthole_cli.doctor.finding import FindingId
from porthole_cli.doctor.report import Report
from porthole_common.log import get_logger

LOG = get_logger(__name__)


def examine_files(files: Sequence[str]) -> tuple[Report, Callable[[], None]]:
    """Examine the daemons that ``files`` describe, or without any the files that the daemons would read.

    Return the report, and the function to call after the report is shown: it leaves the broker.
    """
    # oslo.messaging registers its tracing options on the global configuration only.
    examination = Examination(cfg.CONF)
    return examine(examination, files), examination.close


def build_standalone(conf: cfg.ConfigOpts, bus: Bus) -> Examination:
    """Return the examination of a ``porthole standalone`` by itself: ``bus`` is within its process."""
    return Examination(conf, Ports(make_bus=lambda _conf: bus), is_standalone=True)


def examine_standalone(examination: Examination, budget_s: float = BUDGET_S) -> Report:
    """Run an examination from :func:`build_standalone`, as :func:`examine` does."""
    return _examine(examination, examination.run_standalone, budget_s)


def examine(examination: Examination, files: Sequence[str], budget_s: float = BUDGET_S) -> Report:
    """Run ``examination`` on ``files`` for at most ``budget_s``, and return what it has found until then."""
    return _examine(examination, functools.partial(examination.run, files), budget_s)


def _examine(examination: Examination, work: Callable[[], None], budget_s: float) -> Report:
    started = time.monotonic()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except Exception as exc:
            LOG.exception("Examination failed")
            failure.append(exc)

    thread = threading.Thread(target=run, name="examination", daemon=True)
    thread.start()
    thread.join(budget_s)
    # Copies: a thread that is late must not change what is printed.
    findings, gaps = list(examination.findings), list(examination.not_examined)
    if thread.is_alive():
        problem = f"The examination was given up after {budget_s:g} s, during {examination.stage}."
        mend = "Mend the other findings and run it again; porthole --debug doctor shows what it waits for."
        findings.append(finding.error(FindingId.DOCTOR_DEADLINE, "", problem, mend))
        gaps.append("the stages after that")
    elif failure:
        problem = f"The doctor itself failed, during {examination.stage}: {type(failure[0]).__name__}."
        mend = "Run porthole --debug doctor and report its output; the other findings are valid all the same."
        findings.append(finding.error(FindingId.DOCTOR_FAILED, "", problem, mend))
        gaps.append("the stages after that")
    return Report(tuple(findings), tuple(gaps), time.monotonic() - started)

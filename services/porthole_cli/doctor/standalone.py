# SPDX-License-Identifier: Apache-2.0
"""``porthole standalone`` as findings: the doctor asks each one for its report, and adds what it sees from outside.

Why the doctor itself asks the API over HTTP: only that shows that other processes get an answer there. The standalone
reports everything else about itself (:mod:`porthole_cli.doctor_socket`). The sockets are :mod:`standalone_port`'s.
Called by :mod:`choice`.
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import replace

from porthole_cli.doctor import finding, report
from porthole_cli.doctor import standalone_port as port
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_cli.doctor.parallel import gather
from porthole_cli.doctor.report import Report
from porthole_cli.doctor.standalone_port import Standalone
from porthole_cli.invocation import find_command

# The examination's own budget (porthole_cli.doctor.run), and a moment for the answer.
REPORT_TIMEOUT_S = 28.0


def examine_standalones(standalones: Sequence[Standalone]) -> Report:
    """Ask each of ``standalones`` for its report, all at once, and return one report of all."""
    started = time.monotonic()
    questions = [functools.partial(examine_standalone, each) for each in standalones]
    # Each question keeps its own deadline; this one guards against a fault of that deadline.
    answers = gather(questions, REPORT_TIMEOUT_S + 1.0)
    findings: list[Finding] = []
    gaps: list[str] = []
    for standalone, answer in zip(standalones, answers, strict=True):
        found = answer if isinstance(answer, Report) else _build_failed(build_silent(standalone))
        if len(standalones) == 1 or standalone.foreign:
            findings += found.findings
            gaps += found.not_examined
        else:
            where = f"process {standalone.pid}"
            # The findings about the standalone itself name its process already.
            findings += [
                each if each.id.startswith("standalone.") else replace(each, host=where) for each in found.findings
            ]
            gaps += [f"{gap} of {where}" for gap in found.not_examined]
    return Report(tuple(findings), tuple(gaps), time.monotonic() - started)


def examine_standalone(standalone: Standalone) -> Report:
    """Return what is wrong with one standalone, and what is in order; raises nothing, whatever the standalone sends."""
    deadline = time.monotonic() + REPORT_TIMEOUT_S
    if standalone.refused:
        return _build_failed(_build_other_user(standalone))
    if standalone.invalid:
        return _build_failed(_build_invalid(standalone))
    if standalone.greeting is None:
        return _build_failed(build_silent(standalone))
    greeting = standalone.greeting
    owner = f" of the user {standalone.user}" if standalone.foreign else ""
    text = f"process {standalone.pid}{owner}, with the API at {greeting.endpoint} and the pages at "
    known = [finding.ok(FindingId.STANDALONE_OK, text + greeting.novncproxy_base_url), _examine_api(greeting.endpoint)]
    try:
        inner = report.parse_json(port.fetch_report(standalone, deadline))
    except (OSError, ValueError) as exc:
        build = _build_invalid if isinstance(exc, ValueError) else build_silent
        trouble = build(standalone) if port.is_listening(standalone) else _build_ended(standalone)
        return _build_failed(*known, trouble)
    if standalone.foreign:
        inner = _attribute(inner, f"said by process {standalone.pid} of the user {standalone.user}")
    return Report((*known, *inner.findings), inner.not_examined, inner.seconds)


def build_silent(standalone: Standalone) -> Finding:
    """Return the finding of a standalone that does not answer."""
    pid = standalone.pid
    problem = f"porthole standalone (process {pid}) does not answer the doctor."
    mend = f"If it was stopped (Ctrl-Z), let it go on: kill -CONT {pid}. Else end it (kill {pid}) and start it again."
    return finding.error(FindingId.STANDALONE_MUTE, "", problem, mend)


def build_not_found(pid: int | None) -> Finding:
    """Return the finding that no standalone runs here, or none with process id ``pid``."""
    problem = "No porthole standalone runs on this machine" + (f" as process {pid}." if pid else ".")
    mend = "Start it, in a terminal of its own: porthole standalone"
    return finding.error(FindingId.STANDALONE_NONE, "", problem, mend)


def build_beside(standalones: Sequence[Standalone]) -> Finding:
    """Return the finding that standalones run beside the daemons, and that only the daemons were examined."""
    pids = ", ".join(str(each.pid) for each in standalones)
    text = f"one runs beside the daemons (process {pids}); porthole doctor --standalone examines it"
    return finding.ok(FindingId.STANDALONE_OK, text)


def _build_failed(*findings: Finding) -> Report:
    """Return the report of a standalone that gave no report of its own."""
    return Report(findings, ("everything else",), 0.0)


def _attribute(inner: Report, source: str) -> Report:
    """Return the same report with its ``source`` in each finding, since the advice in it comes from another user."""
    findings = tuple(replace(each, host=source) for each in inner.findings)
    return Report(findings, tuple(f"{gap} ({source})" for gap in inner.not_examined), inner.seconds)


def _build_invalid(standalone: Standalone) -> Finding:
    """Return the finding of a process that does not answer as a standalone would."""
    pid = standalone.pid
    problem = f"Process {pid} of the user {standalone.user} has a standalone's socket and sends something else there."
    mend = (
        f"See what it is: ps -o user,lstart,args -p {pid}. If it is a porthole standalone, its version may differ from "
        "the version of this command: end it by Ctrl-C and start it again."
    )
    return finding.error(FindingId.STANDALONE_INVALID, "", problem, mend)


def _build_ended(standalone: Standalone) -> Finding:
    problem = f"porthole standalone (process {standalone.pid}) ended during the examination."
    mend = "Read its last output in its terminal, and start it again: porthole standalone"
    return finding.error(FindingId.STANDALONE_NONE, "", problem, mend)


def _build_other_user(standalone: Standalone) -> Finding:
    if standalone.peer.uid < 0:
        problem = f"An unknown process holds the socket {standalone.name}, and accepts no connections."
        return finding.warning(FindingId.STANDALONE_OTHER_USER, "", problem, "As root, find the process: ss -xlp")
    user = standalone.user
    where = f"A porthole standalone of the user {user} runs here (process {standalone.pid})"
    problem = f"{where}. {'Only root' if user == 'root' else f'Only {user} and root'} may ask it."
    mend = f"Run the doctor as that user: sudo -u {user} {find_command(everywhere=True)} doctor"
    if standalone.peer.pid:
        mend += f" (or as root: {find_command(everywhere=True)} doctor --standalone {standalone.pid})"
    return finding.warning(FindingId.STANDALONE_OTHER_USER, "", problem, mend)


def _examine_api(endpoint: str) -> Finding:
    """Ask for the version document, which every client asks for first."""
    host, port_number = port.parse_endpoint(endpoint)
    try:
        status = port.fetch_status(host, port_number)
        problem = "" if status == 200 else f"HTTP {status}"
    except (OSError, ValueError) as exc:
        problem = "no answer in time" if isinstance(exc, TimeoutError) else str(exc)
    if not problem:
        return finding.ok(FindingId.API_OK, f"{endpoint} answers")
    mend = "Read the output of porthole standalone in its terminal; end it by Ctrl-C and start it again."
    problem = f"The API at {endpoint} gives no version document: {problem}."
    return finding.error(FindingId.API_UNREACHABLE, "", problem, mend)

# SPDX-License-Identifier: Apache-2.0
"""What ``porthole doctor`` examines: the daemons of this host's configuration, or a ``porthole standalone``.

Why the configuration comes first: a host with ``/etc/porthole`` has daemons, and an operator on call wants to know
about them. A forgotten standalone must not hide that they are down. A host without a configuration has no daemons to
examine, so the user means a standalone. Called by :mod:`command`.
"""

import os
from collections.abc import Callable, Sequence

from porthole_cli.doctor import config, run, standalone
from porthole_cli.doctor.report import Report
from porthole_cli.doctor.standalone_port import Standalone, find_standalones

Close = Callable[[], None]


def examine(files: Sequence[str], pid: int | None) -> tuple[Report, Close]:
    """Return the report, and the function to call after the report is shown.

    ``files`` are those of ``--config-file``. ``pid`` is ``--standalone``'s: None when it was not given, 0 for any.
    """
    if files:
        return run.examine_files(files)
    # A standalone of another user answers only root.
    running = find_standalones(pid if pid and os.geteuid() == 0 else 0)
    if pid is not None:
        return _examine_chosen(running, pid), _do_nothing
    if not running:
        return run.examine_files(files)
    if config.has_default_files():
        report, close = run.examine_files(files)
        findings = (*report.findings, standalone.build_beside(running))
        return Report(findings, report.not_examined, report.seconds), close
    # Those of other users are named only when this user has none.
    own = [each for each in running if not each.refused]
    return standalone.examine_standalones(own or running), _do_nothing


def _examine_chosen(running: Sequence[Standalone], pid: int) -> Report:
    chosen = [each for each in running if pid in {0, each.pid}]
    if not chosen:
        return Report((standalone.build_not_found(pid),), (), 0.0)
    return standalone.examine_standalones(chosen)


def _do_nothing() -> None:
    return

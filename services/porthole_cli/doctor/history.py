# SPDX-License-Identifier: Apache-2.0
"""The history of consoles, as each consoleauth sees its database, and each process its spool. Pure.

Why warnings: no console waits for the history.
"""

from porthole_cli.doctor import finding
from porthole_cli.doctor.facts import Daemons
from porthole_cli.doctor.finding import Finding, FindingId
from porthole_common.diagnosis import HistoryState

_SPOOL_FILLS = 0.5
_IDS = {
    HistoryState.SCHEMA: FindingId.HISTORY_SCHEMA,
    HistoryState.NOT_SHARED: FindingId.HISTORY_NOT_SHARED,
    HistoryState.AWAY: FindingId.HISTORY_UNREACHABLE,
}
_MENDS = {
    HistoryState.SCHEMA: "Bring every consoleauth to one release. Then, as the user porthole on one of their hosts: "
    "porthole-manage db sync.",
    HistoryState.NOT_SHARED: "Set [database] connection of every consoleauth to one PostgreSQL or MariaDB, run "
    "porthole-manage db sync, and restart them; or set [history] enabled to false.",
    HistoryState.AWAY: "Check that the database runs, that this host reaches it, and user and password in [database] "
    "connection: porthole-manage db version.",
}


def judge_history(daemons: Daemons) -> list[Finding]:
    """Return what keeps events from the history; one finding in order when a consoleauth keeps one and all is well."""
    findings, keepers = [], []
    for store in daemons.stores:
        host, state = store.presence.host, store.description.history
        if state in _IDS:
            problem = f"consoleauth on {host} keeps no history of consoles: {store.description.history_reason}."
            state = HistoryState(state)
            findings.append(finding.warning(_IDS[state], host, problem, _MENDS[state]))
        elif state == HistoryState.OK:
            keepers.append(host)
    fills = [(each.presence, each.description.spool_fill) for each in daemons.stores]
    fills += [(each.presence, each.description.spool_fill) for each in daemons.proxies]
    for presence, fill in fills:
        if fill >= _SPOOL_FILLS:
            problem = f"The spool of {presence.daemon} {presence.server} is {fill:.0%} full: events are not stored."
            mend = "Mend the database of the history: porthole-manage db version says why. A full spool loses events."
            findings.append(finding.warning(FindingId.HISTORY_SPOOL_FILLS, presence.host, problem, mend))
    if findings or not keepers:
        return findings
    return [finding.ok(FindingId.HISTORY_OK, f"the history is kept by consoleauth on {', '.join(sorted(keepers))}")]

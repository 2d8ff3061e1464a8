# SPDX-License-Identifier: Apache-2.0
"""What to do about a finding when all four services are one ``porthole standalone``.

Why: the judges advise to restart a unit or to edit an option on compute nodes, and a standalone has no unit and no
other node. Some problems and most remedies are reworded here. Pure; called by :mod:`examination`.
"""

from collections.abc import Iterable
from dataclasses import replace

from porthole_cli.doctor.finding import Finding, FindingId, Severity

_AGAIN = "End porthole standalone by Ctrl-C and start it again"
_PART = f"{_AGAIN}. If that does not help, start it with: porthole --debug standalone"
_URL = f"Correct [vnc] novncproxy_base_url in the file that porthole standalone was given. {_AGAIN}."
_CERTIFICATE = f"Renew it where [DEFAULT] cert points, in the file that porthole standalone was given. {_AGAIN}."
# The problem of each service that is a part of this process.
_SILENT = "A part of porthole standalone does not answer the others, so consoles do not open. One of its threads hangs."
_PROBLEMS = {
    FindingId.DAEMONS_UNHEARD: _SILENT,
    FindingId.DAEMONS_MUTE: _SILENT,
    FindingId.API_NONE: _SILENT,
    FindingId.COMPUTE_NONE: _SILENT,
    FindingId.COMPUTE_LOST: _SILENT,
    FindingId.CONSOLEAUTH_NONE: _SILENT,
    FindingId.NOVNCPROXY_NONE: _SILENT,
}
_HISTORY = (
    FindingId.HISTORY_SCHEMA,
    FindingId.HISTORY_NOT_SHARED,
    FindingId.HISTORY_UNREACHABLE,
    FindingId.HISTORY_SPOOL_FILLS,
)
_MENDS = dict.fromkeys(_PROBLEMS, _PART) | {
    **dict.fromkeys(
        _HISTORY, f"Correct [database] connection in the file that porthole standalone was given. {_AGAIN}."
    ),
    FindingId.LIBVIRT_UNREACHABLE: (
        "Start libvirt (systemctl start libvirtd), or become a member of the group libvirt: virsh -c URI list, as the "
        "same user, must answer. Another hypervisor: porthole standalone --libvirt-uri URI. The static driver needs "
        "the file of --instances-file."
    ),
    FindingId.URL_UNREACHABLE: _URL,
    FindingId.URL_NO_PAGE: _URL,
    FindingId.URL_ORIGIN: _URL,
    FindingId.URL_UPGRADE: _PART,
    FindingId.URL_HTTPS_WITHOUT_CERTIFICATE: _URL,
    FindingId.URL_HTTP_WITH_CERTIFICATE: _URL,
    FindingId.CERTIFICATE_EXPIRED: _CERTIFICATE,
    FindingId.CERTIFICATE_EXPIRES_SOON: _CERTIFICATE,
    FindingId.CERTIFICATE_NOT_YET_VALID: _CERTIFICATE,
    FindingId.NOVNC_MISSING: f"apt-get install novnc. {_AGAIN}.",
    FindingId.NOVNC_OLD: f"Install a newer noVNC and name its folder in [DEFAULT] web of a --config-file. {_AGAIN}.",
    FindingId.TOKEN_FAILED: _PART,
    FindingId.TOKEN_NOT_REVOKED: _PART,
    FindingId.DESCRIPTORS_LOW: f"Raise the limit in the same shell: ulimit -n 20000. {_AGAIN}.",
}


def adapt(findings: Iterable[Finding]) -> list[Finding]:
    """Return ``findings`` in words for a standalone; a finding that is in order stays as it is."""
    adapted = []
    for finding in findings:
        if finding.id is FindingId.DESCRIPTORS_LOW and finding.severity is Severity.WARNING:
            # The limit of every shell is too low for 9500 consoles, and the users of one host open only a few.
            continue
        if finding.severity is Severity.OK:
            adapted.append(finding)
            continue
        problem = _PROBLEMS.get(finding.id, finding.problem)
        adapted.append(replace(finding, problem=problem, mend=_MENDS.get(finding.id, finding.mend)))
    # Several findings about daemons become the same one here.
    return list(dict.fromkeys(adapted))

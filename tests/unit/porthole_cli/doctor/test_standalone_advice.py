# SPDX-License-Identifier: Apache-2.0
import re

from porthole_cli.doctor import finding
from porthole_cli.doctor.finding import Finding, FindingId, Severity
from porthole_cli.doctor.standalone_advice import adapt

# What only daemons, their files, their broker and their hosts can have, and what the doctor says of itself.
NOT_HERE = ("config.", "instances.", "broker.", "memcached.", "clock.", "metrics.", "standalone.", "doctor.")
HERE = [each for each in FindingId if not each.endswith(".ok") and not each.startswith(NOT_HERE)]
UNITS = re.compile(r"systemctl \w+ porthole|journalctl|restart porthole-|compute node")


def test_nobody_is_told_to_restart_a_unit_that_is_not_there() -> None:
    # These advise on the guest, its host or the certificate's names, and hold for a standalone as they are.
    same = {"vnc.", "certificate.name", "certificate.untrusted", "api.unreachable"}
    same |= {"daemons.duplicate", "daemons.versions", "certificate.unreadable", "libvirt.guest_held"}
    for finding_id in HERE:
        if finding_id.startswith(tuple(same)):
            continue
        given = finding.error(finding_id, "host", "x", "systemctl restart porthole-compute; journalctl")
        [adapted] = adapt([given])
        assert not UNITS.search(adapted.mend), finding_id
        assert adapted.severity is Severity.ERROR


def test_what_is_in_order_stays() -> None:
    fine = [finding.ok(FindingId.DAEMONS_OK, "x"), finding.ok(FindingId.LIBVIRT_OK, "y")]
    assert adapt(fine) == fine


def test_a_part_that_hangs_is_one_finding() -> None:
    silent = [
        finding.error(each, "", f"{each} is broken", "x") for each in (FindingId.API_NONE, FindingId.DAEMONS_UNHEARD)
    ]
    adapted = adapt([*silent, silent[1]])
    assert [each.id for each in adapted] == [FindingId.API_NONE, FindingId.DAEMONS_UNHEARD]
    assert "--debug standalone" in adapted[0].mend


def test_the_limit_of_a_shell_is_no_trouble_and_a_tiny_one_is() -> None:
    few = Finding(FindingId.DESCRIPTORS_LOW, Severity.WARNING, "host", "x", "y")
    tiny = Finding(FindingId.DESCRIPTORS_LOW, Severity.ERROR, "host", "x", "y")
    assert adapt([few]) == []
    assert "ulimit -n" in adapt([tiny])[0].mend

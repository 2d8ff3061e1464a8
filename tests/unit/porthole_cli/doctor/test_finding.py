# SPDX-License-Identifier: Apache-2.0
"""The ids are a contract with monitoring, and each is explained in the documentation."""

import re
from pathlib import Path

from porthole_cli.doctor.finding import FindingId

PAGE = Path(__file__).parents[4] / "doc" / "source" / "troubleshooting.rst"
OWN = Path(__file__).parents[4] / "services" / "porthole_cli" / "doctor"


def test_every_id_has_its_entry_in_the_documentation_and_no_other_has() -> None:
    explained = re.findall(r"^``([a-z]+\.[a-z_]+)``$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(explained) == len(set(explained))
    # What is in order needs no mending; the page says so once, of all.
    assert set(explained) == {str(each) for each in FindingId if not each.endswith(".ok")}


def test_every_id_is_found_somewhere() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in OWN.glob("*.py") if path.name != "finding.py")
    assert [each.name for each in FindingId if f"FindingId.{each.name}" not in code] == []

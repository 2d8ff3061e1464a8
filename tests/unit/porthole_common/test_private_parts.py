# SPDX-License-Identifier: Apache-2.0
from importlib import metadata

import pytest

from porthole_common.private_parts import forget_reports, report_missing


def test_a_missing_part_is_reported_once_with_library_and_version(caplog: pytest.LogCaptureFixture) -> None:
    forget_reports()
    for _ in range(2):
        report_missing("kombu", "Connection.x", "Nothing works.")
        report_missing("no-such-library", "x", "Nothing works.")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert f"library=kombu version={metadata.version('kombu')} part=Connection.x" in lines[0]
    assert 'effect="Nothing works." mend="' in lines[0]
    assert "library=no-such-library version=unknown" in lines[1]
    forget_reports()

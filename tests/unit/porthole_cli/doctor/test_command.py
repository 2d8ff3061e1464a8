# SPDX-License-Identifier: Apache-2.0
"""The command line of the doctor: what it prints and exits with when the doctor itself fails."""

import argparse
import io
import logging
from types import SimpleNamespace

import pytest

from porthole_cli.doctor.command import EXIT_FAILED, Doctor
from porthole_cli.doctor.report import EXIT_STATUS

NO_SUCH_PID = 2**22 + 1


class Output(io.StringIO):
    """A standard output that cannot be written to."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failure = failure

    def write(self, text: str) -> int:
        raise self.failure


def run(stdout: io.StringIO, output_format: str = "table") -> tuple[int, str]:
    """Return the exit status and what was written on standard error."""
    stderr = io.StringIO()
    app = SimpleNamespace(options=SimpleNamespace(debug=True), stdout=stdout, stderr=stderr)
    arguments = argparse.Namespace(config_file=[], standalone=NO_SUCH_PID, format=output_format)
    return Doctor(app, None).take_action(arguments), stderr.getvalue()


def test_a_report_is_printed_and_its_status_returned() -> None:
    for output_format, expected in (("table", "ERROR    standalone.none"), ("json", '"id": "standalone.none"')):
        stdout = io.StringIO()
        assert run(stdout, output_format) == (2, "")
        assert expected in stdout.getvalue()


def test_a_doctor_that_fails_says_so_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert EXIT_FAILED not in EXIT_STATUS.values()
    caplog.set_level(logging.DEBUG)
    for failure, expected in (
        (OSError(28, "No space left on device"), "porthole doctor failed: No space left on device.\n"),
        (
            ValueError("secret\nwords"),
            "porthole doctor failed: ValueError. porthole --debug doctor shows where; please report that.\n",
        ),
    ):
        caplog.clear()
        assert run(Output(failure)) == (EXIT_FAILED, expected)
        assert "Traceback" in caplog.text


def test_a_reader_that_leaves_is_no_failure() -> None:
    with pytest.raises(BrokenPipeError):
        run(Output(BrokenPipeError()))

# SPDX-License-Identifier: Apache-2.0
import shlex
import sys
from pathlib import Path

import pytest

from porthole_cli.invocation import build_command


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "an environment" / "porthole"
    path.parent.mkdir()
    path.touch(mode=0o755)
    return path


def test_the_script_that_the_path_finds(script: Path) -> None:
    assert build_command(str(script), "", str(script.parent)) == "porthole"


def test_a_script_that_the_path_does_not_find(script: Path, tmp_path: Path) -> None:
    other = tmp_path / "porthole"
    other.touch(mode=0o755)

    for search_path in ("", str(tmp_path)):
        assert shlex.split(build_command(str(script), "", search_path)) == [str(script)]


def test_a_relative_path_becomes_absolute(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(script.parent)

    assert shlex.split(build_command("./porthole", "", "")) == [str(script)]


def test_another_users_path_may_not_find_it(script: Path) -> None:
    assert shlex.split(build_command(str(script), "", str(script.parent), everywhere=True)) == [str(script)]


def test_python_m(script: Path) -> None:
    argv0 = str(script.parent / "main.py")

    expected = [sys.executable, "-m", "porthole_cli.main"]
    assert shlex.split(build_command(argv0, "porthole_cli.main", str(script.parent))) == expected


def test_a_process_that_is_no_porthole(script: Path) -> None:
    assert build_command("/usr/bin/pytest", "pytest.__main__", str(script.parent)) == "porthole"

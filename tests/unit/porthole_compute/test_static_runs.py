# SPDX-License-Identifier: Apache-2.0

import json
import stat
from pathlib import Path

import pytest

from porthole_common.model import Target
from porthole_compute.drivers import static_runs
from porthole_compute.drivers.static_runs import StaticRuns, find_file
from support.cases import naming

A, B = Target("192.0.2.1", 5900), Target("2001:db8::1", 5901)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.json"


def test_each_compute_of_a_node_has_its_own_file() -> None:
    assert find_file("/srv", "host-1.example") == Path("/srv/static_runs_host-1.example.json")
    assert find_file("/srv", "../host-1") == Path("/srv/static_runs_..%2Fhost-1.json")
    assert find_file("", "host-1") is None


def test_the_file_brings_the_runs_back(path: Path) -> None:
    runs = StaticRuns(path).update({"a": A, "b": B})
    assert StaticRuns(path).update({"a": A, "b": B}) == runs
    assert StaticRuns(path).update({"b": B}) == {"b": runs["b"]}
    assert StaticRuns(path).update({"a": A, "b": B})["a"] != runs["a"]


def test_the_file_is_its_users_alone_and_is_written_when_there_is_news(path: Path) -> None:
    runs = StaticRuns(path)
    runs.update({"a": A})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    written = path.stat().st_ino
    runs.update({"a": A})
    assert path.stat().st_ino == written
    runs.update({"a": A, "b": B})
    assert path.stat().st_ino != written
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_without_a_file_each_start_begins_new_runs() -> None:
    runs = StaticRuns(None)
    first = runs.update({"a": A})
    assert runs.update({"a": A}) == first
    assert StaticRuns(None).update({"a": A}) != first


def test_a_file_that_does_not_do_begins_new_runs_and_is_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(static_runs, "MAX_FILE_BYTES", 1000)
    entry = {"run": "r", "address": str(A)}
    texts = [
        "",
        "[]",
        "{",
        "[" * 900,
        '{"a": 1}',
        json.dumps({"a": {"run": "r"}}),
        json.dumps({"a": entry | {"run": 1}}),
        json.dumps({"a": entry | {"run": ""}}),
        json.dumps({"a": entry | {"run": "r" * 65}}),
        json.dumps({"a": entry | {"address": None}}),
        json.dumps({"a": entry}) + " " * 1000,
    ]
    for text in texts:
        with naming(text):
            caplog.clear()
            path.write_text(text)
            run = StaticRuns(path).update({"a": A})["a"]
            assert run != "r"
            assert "Runs not read" in caplog.text
            assert StaticRuns(path).update({"a": A}) == {"a": run}
    path.write_text(json.dumps({"a": entry}))
    assert StaticRuns(path).update({"a": A}) == {"a": "r"}


def test_runs_that_cannot_be_kept_are_still_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = StaticRuns(tmp_path / "missing" / "runs.json")
    first = runs.update({"a": A})
    assert runs.update({"a": A}) == first
    assert caplog.text.count("Runs not kept") == 1


def test_a_file_that_cannot_be_written_brings_no_old_run_back(path: Path) -> None:
    old = StaticRuns(path).update({"a": A})
    # The draft's place is taken by a folder, so that writing fails as on a full disk.
    path.with_name("runs.json.new").mkdir()
    StaticRuns(path).update({})
    assert StaticRuns(path).update({"a": A}) != old

# SPDX-License-Identifier: Apache-2.0
import os
import stat
from pathlib import Path

import pytest

from porthole_common.history.spool import Spool

SIZE = 10_000


def make(directory: Path, **arguments: int) -> Spool:
    return Spool(directory / "spool", "proxy", arguments.get("size", SIZE))


def add(spool: Spool, *lines: bytes) -> int:
    return spool.append((line, False) for line in lines)


def files(directory: Path) -> list[Path]:
    return sorted((directory / "spool").iterdir())


def test_the_next_process_takes_over_what_one_left(tmp_path: Path) -> None:
    first = make(tmp_path)
    assert first.open() == 0
    add(first, b"one", b"two")
    add(first, b"three")
    first.drop(1)
    first.close()
    second = make(tmp_path)
    assert second.open() == 3
    # What was delivered is delivered again: its id is stored once.
    assert second.first(10) == [b"one", b"two", b"three"]
    assert second.first(2) == [b"one", b"two"]
    assert len(files(tmp_path)) == 1


def test_a_file_that_a_process_holds_is_left_alone(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    first.open()
    add(first, b"one")
    assert second.open() == 0
    assert len(files(tmp_path)) == 1


def test_all_delivered_leaves_no_file(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.open()
    add(spool, b"one")
    spool.drop(1)
    (path,) = files(tmp_path)
    assert path.stat().st_size == 0
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0
    spool.close()
    assert files(tmp_path) == []


def test_a_file_cut_at_every_offset_or_damaged_gives_its_whole_lines(tmp_path: Path) -> None:
    spool = make(tmp_path)
    spool.open()
    lines = [b'{"a":1}', b'{"b":2}', b'{"c":3}']
    add(spool, *lines)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    spool.close()
    path.unlink()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        next_one = make(tmp_path)
        # A line is whole without its line end.
        expected = (whole[:length] + b"\n").replace(b"\n\n", b"\n").count(b"}\n")
        assert next_one.open() == expected, length
        assert next_one.first(9) == lines[:expected]
        next_one.drop(expected)
        next_one.close()
    for damage in (b"\x00" * 50 + b"\n", b"zzzzzzzz {}\n", b"00000000 {}\n", b"\xff\n"):
        path.write_bytes(whole + damage + whole)
        next_one = make(tmp_path)
        assert next_one.open() == 6
        next_one.drop(6)
        next_one.close()


def test_the_newest_find_no_room_and_ends_have_a_reserve(tmp_path: Path) -> None:
    spool = make(tmp_path, size=100)
    spool.open()
    assert add(spool, *[b"x" * 10] * 9) == 2
    assert spool.fill == 0.7
    assert spool.append([(b"y" * 10, True)] * 4) == 1
    assert spool.first(99) == [b"x" * 10] * 7 + [b"y" * 10] * 3
    spool.drop(4)
    assert add(spool, b"z" * 10) == 0


def test_the_file_is_bounded_while_some_line_always_waits(tmp_path: Path) -> None:
    spool = make(tmp_path, size=1000)
    spool.open()
    add(spool, b"x" * 100)
    for number in range(200):
        add(spool, b"%0100d" % number)
        spool.drop(1)
        assert files(tmp_path)[0].stat().st_size < 3000
    spool.close()
    after = make(tmp_path, size=1000)
    after.open()
    assert after.first(99)[-1] == b"%0100d" % 199


def test_a_folder_that_cannot_be_made_costs_the_copy_alone(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    now = [0.0]
    spool = Spool(tmp_path / "spool", "proxy", SIZE, clock=lambda: now[0])
    assert spool.open() == 0
    assert add(spool, b"one") == 0
    assert spool.first(9) == [b"one"]
    (tmp_path / "spool").unlink()
    now[0] = 100.0
    add(spool, b"two")
    (path,) = files(tmp_path)
    assert path.read_bytes().count(b"\n") == 2


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    spool = Spool(tmp_path / "spool", "proxy", SIZE, clock=lambda: now[0])
    spool.open()
    add(spool, b"one")

    def refuse(_file: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuse)
        for _ in range(3):
            now[0] += 100
            assert add(spool, b"more") == 0
        assert len(files(tmp_path)) == 1
    now[0] += 100
    add(spool, b"last")
    spool.close()
    after = make(tmp_path)
    after.open()
    found = after.first(99)
    assert list(dict.fromkeys(found)) == [b"one", b"more", b"last"]
    assert found.count(b"more") == 3

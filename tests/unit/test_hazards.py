# SPDX-License-Identifier: Apache-2.0
import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
HAZARDS_RST = CHECKOUT / "doc" / "source" / "hazards.rst"
# As in "(S1, S2)" and "C21:", and not as in "%C3%A9", in a UUID or in a path of SVG ("C3.5").
MARK = re.compile(r"(?<![\w%#.-])[SCO][0-9]{1,2}(?![\w-]|\.[0-9])")
# S3 is the sleep state of ACPI.
NO_MARKS = {"S3"}
ROW = re.compile(r"^   \* - (?:\.\. _(.+):\n\n {7})?(\w+)$", re.MULTILINE)
LITERAL = re.compile(r"``([^`]+)``")


def read_rows() -> dict[str, list[tuple[str, str]]]:
    """``{mark: [(file, test), ...]}``."""
    text = HAZARDS_RST.read_text(encoding="utf-8")
    _before, *parts = ROW.split(text)
    rows: dict[str, list[tuple[str, str]]] = {}
    for label, mark, cells in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if mark == "Mark":
            continue
        assert mark not in rows, f"{mark} has two rows"
        assert label == f"hazard-{mark.lower()}", f"the anchor of {mark} is {label}"
        rows[mark] = list(read_tests(cells))
    assert len(rows) == text.count("\n   * - ") - text.count(":header-rows: 1"), "a row is not understood"
    return rows


def read_tests(cells: str) -> Iterator[tuple[str, str]]:
    """``(file, test)`` of a row's last cell: each literal there is a file, or a test of the file before it."""
    file = ""
    for literal in LITERAL.findall(cells.rpartition("\n     - ")[2]):
        if literal.startswith("tests/"):
            file = literal
        else:
            yield file, literal


@cache
def find_tests(file: str) -> frozenset[str]:
    """Test functions of a file, those of classes as ``Class::test``; none when the file is missing."""
    path = CHECKOUT / file
    if not path.is_file():
        return frozenset()
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return frozenset(name for name in found if name.rpartition("::")[2].startswith("test_"))


def find_marks() -> dict[str, list[str]]:
    """``{mark: [file, ...]}`` of the whole source."""
    marks: dict[str, list[str]] = {}
    for directory in ("services", "common", "tests", "doc", "deploy"):
        for path in sorted((CHECKOUT / directory).rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            if b"\0" in content:
                continue  # an image, or compiled
            for mark in set(MARK.findall(content.decode("utf-8"))) - NO_MARKS:
                marks.setdefault(mark, []).append(str(path.relative_to(CHECKOUT)))
    return marks


def test_every_mark_has_a_row() -> None:
    rows, marks = read_rows(), find_marks()
    assert marks
    assert {mark: files for mark, files in marks.items() if mark not in rows} == {}


def test_every_row_names_a_test() -> None:
    rows = read_rows()
    assert rows
    assert [mark for mark, tests in rows.items() if not tests] == []


def test_every_named_test_exists() -> None:
    missing = [
        f"{mark}: {file}::{test}"
        for mark, tests in read_rows().items()
        for file, test in tests
        if test not in find_tests(file)
    ]
    assert missing == []

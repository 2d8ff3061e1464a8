# SPDX-License-Identifier: Apache-2.0
"""The layout of the sources, as far as import-linter does not check it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("services", "common") for path in (ROOT / folder).rglob("*.py"))
# A longer module has two subjects.
MAX_LINES = 350
# The folder whose modules need no more than the rule: one module for each group of options.
BY_RULE = {"conf"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_only_modules_that_start_a_process_name_the_global_configuration() -> None:
    named = {name_of(path) for path in SOURCES if re.search(r"\bcfg\.CONF\b", path.read_text("utf-8"))}
    mains = {name_of(path) for path in SOURCES if path.name == "main.py" and path.parent.name != "porthole_cli"}
    assert named == mains | {"services/porthole_cli/wiring.py", "services/porthole_cli/doctor/run.py"}


def test_each_package_names_its_parts() -> None:
    unnamed = []
    packages = [path for path in SOURCES if path.name == "__init__.py" and path.parent.name not in BY_RULE]
    for package in packages:
        text = ast.get_docstring(ast.parse(package.read_text("utf-8"))) or ""
        for part in sorted(package.parent.iterdir()):
            is_part = part.suffix == ".py" or (part / "__init__.py").exists()
            if is_part and part != package and not re.search(rf"\b{part.stem}\b", text):
                unnamed.append(name_of(part))
    assert packages
    assert unnamed == []


def test_no_module_is_longer_than_one_subject() -> None:
    lengths = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}

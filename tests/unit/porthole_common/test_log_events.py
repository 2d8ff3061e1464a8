# SPDX-License-Identifier: Apache-2.0
"""Every line that Porthole itself logs is an event, and doc/source/logs.rst tells operators of it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from support.cases import naming

_ROOT = Path(__file__).resolve().parents[3]
_PAGE = " ".join((_ROOT / "doc" / "source" / "logs.rst").read_text(encoding="utf-8").split())
_LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
_NOT_FIELDS = {"exc_info", "stack_info", "stacklevel", "extra", "context"}


def find_calls() -> Iterator[tuple[str, list[ast.expr], list[str | None]]]:
    """Yield place, positional arguments without the level, and keywords of each call of a module's LOG."""
    for path in sorted((*(_ROOT / "services").rglob("*.py"), *(_ROOT / "common").rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="LOG"), attr=level)) if level in _LEVELS:
                    arguments = node.args[1:] if level == "log" else node.args
                    where = f"{path.relative_to(_ROOT)}:{node.lineno}"
                    yield where, arguments, [keyword.arg for keyword in node.keywords]


CALLS = [call for call in find_calls() if not call[0].startswith("services/porthole_cli/")]


def test_the_calls_were_found() -> None:
    assert len(CALLS) > 70


def test_an_event_is_constant_and_documented_with_its_fields() -> None:
    """Greps and dashboards hang on an event's text: it may hold nothing that differs from line to line."""
    for where, arguments, keywords in CALLS:
        with naming(where):
            assert len(arguments) == 1, f"{where}: an event has fields, not %-arguments"
            assert isinstance(arguments[0], ast.Constant), f"{where}: the text of an event is constant"
            assert f"``{arguments[0].value}``" in _PAGE, f"{where}: doc/source/logs.rst does not know the event"
            for name in keywords:
                assert name is not None, f"{where}: fields are named one by one"
                assert name in _NOT_FIELDS or f"``{name}``" in _PAGE, (
                    f"{where}: doc/source/logs.rst does not know {name}"
                )


def test_the_page_names_no_event_that_is_not_there() -> None:
    events = {arguments[0].value for _, arguments, _ in CALLS if isinstance(arguments[0], ast.Constant)}
    documented = set(re.findall(r"\* - ``([^`]+)``", _PAGE))
    assert documented == events

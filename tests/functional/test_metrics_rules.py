# SPDX-License-Identifier: Apache-2.0
"""The alert rules, by promtool: they are valid, and each of them is tested by an example that fails without it."""

import shutil
from pathlib import Path

import pytest
import yaml

from support.cases import naming
from support.scrapes import GRAFANA, run_promtool

RULES, TESTS = GRAFANA / "porthole.rules.yaml", GRAFANA / "porthole.rules.test.yaml"
NEVER = "vector(0) == 1"
ALWAYS = "vector(1)"


def read_alerts(path: Path) -> list[dict[str, object]]:
    [group] = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    alerts: list[dict[str, object]] = group["rules"]
    return alerts


def test_the_rules_are_valid() -> None:
    status, said = run_promtool("check", "rules", RULES)
    assert status == 0, said
    assert f"SUCCESS: {len(read_alerts(RULES))} rules found" in said


def test_the_examples_hold() -> None:
    status, said = run_promtool("test", "rules", TESTS)
    assert status == 0, said


@pytest.mark.parametrize("expression", [NEVER, ALWAYS])
def test_each_alert_has_an_example_that_fires_and_one_that_does_not(tmp_path: Path, expression: str) -> None:
    shutil.copy(TESTS, tmp_path)
    alerts = read_alerts(RULES)
    assert len(alerts) > 10
    changed = {"groups": [{"name": "porthole", "rules": [{**each, "expr": expression} for each in alerts]}]}
    (tmp_path / RULES.name).write_text(yaml.safe_dump(changed), encoding="utf-8")
    status, said = run_promtool("test", "rules", tmp_path / TESTS.name)
    assert status != 0
    empty = "got:[]" if expression == NEVER else "exp:[]"
    # An example is reported as "alertname: X, time: 10m, exp:[...], got:[...]", over several lines.
    failed = {part.split(",")[0] for part in said.split("alertname: ")[1:] if empty in "".join(part.split())}
    assert failed == {each["alert"] for each in alerts}


def test_each_alert_says_what_to_do() -> None:
    for alert in read_alerts(RULES):
        with naming(str(alert["alert"])):
            assert alert["labels"] in ({"severity": "critical"}, {"severity": "warning"})
            assert isinstance(alert["annotations"], dict)
            assert set(alert["annotations"]) == {"summary", "description"}

# SPDX-License-Identifier: Apache-2.0
import json
import logging
import re
from pathlib import Path

import pytest
from prometheus_client.core import GaugeMetricFamily

from porthole_common import metrics
from porthole_common.metrics import DEFINITIONS, EVERYWHERE, STANDALONE, Computed
from support.cases import naming
from support.scrapes import GRAFANA, Scrape, find_metrics

PAGE = Path(__file__).parents[3] / "doc" / "source" / "metrics.rst"
# What a label may be called. None of them is a user, a token, an address or an instance.
LABELS = {
    *("version", "pool", "topic", "method", "cause", "door", "mode", "code", "outcome", "stage", "reason", "status"),
    *("direction", "certificate", "worker", "console_type", "state", "host"),
}


def read_page() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """``{name: (type, labels, who)}`` of the page's table."""
    table = PAGE.read_text(encoding="utf-8").partition("     - what\n")[2].partition("\n\n")[0]
    rows = re.findall(r"   \* - ``(\w+)``\n     - (\w+)\n     - (.*)\n     - (.*)\n", table)
    assert len(rows) == table.count("   * - "), "a row is not understood"
    return {name: (kind, tuple(re.findall(r"``(\w+)``", labels)), who) for name, kind, labels, who in rows}


def name_servers(on: tuple[str, ...]) -> str:
    if set(on) == set(EVERYWHERE):
        return "all"
    return "all daemons" if on == metrics.DAEMONS else ", ".join(each for each in on if each != STANDALONE)


def test_the_page_has_each_metric_and_no_other() -> None:
    assert read_page() == {name: (each.kind, each.labels, name_servers(each.on)) for name, each in DEFINITIONS.items()}


def test_names_and_labels_follow_the_conventions() -> None:
    for name, each in DEFINITIONS.items():
        with naming(name):
            assert re.fullmatch(r"(porthole|process)_[a-z_]+", name)
            assert name.endswith("_total") == (each.kind == "counter")
            assert each.kind != "histogram" or name.endswith("_seconds")
            assert set(each.labels) <= LABELS
            assert each.on


def test_each_server_renders_what_it_serves_and_nothing_else() -> None:
    for server in EVERYWHERE:
        names = Scrape(metrics.render(server).decode()).names
        assert names == {name for name, each in DEFINITIONS.items() if server in each.on}, server


def test_the_dashboard_and_the_rules_name_metrics_that_exist() -> None:
    for path in sorted(GRAFANA.iterdir()):
        with naming(path.name):
            named = find_metrics(path.read_text(encoding="utf-8"))
            assert named
            assert named <= DEFINITIONS.keys()


def test_labels_in_the_dashboard_and_the_rules_are_those_of_the_metric() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in GRAFANA.iterdir())
    # What Prometheus, or another process behind the same port, adds.
    added = {"instance", "job", "worker", "le"}
    for name, labels in re.findall(r"\b((?:porthole|process)_[a-z_]+)\{([^}]*)\}", text):
        [metric] = find_metrics(name)
        assert set(re.findall(r"(\w+)=", labels)) - added <= set(DEFINITIONS[metric].labels), f"{name}: {labels}"


def test_each_metric_is_in_the_dashboard() -> None:
    dashboard = (GRAFANA / "porthole.json").read_text(encoding="utf-8")
    assert find_metrics(dashboard) == set(DEFINITIONS)


def test_the_panels_of_the_dashboard_are_complete() -> None:
    panels = json.loads((GRAFANA / "porthole.json").read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, place["y"]) for x in range(place["x"], place["x"] + place["w"])}
        assert not places & cells, panel["title"]
        places |= cells
        assert panel["type"] == "row" or all(target["expr"] for target in panel["targets"]), panel["title"]


@pytest.fixture
def gauge() -> Computed:
    return Computed(GaugeMetricFamily, "things", "Things.", ("kind",))


def read(computed: Computed) -> dict[tuple[str, ...], float]:
    [family] = computed.collect()
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def test_sources_add_up_and_leave(gauge: Computed) -> None:
    def first() -> metrics.Samples:
        return [(("a",), 1), (("b",), 2)]

    gauge.add_source(first)
    gauge.add_source(lambda: [(("b",), 3.5)])
    assert read(gauge) == {("a",): 1, ("b",): 5.5}
    gauge.remove_source(first)
    gauge.remove_source(first)
    assert read(gauge) == {("b",): 3.5}


def test_a_source_that_fails_costs_no_other_its_numbers(gauge: Computed, caplog: pytest.LogCaptureFixture) -> None:
    gauge.add_source(lambda: [(("a",), 1 / 0)])
    gauge.add_source(lambda: [(("b",), 2)])
    with caplog.at_level(logging.ERROR):
        assert read(gauge) == {("b",): 2}
    assert "Metric not read" in caplog.text

# SPDX-License-Identifier: Apache-2.0
from porthole_common import metrics
from porthole_common.metrics_gathering import merge
from support.scrapes import Scrape

TEXT = """# HELP things Things.
# TYPE things gauge
things 1.0
# HELP others_total Others, in {braces}.
# TYPE others_total counter
others_total{host="a{b} c\\"d\x85\x0b"} 2.0
others_total{host="e"} 3.0
""".encode()


def test_each_sample_gets_the_label_and_each_metric_has_one_head() -> None:
    merged = merge({"0": TEXT, "1": TEXT.replace(b"things 1.0", b"things 4.0")}).decode()
    scrape = Scrape(merged)
    assert scrape.get("things", worker="0") == 1
    assert scrape.get("things", worker="1") == 4
    assert merged.count('others_total{worker="1",host="a{b} c\\"d\x85\x0b"} 2.0\n') == 1
    for name in ("things", "others_total", "porthole_worker_up"):
        assert merged.count(f"# HELP {name} ") == merged.count(f"# TYPE {name} ") == 1
    # All samples of a metric stand together.
    lines = merged.split("\n")
    assert lines.index('things{worker="1"} 4.0') == lines.index('things{worker="0"} 1.0') + 1


def test_a_process_without_an_answer_is_named() -> None:
    scrape = Scrape(merge({"0": None, "1": TEXT}).decode())
    assert scrape.get("porthole_worker_up", worker="0") == 0
    assert scrape.get("porthole_worker_up", worker="1") == 1
    assert scrape.list_values("things", "worker") == {"1"}
    assert Scrape(merge({"0": None}).decode()).get("porthole_worker_up") == 0


def test_what_the_daemons_render_is_merged_as_a_whole() -> None:
    rendered = metrics.render("novncproxy")
    merged = Scrape(merge({"0": rendered, "1": rendered}).decode())
    assert merged.names == Scrape(rendered.decode()).names
    # Each worker says that it is up.
    assert len(merged.samples) == 2 * len(Scrape(rendered.decode()).samples) + 2

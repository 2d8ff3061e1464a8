# SPDX-License-Identifier: Apache-2.0
import resource
import time

from porthole_common import metrics, process_measures
from support.scrapes import Scrape


def test_the_process_is_measured_without_files_of_other_processes() -> None:
    before = Scrape(metrics.render("api").decode())
    with open(__file__, encoding="utf-8"):
        during = Scrape(metrics.render("api").decode())
    assert during.get("process_open_fds") == before.get("process_open_fds") + 1
    assert during.get("process_max_fds") == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert during.get("process_cpu_seconds_total") >= before.get("process_cpu_seconds_total") > 0
    assert 2**20 < during.get("process_resident_memory_bytes") < 2**40
    assert during.get("porthole_build_info") == 1


def test_the_start_does_not_move() -> None:
    started_at = process_measures.read_start_time()
    assert time.time() - 86400 < started_at < time.time()
    assert process_measures.read_start_time() == started_at

# SPDX-License-Identifier: Apache-2.0
import gc

from porthole_common import metrics, pools
from porthole_common.thread_pool import Job, ThreadPool
from support.scrapes import Scrape


def read(name: str, pool: str) -> tuple[float, bool]:
    """The number, and whether there is one."""
    scrape = Scrape(metrics.render("api").decode())
    return scrape.get(name, pool=pool), pool in scrape.list_values(name, "pool")


def test_work_in_the_threads_of_others_is_counted() -> None:
    work = pools.Work("test-work", limit=3)
    with work.counted(), work.counted():
        assert read("porthole_pool_busy_threads", "test-work") == (2, True)
    assert read("porthole_pool_busy_threads", "test-work") == (0, True)
    assert read("porthole_pool_max_threads", "test-work") == (3, True)


def test_a_limit_that_is_not_known_is_not_served() -> None:
    work = pools.Work("test-endless")
    assert read("porthole_pool_max_threads", "test-endless") == (0, False)
    assert work.busy == 0


def test_pools_of_one_name_add_up_and_leave_when_they_are_gone() -> None:
    one, two = ThreadPool("test-pool", 4), ThreadPool("test-pool", 5)
    assert read("porthole_pool_max_threads", "test-pool") == (9, True)
    del one
    gc.collect()
    assert read("porthole_pool_max_threads", "test-pool") == (5, True)
    two.close()


def test_busy_threads_and_waiting_jobs_of_a_pool() -> None:
    pool = ThreadPool("test-busy", 1)
    gate, second = Job(lambda: None), Job(lambda: None)
    pool.start(Job(lambda: gate.wait(20)))
    pool.start(second)
    assert read("porthole_pool_busy_threads", "test-busy") == (1, True)
    assert read("porthole_pool_waiting_jobs", "test-busy") == (1, True)
    gate.do()
    assert second.wait(20)
    pool.close()

# SPDX-License-Identifier: Apache-2.0
from porthole_compute.drivers.running_domains import RunningDomains


def test_what_stopped_while_there_was_no_connection_has_ended() -> None:
    domains = RunningDomains()
    assert domains.complete({"stays": "run 1", "stops": "run 2", "starts again": "run 3"}) == []
    domains.begin_connection()
    assert domains.complete({"stays": "run 1", "starts again": "run 4", "new": "run 5"}) == ["stops", "starts again"]
    domains.begin_connection()
    assert domains.complete({"stays": "run 1", "starts again": "run 4", "new": "run 5"}) == []


def test_an_event_is_younger_than_the_list_that_was_on_its_way() -> None:
    domains = RunningDomains()
    domains.add("a", "run 1")
    domains.begin_connection()
    domains.add("a", "run 2")
    assert domains.complete({"a": "run 1"}) == ["a"]
    domains.begin_connection()
    assert domains.complete({"a": "run 2"}) == []


def test_a_domain_that_stopped_before_the_outage_does_not_end_again() -> None:
    domains = RunningDomains()
    domains.add("a", "run 1")
    domains.discard("a")
    domains.discard("unknown")
    domains.begin_connection()
    assert domains.complete({}) == []


def test_an_attempt_to_connect_that_fails_forgets_nothing() -> None:
    domains = RunningDomains()
    domains.add("a", "run 1")
    domains.begin_connection()
    domains.begin_connection()
    assert domains.complete({}) == ["a"]

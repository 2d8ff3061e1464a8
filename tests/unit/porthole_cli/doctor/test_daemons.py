# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from porthole_cli.doctor.daemons import judge_daemons
from porthole_cli.doctor.facts import Undescribed
from support.clouds import ids, make_daemons, make_presence
from support.descriptions import make_api, make_host, make_store, make_vitals


def test_all_there() -> None:
    findings = judge_daemons(make_daemons())
    assert ids(findings) == ["daemons.ok"]
    assert findings[0].problem == "1 api, 1 compute, 1 consoleauth, 1 novncproxy on 2 hosts, and all answer"


@pytest.mark.parametrize(
    ("absent", "expected"),
    [
        ("apis", "api.none"),
        ("computes", "compute.none"),
        ("stores", "consoleauth.none"),
        ("proxies", "novncproxy.none"),
    ],
)
def test_a_daemon_that_there_is_none_of(absent: str, expected: str) -> None:
    arguments: dict[str, Any] = {absent: ()}
    if absent == "computes":
        arguments["apis"] = [make_api(silent_s={})]
    assert ids(judge_daemons(make_daemons(**arguments))) == [expected]


def test_one_that_holds_its_queue_and_says_nothing() -> None:
    found = make_daemons()
    found.consumers["consoleauth"] = 3
    findings = judge_daemons(found)
    assert ids(findings) == ["daemons.unheard"]
    assert "2 of 3 porthole-consoleauth on the bus do not answer; those on controller do" in findings[0].problem


def test_the_only_one_hangs() -> None:
    found = make_daemons(stores=())
    found.consumers["consoleauth"] = 1
    findings = judge_daemons(found)
    assert ids(findings) == ["daemons.unheard"]
    assert "1 of 1 porthole-consoleauth on the bus does not answer." in findings[0].problem


def test_an_instance_on_two_hosts_names_both_once() -> None:
    duplicates = {"5a9d4f5e-0000-4000-8000-000000000001": ["compute2", "compute1"]}
    findings = judge_daemons(make_daemons(apis=[make_api(duplicates=duplicates), make_api(duplicates=duplicates)]))
    found = [each for each in findings if each.id == "instances.duplicate"]
    assert [each.host for each in found] == ["compute2"]
    assert "5a9d4f5e-0000-4000-8000-000000000001 runs on compute2 and on compute1." in found[0].problem


def test_a_broker_that_counts_nobody_accuses_nobody() -> None:
    found = make_daemons()
    found.consumers = {}
    assert ids(judge_daemons(found)) == ["daemons.ok"]


@pytest.mark.parametrize("consumers", [1, 2])
def test_a_compute_that_the_apis_remember(consumers: int) -> None:
    found = make_daemons(
        apis=[make_api(silent_s={"compute1": 1, "compute2": 200.0}), make_api(silent_s={"compute2": 40.4})]
    )
    # It may be gone, or hang; told once either way.
    found.consumers["compute"] = consumers
    findings = judge_daemons(found)
    assert ids(findings) == ["compute.lost"]
    assert (findings[0].host, "40 s ago" in findings[0].problem) == ("compute2", True)


def test_two_computes_of_one_name() -> None:
    findings = judge_daemons(make_daemons(computes=[make_host(), make_host()]))
    assert ids(findings) == ["daemons.duplicate"]
    assert findings[0].host == "compute1"


def test_two_consoleauths_of_one_host_are_no_fault() -> None:
    assert ids(judge_daemons(make_daemons(stores=[make_store(), make_store()]))) == ["daemons.ok"]


@pytest.mark.parametrize("is_old", [True, False])
def test_one_that_answers_the_roll_call_and_nothing_else(is_old: bool) -> None:
    found = make_daemons()
    found.undescribed = [Undescribed(make_presence("api"), is_old)]
    findings = judge_daemons(found)
    assert ids(findings) == ["daemons.mute"]
    assert ("version" in findings[0].problem) is is_old


def test_versions() -> None:
    findings = judge_daemons(make_daemons(stores=[make_store(vitals=make_vitals(version="0.9"))]))
    assert ids(findings) == ["daemons.versions"]
    assert "0.9: consoleauth on controller; 1.0: api on controller, compute on compute1" in findings[0].problem

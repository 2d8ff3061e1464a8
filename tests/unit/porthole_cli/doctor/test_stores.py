# SPDX-License-Identifier: Apache-2.0
from typing import Any

from porthole_cli.doctor.facts import TokenCheck
from porthole_cli.doctor.finding import Finding
from porthole_cli.doctor.stores import judge_hypervisors, judge_memcached
from porthole_common.diagnosis import StoreRoom
from support.clouds import ids, make_daemons
from support.descriptions import INSTANCE, make_host, make_store

KNOWN = TokenCheck(before={"controller": True})


def test_one_memcached_for_all() -> None:
    found = make_daemons(stores=[make_store("a"), make_store("b")])
    findings = judge_memcached(found, TokenCheck(before={"a": True, "b": True}))
    assert ids(findings) == ["memcached.ok"]
    assert findings[0].problem == "192.0.2.10:11211 is the same for all 2 consoleauths"


def test_the_order_of_the_servers_does_not_matter() -> None:
    servers = {"192.0.2.1:1": "", "192.0.2.2:1": ""}
    found = make_daemons(
        stores=[make_store("a", servers=servers), make_store("b", servers=dict(reversed(servers.items())))]
    )
    assert ids(judge_memcached(found, KNOWN)) == ["memcached.ok"]


def test_a_memcached_that_does_not_answer() -> None:
    found = make_daemons(stores=[make_store(servers={"192.0.2.1:1": "", "192.0.2.2:1": "Connection refused"})])
    findings = judge_memcached(found, KNOWN)
    assert ids(findings) == ["memcached.unreachable"]
    assert "192.0.2.2:1 does not answer controller: Connection refused" in findings[0].problem


def make_room(**changes: Any) -> StoreRoom:
    values: dict[str, Any] = {"used_bytes": 1 << 20, "limit_bytes": 64 << 20, "evictions": 0, "refusals": 0}
    return StoreRoom(**{**values, "evicts": False, **changes})


def judge_room(**changes: Any) -> list[Finding]:
    return judge_memcached(make_daemons(stores=[make_store(rooms={"192.0.2.10:11211": make_room(**changes)})]), KNOWN)


def test_a_memcached_with_room_that_deletes_nothing() -> None:
    assert ids(judge_room()) == ["memcached.ok"]


def test_a_memcached_that_would_delete_tokens_or_has_done_so() -> None:
    (would,) = judge_room(evicts=True)
    (has,) = judge_room(evicts=True, evictions=17)
    assert (would.id, would.severity) == ("memcached.evicts", "warning")
    assert (has.id, has.severity, has.host) == ("memcached.evicted", "error", "192.0.2.10")
    assert "has deleted 17 items that were in use" in has.problem
    assert "-M" in has.mend
    assert "become void" in has.mend


def test_a_memcached_that_is_nearly_full_or_was_full() -> None:
    assert ids(judge_room(used_bytes=47 << 20)) == ["memcached.ok"]
    (nearly,) = judge_room(used_bytes=50 << 20)
    (was,) = judge_room(refusals=3)
    assert {nearly.id, was.id} == {"memcached.full"}
    assert "uses 50.0 of 64.0 MiB. While" in nearly.problem
    assert "has refused 3 items" in was.problem
    assert "become void" in was.mend


def test_one_memcached_of_two_consoleauths_is_named_once() -> None:
    for server, hosts in (("192.0.2.10:11211", ["192.0.2.10"]), ("[::1]:11211", ["a", "b"])):
        rooms = {server: make_room(evicts=True)}
        found = make_daemons(stores=[make_store("a", rooms=rooms), make_store("b", rooms=rooms)])
        findings = judge_memcached(found, TokenCheck(before={"a": True, "b": True}))
        assert [(each.id, each.host) for each in findings] == [("memcached.evicts", host) for host in hosts]


def test_lists_that_differ() -> None:
    found = make_daemons(stores=[make_store("a"), make_store("b", servers={"192.0.2.99:11211": ""})])
    assert ids(judge_memcached(found, TokenCheck())) == ["memcached.differs"]


def test_lists_that_are_the_same_and_mean_different_places() -> None:
    servers = {"127.0.0.1:11211": ""}
    found = make_daemons(stores=[make_store("a", servers=servers), make_store("b", servers=servers)])
    findings = judge_memcached(found, TokenCheck(before={"a": True, "b": False}))
    assert ids(findings) == ["memcached.not_shared"]
    assert findings[0].host == "b"
    assert "consoleauth on b does not know a token that a has just authorized" in findings[0].problem


def test_a_consoleauth_that_could_not_say_is_not_accused_of_another_store() -> None:
    assert ids(judge_memcached(make_daemons(), TokenCheck(before={"controller": "no answer"}))) == ["memcached.ok"]


def test_nothing_is_said_of_what_nobody_saw() -> None:
    assert judge_memcached(make_daemons(stores=()), TokenCheck()) == []
    assert judge_hypervisors(make_daemons(computes=())) == []


def test_hypervisors() -> None:
    found = make_daemons(computes=[make_host("compute1"), make_host("compute2", refusal="Connection refused.")])
    assert ids(judge_hypervisors(make_daemons())) == ["libvirt.ok"]
    findings = judge_hypervisors(found)
    assert ids(findings) == ["libvirt.unreachable"]
    assert findings[0].host == "compute2"
    assert "compute on compute2 does not reach qemu:///system: Connection refused." in findings[0].problem


def test_a_guest_that_libvirt_does_not_answer_about_is_named() -> None:
    found = make_daemons(computes=[make_host("compute1"), make_host("compute2", overdue=(INSTANCE,))])
    findings = judge_hypervisors(found)
    assert ids(findings) == ["libvirt.guest_held"]
    assert findings[0].host == "compute2"
    assert f"does not answer about instance {INSTANCE}" in findings[0].problem

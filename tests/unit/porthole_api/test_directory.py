# SPDX-License-Identifier: Apache-2.0
"""The directory's rules: whole snapshots, silent hosts, instances of two hosts, order, and the wait at the start."""

import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_api.directory import Directory
from porthole_api.snapshot import SILENT_AFTER_S
from porthole_api.warm_up import WARM_LIMIT_S, WARM_MOST_S, WARM_QUIET_S
from porthole_common import errors
from porthole_common.model import Instance, InstanceState
from porthole_common.notifications import Inventory
from support.api import NOW, FakeClock, FakeCondition, build_directory, build_instance, build_uuid
from support.cases import naming

RUNNING, SHUTOFF, PAUSED = InstanceState.RUNNING, InstanceState.SHUTOFF, InstanceState.PAUSED


def inventory(host: str, *instances: Instance, up: bool = True) -> Inventory:
    return Inventory(host, instances, up)


def names(directory: Directory, after: str | None = None) -> list[str]:
    return [located.instance.name for located in directory.list_instances(after)]


class TestSnapshots:
    def test_an_instance_is_found_on_its_host(self) -> None:
        directory = build_directory()
        directory.update(inventory("a", build_instance(1)))
        directory.update(inventory("b", build_instance(2)))
        assert directory.get(build_uuid(2)).host == "b"
        assert directory.get(build_uuid(2)).instance == build_instance(2)

    def test_a_snapshot_replaces_the_former_of_its_host_and_of_no_other(self) -> None:
        directory = build_directory()
        directory.update(inventory("a", build_instance(1), build_instance(2)))
        directory.update(inventory("b", build_instance(3)))
        directory.update(inventory("a", build_instance(2)))
        assert names(directory) == ["vm2", "vm3"]
        with pytest.raises(errors.InstanceNotFound) as caught:
            directory.get(build_uuid(1))
        assert caught.value == caught.value
        assert caught.value.instance_uuid == build_uuid(1)

    def test_what_is_published_again_as_it_was_changes_nothing(self) -> None:
        directory = Directory(FakeClock(), iter([NOW, NOW + timedelta(1)]).__next__)
        for _ in range(3):
            directory.update(inventory("a", build_instance(1, created_at=NOW)))
        found = directory.get(build_uuid(1))
        assert (found.created_at, found.updated_at) == (NOW, NOW)
        directory.update(inventory("a", build_instance(1, state=SHUTOFF, created_at=NOW)))
        assert directory.get(build_uuid(1)).instance.state is SHUTOFF
        assert directory.get(build_uuid(1)).updated_at == NOW + timedelta(1)

    def test_a_list_can_be_of_some_names(self) -> None:
        directory = build_directory()
        directory.update(inventory("a", *(build_instance(number) for number in range(1, 6))))
        found = directory.list_instances(build_uuid(2), lambda name: name in ("vm1", "vm2", "vm4"))
        assert [located.instance.name for located in found] == ["vm4"]

    def test_a_renamed_instance_moves_in_the_order(self) -> None:
        directory = build_directory()
        directory.update(inventory("a", build_instance(1, "bravo"), build_instance(2, "charlie")))
        directory.update(inventory("a", build_instance(1, "delta"), build_instance(2, "charlie")))
        assert names(directory) == ["charlie", "delta"]

    def test_the_order_is_by_name_then_uuid_over_all_hosts(self) -> None:
        directory = build_directory()
        directory.update(inventory("a", build_instance(3, "x"), build_instance(2, "y")))
        directory.update(inventory("b", build_instance(1, "x"), build_instance(4, "w")))
        found = [located.instance.uuid for located in directory.list_instances()]
        assert found == [build_uuid(number) for number in (4, 1, 3, 2)]

    def test_a_list_after_an_instance_begins_behind_it(self) -> None:
        directory = build_directory()
        directory.update(inventory("a", build_instance(1, "x"), build_instance(2, "x"), build_instance(3, "x")))
        assert [one.instance.uuid for one in directory.list_instances(build_uuid(2))] == [build_uuid(3)]
        with pytest.raises(errors.InstanceNotFound):
            directory.list_instances(build_uuid(9))

    def test_an_instance_that_goes_away_while_a_list_is_read_is_passed_over(self) -> None:
        directory = build_directory()
        directory.update(inventory("a", build_instance(1), build_instance(2), build_instance(3)))
        reading = directory.list_instances()
        assert next(reading).instance.name == "vm1"
        directory.update(inventory("a", build_instance(3)))
        assert [located.instance.name for located in reading] == ["vm3"]

    @given(
        st.lists(
            st.tuples(
                st.sampled_from("abc"), st.dictionaries(st.integers(1, 6), st.sampled_from(["x", "y", "z"]), max_size=6)
            ),
            max_size=12,
        )
    )
    def test_what_is_listed_is_what_the_hosts_said_last(self, said: list[tuple[str, dict[int, str]]]) -> None:
        directory = build_directory()
        last: dict[str, dict[int, str]] = {}
        for host, instances in said:
            directory.update(inventory(host, *(build_instance(number, name) for number, name in instances.items())))
            last[host] = instances
        listed = [located.instance.uuid for located in directory.list_instances()] if said else []
        assert sorted(listed) == sorted({build_uuid(number) for instances in last.values() for number in instances})
        for uuid in listed:
            assert directory.get(uuid).instance.uuid == uuid


class TestSilence:
    def test_a_silent_hosts_instances_stay_with_state_unknown_and_the_reason(self) -> None:
        clock = FakeClock()
        directory = build_directory(clock)
        directory.update(inventory("a", build_instance(1)))
        clock.now_s += SILENT_AFTER_S
        assert directory.get(build_uuid(1)).unavailable is None
        clock.now_s += 0.001
        located = directory.get(build_uuid(1))
        assert located.instance.state is InstanceState.UNKNOWN
        assert isinstance(located.unavailable, errors.HostUnavailable)
        assert located.unavailable.host == "a"
        assert names(directory) == ["vm1"]

    def test_a_host_that_speaks_again_is_back(self) -> None:
        clock = FakeClock()
        directory = build_directory(clock)
        directory.update(inventory("a", build_instance(1)))
        clock.now_s += SILENT_AFTER_S + 1
        directory.update(inventory("a", build_instance(1)))
        assert directory.get(build_uuid(1)).instance.state is RUNNING

    def test_a_hypervisor_that_does_not_answer_is_unknown_too(self) -> None:
        directory = build_directory()
        directory.update(inventory("a", build_instance(1), up=False))
        located = directory.get(build_uuid(1))
        assert located.instance.state is InstanceState.UNKNOWN
        assert isinstance(located.unavailable, errors.HypervisorUnavailable)


class TestTwoHosts:
    def test_the_running_one_wins_whichever_spoke_last(self) -> None:
        directory = build_directory()
        directory.update(inventory("source", build_instance(1)))
        directory.update(inventory("target", build_instance(1, state=PAUSED)))
        assert directory.get(build_uuid(1)).host == "source"
        directory.update(inventory("source", build_instance(1, state=SHUTOFF)))
        directory.update(inventory("target", build_instance(1)))
        directory.update(inventory("source", build_instance(1, state=SHUTOFF)))
        assert directory.get(build_uuid(1)).host == "target"

    def test_of_two_running_ones_the_first_stays_with_its_owner_and_name(self) -> None:
        directory = build_directory()
        guests = {host: build_instance(1, f"of-{host}", project_id=host) for host in ("a", "b")}
        directory.update(inventory("a", guests["a"]))
        for host in ("b", "a", "b", "b"):
            directory.update(inventory(host, guests[host]))
            located = directory.get(build_uuid(1))
            assert (located.host, located.instance) == ("a", guests["a"])
            assert names(directory) == ["of-a"]
            assert [each.host for each in directory.list_instances(has_name="of-a".__eq__)] == ["a"]
            assert list(directory.list_instances(has_name="of-b".__eq__)) == []

    def test_when_the_first_ends_the_name_and_its_order_follow(self) -> None:
        ends = {
            "gone": inventory("a", build_instance(2, "m")),
            "stopped": inventory("a", build_instance(1, "z", state=SHUTOFF), build_instance(2, "m")),
            "hypervisor": inventory("a", build_instance(1, "z"), build_instance(2, "m"), up=False),
        }
        for how, end in ends.items():
            with naming(how):
                directory = build_directory()
                directory.update(inventory("a", build_instance(1, "z"), build_instance(2, "m")))
                directory.update(inventory("b", build_instance(1, "a")))
                assert names(directory) == ["m", "z"]
                directory.update(end)
                assert names(directory) == ["a", "m"]
                assert directory.get(build_uuid(1)).host == "b"
                # The one that took its place is the first now.
                directory.update(inventory("a", build_instance(1, "z")))
                assert directory.get(build_uuid(1)).host == "b"

    def test_the_name_follows_when_the_first_falls_silent(self) -> None:
        clock = FakeClock()
        directory = build_directory(clock)
        directory.update(inventory("a", build_instance(1, "z")))
        directory.update(inventory("b", build_instance(1, "b")))
        clock.now_s += SILENT_AFTER_S
        directory.update(inventory("b", build_instance(1, "b")))
        assert names(directory) == ["z"]
        clock.now_s += 1
        assert [each.host for each in directory.list_instances(has_name="b".__eq__)] == ["b"]
        assert directory.get(build_uuid(1)).instance.name == "b"

    def test_the_doctor_hears_of_those_that_run_twice(self) -> None:
        directory = build_directory()
        directory.update(inventory("b", build_instance(1), build_instance(2), build_instance(3), build_instance(4)))
        directory.update(inventory("a", build_instance(1), build_instance(2, state=SHUTOFF), build_instance(4)))
        assert directory.list_duplicates(9) == {build_uuid(1): ["b", "a"], build_uuid(4): ["b", "a"]}
        assert directory.list_duplicates(1) == {build_uuid(1): ["b", "a"]}
        directory.update(inventory("a"))
        assert directory.list_duplicates(9) == {}

    def test_a_host_that_answers_wins_over_a_silent_one_where_it_ran(self) -> None:
        clock = FakeClock()
        directory = build_directory(clock)
        directory.update(inventory("dead", build_instance(1)))
        clock.now_s += SILENT_AFTER_S + 1
        directory.update(inventory("alive", build_instance(1, state=SHUTOFF)))
        located = directory.get(build_uuid(1))
        assert (located.host, located.instance.state, located.unavailable) == ("alive", SHUTOFF, None)

    def test_once_the_source_drops_it_the_target_has_it(self) -> None:
        directory = build_directory()
        directory.update(inventory("source", build_instance(1)))
        directory.update(inventory("target", build_instance(1, state=PAUSED)))
        directory.update(inventory("source"))
        assert directory.get(build_uuid(1)).host == "target"
        assert names(directory) == ["vm1"]


class TestTimes:
    def test_without_a_date_of_its_own_an_instance_was_created_when_first_seen(self) -> None:
        moments = iter(NOW + timedelta(hours=hour) for hour in range(9))
        clock = FakeClock()
        directory = Directory(clock, lambda: next(moments), FakeCondition(clock))
        for state in (RUNNING, RUNNING, SHUTOFF):
            directory.update(inventory("a", build_instance(1, state=state)))
        located = directory.get(build_uuid(1))
        assert (located.created_at, located.updated_at) == (NOW, NOW + timedelta(hours=1))

    def test_the_instances_own_date_wins(self) -> None:
        created_at = datetime(2020, 2, 2, tzinfo=UTC)
        directory = build_directory()
        directory.update(inventory("a", build_instance(1, created_at=created_at)))
        assert directory.get(build_uuid(1)).created_at == created_at


class TestWarming:
    @staticmethod
    def build() -> tuple[Directory, FakeClock, FakeCondition]:
        clock = FakeClock()
        condition = FakeCondition(clock)
        return Directory(clock, lambda: NOW, condition), clock, condition

    def test_a_lookup_waits_for_the_answer_that_brings_the_instance(self) -> None:
        directory, clock, condition = self.build()
        directory.mark_asked()
        condition.on_wait = lambda: directory.update(inventory("a", build_instance(1)))
        assert directory.get(build_uuid(1)).host == "a"
        assert condition.waits_s == [WARM_LIMIT_S]
        assert clock.now_s == 1000

    def test_what_is_there_is_found_without_a_wait(self) -> None:
        directory, _, condition = self.build()
        directory.mark_asked()
        directory.update(inventory("a", build_instance(1)))
        directory.get(build_uuid(1))
        assert condition.waits_s == []

    def test_after_the_first_hosts_answer_the_others_have_a_moment(self) -> None:
        directory, clock, _ = self.build()
        directory.mark_asked()
        directory.update(inventory("a", build_instance(1)))
        with pytest.raises(errors.InstanceNotFound):
            directory.get(build_uuid(2))
        assert clock.now_s == pytest.approx(1000 + WARM_QUIET_S)

    def test_hosts_that_go_on_appearing_do_not_hold_a_reader_past_the_limit(self) -> None:
        directory, clock, condition = self.build()
        directory.mark_asked()
        hosts = iter(f"host-{number}" for number in range(1000))

        def appear() -> None:
            clock.now_s += WARM_QUIET_S / 2
            directory.update(inventory(next(hosts)))
            condition.on_wait = appear

        condition.on_wait = appear
        with pytest.raises(errors.InstanceNotFound):
            directory.get(build_uuid(1))
        assert clock.now_s <= 1000 + WARM_MOST_S + WARM_QUIET_S

    def test_a_list_waits_for_as_long_as_hosts_go_on_appearing(self) -> None:
        """A thousand hosts take longer than the wait for one; who asks first gets the instances of all."""
        directory, clock, condition = self.build()
        directory.mark_asked()
        count = int(2 * WARM_LIMIT_S / WARM_QUIET_S)
        hosts = iter(range(1, count + 1))

        def appear() -> None:
            clock.now_s += WARM_QUIET_S * 0.9
            number = next(hosts)
            directory.update(inventory(f"host-{number}", build_instance(number)))
            condition.on_wait = appear if number < count else None

        condition.on_wait = appear
        assert len(names(directory)) == count
        assert clock.now_s > 1000 + WARM_LIMIT_S

    def test_without_any_compute_it_cannot_be_said_whether_an_instance_exists(self) -> None:
        directory, clock, _ = self.build()
        directory.mark_asked()
        with pytest.raises(errors.RpcUnavailable):
            directory.get(build_uuid(1))
        assert clock.now_s == 1000 + WARM_LIMIT_S
        assert names(directory) == []

    def test_before_the_computes_could_be_asked_a_list_is_unavailable_and_soon_at_once(self) -> None:
        directory, clock, condition = self.build()
        with pytest.raises(errors.RpcUnavailable):
            directory.list_instances()
        assert clock.now_s == 1000 + WARM_LIMIT_S
        condition.waits_s.clear()
        with pytest.raises(errors.RpcUnavailable):
            directory.get(build_uuid(1))
        assert condition.waits_s == []

    def test_a_reader_in_another_thread_is_woken(self) -> None:
        clock = FakeClock()
        directory = Directory(clock, lambda: NOW)
        directory.mark_asked()
        found: list[str] = []
        reader = threading.Thread(target=lambda: found.append(directory.get(build_uuid(1)).host))
        reader.start()
        directory.update(inventory("a", build_instance(1)))
        reader.join(30)
        assert found == ["a"]


def test_how_long_each_host_has_been_silent() -> None:
    clock = FakeClock()
    directory = Directory(clock, condition=FakeCondition(clock))
    directory.update(inventory("a"))
    clock.now_s += 100
    directory.update(inventory("b"))
    clock.now_s += 5
    assert directory.list_silences() == {"a": 105, "b": 5}


class TestNews:
    """What of the hosts' comings and goings an operator reads in the log."""

    @pytest.fixture(autouse=True)
    def _at_info(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "porthole_api.directory")

    def test_a_host_is_found_once(self, caplog: pytest.LogCaptureFixture) -> None:
        directory = build_directory()
        for _ in range(3):
            directory.update(inventory("a", build_instance(1)))
        assert caplog.messages == ["Host found compute=a instances=1"]

    def test_a_silent_host_is_lost_once_and_found_again(self, caplog: pytest.LogCaptureFixture) -> None:
        clock = FakeClock()
        directory = build_directory(clock)
        directory.update(inventory("a", build_instance(1)))
        directory.update(inventory("b"))
        clock.now_s += SILENT_AFTER_S
        directory.update(inventory("b"))
        directory.note_silent_hosts()
        assert len(caplog.messages) == 2
        clock.now_s += 1
        for _ in range(3):
            directory.note_silent_hosts()
        directory.update(inventory("a", build_instance(1)))
        directory.note_silent_hosts()
        assert caplog.messages[2:] == [
            "Host lost compute=a seconds=91.0",
            "Host found compute=a instances=1",
        ]

    def test_a_hypervisor_is_lost_once_and_found_again(self, caplog: pytest.LogCaptureFixture) -> None:
        directory = build_directory()
        for up in (True, False, False, True, True):
            directory.update(inventory("a", up=up))
        assert caplog.messages[1:] == [f"Hypervisor {news} compute=a instances=0" for news in ("lost", "found")]

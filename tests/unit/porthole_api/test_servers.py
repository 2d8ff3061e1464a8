# SPDX-License-Identifier: Apache-2.0
"""Who sees which server, and what a list is narrowed to."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_api.directory import Directory
from porthole_api.servers import SORT_KEYS, Filters, get_server, get_status, list_servers
from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.model import Instance, InstanceState
from porthole_common.notifications import Inventory
from support.api import HOST, build_directory, build_instance, build_uuid
from support.cases import naming

ADMIN = RequestContext(project_id="ops", is_admin=True, overwrite=False)
MEMBER = RequestContext(project_id="red", is_admin=False, overwrite=False)
NOBODY = RequestContext(project_id=None, is_admin=False, overwrite=False)
RED, BLUE, OWNERLESS = (
    build_instance(1, "red-1", project_id="red"),
    build_instance(2, "blue-1", project_id="blue"),
    build_instance(3, "stray", project_id=None),
)


def build(*instances: Instance) -> Directory:
    directory = build_directory()
    directory.update(Inventory(HOST, instances))
    return directory


def names(directory: Directory, context: RequestContext = ADMIN, **filters: object) -> list[str]:
    page, _ = list_servers(directory, context, Filters(**{"all_projects": bool(context.is_admin), **filters}))  # type: ignore[arg-type]
    return [located.instance.name for located in page]


class TestWhoSees:
    def test_a_user_sees_the_projects_own_and_an_administrator_all(self) -> None:
        cases = [("admin", ADMIN, ["blue-1", "red-1", "stray"]), ("member", MEMBER, ["red-1"]), ("nobody", NOBODY, [])]
        for who, context, seen in cases:
            with naming(who, seen):
                directory = build(RED, BLUE, OWNERLESS)
                assert names(directory, context) == seen
                for instance in (RED, BLUE, OWNERLESS):
                    if instance.name in seen:
                        assert get_server(directory, context, instance.uuid).instance == instance
                    else:
                        with pytest.raises(errors.InstanceNotFound):
                            get_server(directory, context, instance.uuid)

    def test_anothers_instance_is_as_unknown_as_none(self) -> None:
        directory = build(BLUE)
        messages = []
        for uuid in (BLUE.uuid, build_uuid(99)):
            with pytest.raises(errors.InstanceNotFound) as caught:
                get_server(directory, MEMBER, uuid)
            messages.append(str(caught.value).replace(uuid, "X"))
        assert messages[0] == messages[1]

    def test_anothers_instance_is_no_marker(self) -> None:
        with pytest.raises(errors.RequestInvalid, match="marker"):
            names(build(RED, BLUE), MEMBER, marker=BLUE.uuid)

    def test_a_name_is_no_id(self) -> None:
        for name in ["red-1", "", "detail", RED.uuid + "\n", "é"]:
            with naming(name), pytest.raises(errors.InstanceNotFound):
                get_server(build(RED), ADMIN, name)

    def test_capitals_in_an_id_do_not_matter(self) -> None:
        assert get_server(build(RED), ADMIN, RED.uuid.upper()).instance == RED


class TestFilters:
    def test_a_name_is_matched_as_text_or_expression(self) -> None:
        cases = [
            ("vm", ["VM (1)", "vm1", "vm2"]),
            ("^vm[12]$", ["vm1", "vm2"]),
            ("VM1", ["vm1"]),
            ("VM (1)", ["VM (1)"]),
            ("(1", ["VM (1)"]),
            ("x", []),
            ("", ["VM (1)", "vm1", "vm2"]),
            ("V.1", ["vm1"]),
            ("vm..", ["VM (1)"]),
            ("vm...", ["VM (1)"]),
            ("vm.1.", []),
            (".", ["VM (1)", "vm1", "vm2"]),
            ("m..1", ["VM (1)"]),
        ]
        for name, found in cases:
            with naming(name, found):
                directory = build(build_instance(1, "vm1"), build_instance(2, "vm2"), build_instance(3, "VM (1)"))
                assert names(directory, name=name) == found

    def test_no_expression_takes_long(self) -> None:
        cases = ["(a+)+$", "(a|a)*$", "a{1,1000}{1,1000}{1,1000}", "a{99999999}", "(" * 250, "(?R)"]
        for name in cases:
            with naming(name):
                directory = build(*(build_instance(number, "a" * 200 + "!") for number in range(100)))
                started_at_s = time.monotonic()
                names(directory, name=name)
                assert time.monotonic() - started_at_s < 5

    @given(st.text(max_size=60))
    def test_any_name_filter_gives_a_list(self, name: str) -> None:
        assert set(names(build(RED, BLUE), name=name)) <= {"red-1", "blue-1"}

    def test_a_name_filter_longer_than_a_name_is_refused(self) -> None:
        with pytest.raises(errors.RequestInvalid, match="255"):
            names(build(RED), name="x" * 256)

    def test_a_status_is_matched(self) -> None:
        directory = build(RED, build_instance(4, "off", state=InstanceState.SHUTOFF))
        assert names(directory, status="SHUTOFF") == ["off"]

    def test_pages_follow_each_other_and_the_last_says_so(self) -> None:
        directory = build(*(build_instance(number, "same") for number in range(1, 6)))
        marker, seen, more = None, [], True
        while more:
            page, more = list_servers(directory, ADMIN, Filters(all_projects=True, limit=2, marker=marker))
            seen += [located.instance.uuid for located in page]
            marker = seen[-1].upper()
        assert seen == [build_uuid(number) for number in range(1, 6)]

    def test_a_full_last_page_is_the_last(self) -> None:
        page, more = list_servers(build(RED, BLUE), ADMIN, Filters(all_projects=True, limit=2))
        assert (len(page), more) == (2, False)

    def test_a_page_of_the_projects_own_passes_over_the_others(self) -> None:
        own = [build_instance(number, project_id="red" if number % 10 == 0 else "blue") for number in range(1, 50)]
        page, more = list_servers(build(*own), MEMBER, Filters(limit=3))
        assert ([located.instance.uuid for located in page], more) == ([build_uuid(n) for n in (10, 20, 30)], True)

    def test_an_unknown_marker_is_refused(self) -> None:
        for marker in ["", "red-1", build_uuid(9)]:
            with naming(marker), pytest.raises(errors.RequestInvalid, match="marker"):
                names(build(RED), marker=marker)

    def test_a_host_and_a_project_are_matched(self) -> None:
        directory = build(RED)
        directory.update(Inventory("host-b", (BLUE,)))
        assert names(directory, host="host-b") == ["blue-1"]
        assert names(directory, project_id="red") == ["red-1"]

    def test_an_administrators_own_list_is_of_the_project_and_of_nobody(self) -> None:
        admin = RequestContext(project_id="red", is_admin=True, overwrite=False)
        assert names(build(RED, BLUE, OWNERLESS), admin, all_projects=False) == ["red-1", "stray"]

    def test_pages_in_any_order_have_each_server_once(self) -> None:
        cases = [(), (("host", True),), (("display_name", False), ("uuid", True)), (("uuid", True),)]
        for sort in cases:
            with naming(sort):
                directory = build(*(build_instance(number, f"vm{number % 3}") for number in range(1, 8)))
                everything, _ = list_servers(directory, ADMIN, Filters(all_projects=True, sort=sort))
                marker, seen, more = None, [], True
                while more:
                    page, more = list_servers(
                        directory, ADMIN, Filters(all_projects=True, limit=2, marker=marker, sort=sort)
                    )
                    seen += page
                    marker = seen[-1].instance.uuid
                assert seen == everything
                assert len(seen) == 7

    def test_the_first_key_goes_before_the_second(self) -> None:
        directory = build(build_instance(1, "b"), build_instance(2, "a"), build_instance(3, "a"))
        page, _ = list_servers(
            directory, ADMIN, Filters(all_projects=True, sort=(("display_name", False), ("uuid", True)))
        )
        assert [located.instance.uuid for located in page] == [build_uuid(3), build_uuid(2), build_uuid(1)]

    def test_every_key_sorts(self) -> None:
        for key in sorted(SORT_KEYS):
            with naming(key):
                directory = build(RED, BLUE, OWNERLESS)
                up, _ = list_servers(directory, ADMIN, Filters(all_projects=True, sort=((key, False),)))
                assert len(up) == 3

    def test_the_marker_need_not_have_the_name_that_is_looked_for(self) -> None:
        for sort in [(), (("uuid", False),)]:
            with naming(sort):
                directory = build(*(build_instance(number, f"{'ab'[number % 2]}{number}") for number in range(1, 7)))
                found = names(directory, name="^b", marker=build_uuid(2), sort=sort)
                assert found == (["b3", "b5"] if sort else ["b1", "b3", "b5"])
                assert names(directory, name="^b", sort=(("uuid", True),)) == ["b5", "b3", "b1"]

    def test_an_unknown_marker_is_refused_in_any_order(self) -> None:
        for marker in [build_uuid(9), BLUE.uuid]:
            with naming(marker), pytest.raises(errors.RequestInvalid, match="marker"):
                names(build(RED, BLUE), MEMBER, marker=marker, sort=(("uuid", True),))


def test_every_state_has_one_of_novas_statuses() -> None:
    statuses = {
        state: get_status(get_server(build(build_instance(1, state=state)), ADMIN, build_uuid(1)))
        for state in InstanceState
    }
    assert statuses == {
        InstanceState.RUNNING: "ACTIVE",
        InstanceState.PAUSED: "PAUSED",
        InstanceState.SUSPENDED: "SUSPENDED",
        InstanceState.SHUTOFF: "SHUTOFF",
        InstanceState.CRASHED: "ERROR",
        InstanceState.BUILDING: "BUILD",
        InstanceState.MIGRATING: "MIGRATING",
        InstanceState.DELETING: "ACTIVE",
        InstanceState.UNKNOWN: "UNKNOWN",
    }

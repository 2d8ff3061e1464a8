# SPDX-License-Identifier: Apache-2.0
"""The server's body at every microversion: exactly these keys, and of these shapes."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from porthole_api.directory import Located
from porthole_api.microversions import Version
from porthole_api.server_body import View
from porthole_common import errors
from porthole_common.model import InstanceState
from support.api import HOST, NOW, build_instance
from support.cases import naming

BASE, BOOKMARK = "http://api.example/v2.1", "http://api.example"
MEMBERS_KEYS = {
    "id", "name", "status", "tenant_id", "user_id", "metadata", "hostId", "image", "flavor", "created", "updated",
    "addresses", "links", "OS-EXT-STS:task_state", "OS-EXT-STS:vm_state", "OS-EXT-STS:power_state",
}  # fmt: skip
ADMINS_KEYS = {"OS-EXT-SRV-ATTR:host", "OS-EXT-SRV-ATTR:hypervisor_hostname", "OS-EXT-SRV-ATTR:instance_name"}
# What each microversion added (compute API microversion history); those between change nothing here.
ADDED: list[tuple[Version, set[str]]] = [
    ((2, 9), {"locked"}),
    ((2, 19), {"description"}),
    ((2, 26), {"tags"}),
    ((2, 63), {"trusted_image_certificates"}),
    ((2, 73), {"locked_reason"}),
    ((2, 96), {"pinned_availability_zone"}),
]
VERSIONS: list[Version] = [(2, minor) for minor in range(1, 97)]


def located(state: InstanceState = InstanceState.RUNNING, **fields: Any) -> Located:
    return Located(build_instance(1, state=state, project_id="red", user_id="rita"), HOST, NOW, NOW, **fields)


def build_detail(located: Located, version: Version, is_admin: bool = False, bookmark: str = BOOKMARK) -> Any:
    """The server as it stands in a list."""
    return json.loads(View(version, is_admin, BASE, bookmark).encode_detail(located))


def build_shown(located: Located, version: Version, is_admin: bool = False) -> Any:
    return View(version, is_admin, BASE, BOOKMARK).build_shown(located)


def expected_keys(version: Version) -> set[str]:
    return MEMBERS_KEYS.union(*(keys for since, keys in ADDED if version >= since))


def test_a_server_has_the_keys_of_its_microversion_and_no_others() -> None:
    for version in VERSIONS:
        with naming(version):
            detail = build_detail(located(), version)
            assert set(detail) == expected_keys(version)
            shown = build_shown(located(), version)
            assert set(shown) == expected_keys(version) | ({"server_groups"} if version >= (2, 71) else set())
            assert shown.items() >= detail.items()


def test_an_administrator_sees_the_host() -> None:
    for version in VERSIONS:
        with naming(version):
            detail = build_detail(located(), version, True)
            added = ADMINS_KEYS | ({"host_status"} if version >= (2, 16) else set())
            assert set(detail) == expected_keys(version) | added
            assert detail["OS-EXT-SRV-ATTR:host"] == HOST


def test_the_values() -> None:
    assert build_shown(located(), (2, 96)) == {
        "id": build_instance(1).uuid,
        "name": "vm1",
        "status": "ACTIVE",
        "tenant_id": "red",
        "user_id": "rita",
        "metadata": {},
        "hostId": "",
        "image": "",
        "flavor": {
            "original_name": "unknown",
            **dict.fromkeys(("ram", "vcpus", "disk", "ephemeral", "swap"), 0),
            "extra_specs": {},
        },
        "created": "2026-01-31T12:00:00Z",
        "updated": "2026-01-31T12:00:00Z",
        "addresses": {},
        "links": [
            {"rel": "self", "href": f"{BASE}/servers/{build_instance(1).uuid}"},
            {"rel": "bookmark", "href": f"{BOOKMARK}/servers/{build_instance(1).uuid}"},
        ],
        "OS-EXT-STS:task_state": None,
        "OS-EXT-STS:vm_state": "active",
        "OS-EXT-STS:power_state": 1,
        "locked": False,
        "description": None,
        "tags": [],
        "trusted_image_certificates": None,
        "server_groups": [],
        "locked_reason": None,
        "pinned_availability_zone": None,
    }


def test_the_flavor_is_a_link_and_later_embedded() -> None:
    cases = [
        ((2, 46), {"properties": {"id": {"type": "string"}, "links": {"minItems": 1}}, "required": ["id", "links"]}),
        (
            (2, 47),
            {
                "properties": {"original_name": {"type": "string"}, "extra_specs": {"type": "object"}},
                "patternProperties": {"^(ram|vcpus|disk|ephemeral|swap)$": {"type": "integer"}},
                "required": ["original_name", "ram", "vcpus", "disk", "ephemeral", "swap"],
            },
        ),
    ]
    for version, schema in cases:
        with naming(version, schema):
            flavor = build_detail(located(), version)["flavor"]
            jsonschema.validate(flavor, {"type": "object", "additionalProperties": False, **schema})


def test_a_line_of_a_list_has_three_keys() -> None:
    brief = json.loads(View((2, 1), True, BASE, BOOKMARK).encode_brief(located()))
    assert brief == {key: build_shown(located(), (2, 1))[key] for key in ("id", "name", "links")}


TEXTS = st.text(max_size=30) | st.sampled_from(["%", "%(uuid)s", '"', "\\", "\0uuid\0", "\\u0000name\\u0000", "{}"])


@given(TEXTS, TEXTS, TEXTS, st.sampled_from(InstanceState), st.booleans())
def test_whatever_a_server_is_called_its_json_is_the_servers(
    name: str, project_id: str, host: str, state: InstanceState, is_admin: bool
) -> None:
    """What is filled into the JSON of a list stays text, and each server of a list has its own."""
    view = View((2, 70), is_admin, "http://%31.example/%(uuid)s", BOOKMARK)
    for number in (1, 2):
        one = Located(build_instance(number, name, state=state, project_id=project_id), host, NOW, NOW)
        assert json.loads(view.encode_detail(one)) == view.build_shown(one)
        assert json.loads(view.encode_brief(one)).items() <= view.build_shown(one).items()


def test_an_instance_without_owner_has_empty_strings() -> None:
    detail = build_detail(Located(build_instance(1), HOST, NOW, NOW), (2, 1), True)
    assert (detail["tenant_id"], detail["user_id"]) == ("", "")


def test_the_extended_states() -> None:
    cases = [
        (InstanceState.RUNNING, (None, "active", 1)),
        (InstanceState.PAUSED, (None, "paused", 3)),
        (InstanceState.SUSPENDED, (None, "suspended", 7)),
        (InstanceState.SHUTOFF, (None, "stopped", 4)),
        (InstanceState.CRASHED, (None, "error", 6)),
        (InstanceState.BUILDING, ("spawning", "building", 0)),
        (InstanceState.MIGRATING, ("migrating", "active", 1)),
        (InstanceState.DELETING, ("deleting", "active", 1)),
    ]
    for state, extended in cases:
        with naming(state, extended):
            detail = build_detail(located(state), (2, 1))
            assert tuple(detail[f"OS-EXT-STS:{name}"] for name in ("task_state", "vm_state", "power_state")) == extended


def test_of_a_silent_host_no_state_is_claimed() -> None:
    silent = located(InstanceState.UNKNOWN, unavailable=errors.HostUnavailable(HOST))
    detail = build_detail(silent, (2, 16), True)
    assert (detail["status"], detail["host_status"]) == ("UNKNOWN", "UNKNOWN")
    assert "OS-EXT-STS:vm_state" not in detail


def test_a_host_whose_hypervisor_is_down_is_up_itself() -> None:
    deaf = located(InstanceState.UNKNOWN, unavailable=errors.HypervisorUnavailable(HOST))
    assert build_detail(deaf, (2, 16), True)["host_status"] == "UP"


def test_times_are_utc_to_the_second() -> None:
    moment = datetime(2026, 1, 31, 14, 0, 0, 999, tzinfo=timezone(timedelta(hours=2)))
    detail = build_detail(Located(build_instance(1), HOST, moment, moment), (2, 1))
    assert detail["created"] == datetime(2026, 1, 31, 12, tzinfo=UTC).isoformat().replace("+00:00", "Z")

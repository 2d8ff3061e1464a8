# SPDX-License-Identifier: Apache-2.0
import json
import os
import resource
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from porthole_common.diagnosis import Reach, Vitals, read_vitals
from porthole_common.model import Target
from support.descriptions import INSTANCE, make_api, make_certificate, make_host, make_proxy, make_store, make_vitals

EVERYTHING = [
    make_vitals(),
    make_vitals(boot_id=None),
    make_host(),
    make_host(displays=(), refusal="it is down", more_displays=True),
    make_host(overdue=(INSTANCE,)),
    make_store(),
    make_proxy(),
    make_proxy(certificate=make_certificate(), novnc_version=None, trusted_proxies=("192.0.2.1",)),
    make_api(),
    make_certificate(),
    Reach(Target("192.0.2.1", 5900), "", (1, 19)),
]


@pytest.mark.parametrize("value", EVERYTHING, ids=lambda value: type(value).__name__)
def test_round_trip_through_json(value: Any) -> None:
    assert type(value).from_primitive(json.loads(json.dumps(value.to_primitive()))) == value


@pytest.mark.parametrize("value", EVERYTHING, ids=lambda value: type(value).__name__)
def test_a_newer_daemon_may_say_more(value: Any) -> None:
    assert type(value).from_primitive(value.to_primitive() | {"mood": "good"}) == value


def test_the_vitals_of_this_process() -> None:
    vitals = read_vitals("host1", 300)
    assert (vitals.host, vitals.pid, vitals.descriptors_needed) == ("host1", os.getpid(), 300)
    assert vitals.descriptor_limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert abs(datetime.now(UTC) - vitals.now) < timedelta(seconds=60)
    assert vitals.network.startswith("net:[")
    assert vitals.shares_loopback(read_vitals("host2", 1))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({}, True),
        ({"network": "net:[1]"}, False),
        ({"boot_id": "another"}, False),
        # Two machines of one name, of which one does not tell its boot id: nothing says that they differ.
        ({"boot_id": None}, True),
        ({"boot_id": None, "node": "another"}, False),
        # A container has a name of its own, and perhaps the machine's network.
        ({"node": "another"}, True),
    ],
)
def test_whose_loopback_is_the_same(other: dict[str, Any], expected: bool) -> None:
    one: Vitals = make_vitals("host1")
    assert one.shares_loopback(make_vitals("host1", **other)) is expected
    assert make_vitals("host1", **other).shares_loopback(one) is expected

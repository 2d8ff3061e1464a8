# SPDX-License-Identifier: Apache-2.0
import inspect
from typing import Any

from porthole_api.endpoint import ApiEndpoint
from porthole_api.rpcapi import TOPIC, VERSION, PortholeAPI
from porthole_common.context import build_daemon_context
from support.bus import fake_bus
from support.compute_fakes import make_conf


class Hosts:
    def list_silences(self) -> dict[str, float]:
        return {"compute1": 3.5}

    def list_duplicates(self, limit: int) -> dict[str, list[str]]:
        return {"5a9d4f5e-0000-4000-8000-000000000001": ["compute1", "compute2"]}


def names_of(kind: type) -> list[str]:
    return [name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")]


def test_client_and_endpoint_agree() -> None:
    assert names_of(PortholeAPI) == names_of(ApiEndpoint)
    assert ApiEndpoint.target.version == VERSION


def test_the_description_over_the_bus() -> None:
    conf: Any = make_conf(api={"workers": 7})
    with fake_bus() as bus:
        server = bus.get_server(TOPIC, "node1-8774", [ApiEndpoint(conf, Hosts())])
        server.start()
        description = PortholeAPI(bus).describe_api(build_daemon_context(), "node1-8774")
        server.stop()
    assert description.silent_s == {"compute1": 3.5}
    assert description.duplicates == {"5a9d4f5e-0000-4000-8000-000000000001": ["compute1", "compute2"]}
    assert (description.vitals.host, description.vitals.descriptors_needed) == ("node1", 142)

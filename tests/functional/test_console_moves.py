# SPDX-License-Identifier: Apache-2.0
"""VNC servers that change hands behind a token's back: what is refused is not dialled either.

With libvirt and QEMU the same is in test_console_path.py; a VNC server of the test counts who connects to it.
"""

import json
import uuid as uuidlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support.console import get_console, refusal, token_of, wait_for_instances
from support.daemons import Porthole
from support.processes import wait_until
from support.vnc_servers import EchoVnc, TrapServer

FIRST, SECOND = str(uuidlib.uuid4()), str(uuidlib.uuid4())
OTHER_HOST = "127.0.0.2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instances.yaml"


@pytest.fixture
def start(make_porthole: Callable[..., Porthole], path: Path) -> Callable[..., Porthole]:
    """A maker of daemons that know the given instances."""

    def run(*instances: tuple[str, str, int]) -> Porthole:
        write(path, *instances)
        porthole = make_porthole(instances_file=path)
        wait_for_instances(porthole, *(uuid for uuid, _host, _port in instances))
        return porthole

    return run


def write(path: Path, *instances: tuple[str, str, int]) -> None:
    rows = [{"uuid": uuid, "name": uuid[:8], "host": host, "port": port} for uuid, host, port in instances]
    path.write_text(yaml.safe_dump({"instances": rows}), encoding="utf-8")


def change(porthole: Porthole, path: Path, *instances: tuple[str, str, int]) -> None:
    """Change the instances while compute is away: it revokes nothing, and knows the new ones when it is back."""
    porthole.compute.kill()
    write(path, *instances)
    porthole.start_daemon("compute")


def test_a_port_that_another_guest_has_now_is_not_dialled(start: Callable[..., Porthole], path: Path) -> None:
    """S1: the token of the first tenant is refused, and the guest of the second sees no connection."""
    with EchoVnc() as server, EchoVnc() as elsewhere:
        porthole = start((FIRST, server.host, server.port))
        token = token_of(get_console(porthole, FIRST))
        assert refusal(porthole.novnc_port, token) == 101
        before = server.accepted
        change(porthole, path, (SECOND, server.host, server.port), (FIRST, elsewhere.host, elsewhere.port))
        assert refusal(porthole.novnc_port, token) == 401
        assert (server.accepted, elsewhere.accepted) == (before, 0)
        wait_for_instances(porthole, SECOND)
        assert refusal(porthole.novnc_port, token_of(get_console(porthole, SECOND))) == 101
        assert server.accepted == before + 1


def test_a_guest_at_the_same_port_of_another_host_is_not_where_it_was(
    start: Callable[..., Porthole], path: Path
) -> None:
    """S2: a trap listens at the old address; neither the old token nor a new one leads there."""
    with EchoVnc() as server:
        port = server.port
        porthole = start((FIRST, server.host, port))
        token = token_of(get_console(porthole, FIRST))
        assert refusal(porthole.novnc_port, token) == 101
    with TrapServer(port) as trap, EchoVnc(port=port, host=OTHER_HOST) as moved:
        change(porthole, path, (FIRST, OTHER_HOST, port))
        assert refusal(porthole.novnc_port, token) == 401
        assert (trap.accepted, moved.accepted) == (0, 0)
        assert refusal(porthole.novnc_port, token_of(get_console(porthole, FIRST))) == 101
        assert (trap.accepted, moved.accepted) == (0, 1)


def test_two_hosts_with_one_uuid(start: Callable[..., Porthole], path: Path, tmp_path: Path) -> None:
    """S21: the first one's name and console stay until its host has it no more; then those of the second count."""
    other_path = tmp_path / "other.yaml"
    with EchoVnc() as first, EchoVnc() as second:
        porthole = start((FIRST, first.host, first.port))
        rows = [{"uuid": FIRST, "name": "copy", "host": second.host, "port": second.port}]
        rows += [{"uuid": SECOND, "name": "marker", "host": second.host, "port": second.port}]
        other_path.write_text(yaml.safe_dump({"instances": rows}), encoding="utf-8")
        porthole.add("compute", "other", {"DEFAULT": {"host": "other"}, "static": {"instances_file": other_path}})
        porthole.start_daemon("other")
        wait_for_instances(porthole, SECOND)
        assert find(porthole, FIRST[:8]) == [FIRST]
        assert find(porthole, "copy") == []
        assert refusal(porthole.novnc_port, token_of(get_console(porthole, FIRST))) == 101
        assert (first.accepted, second.accepted) == (1, 0)
        change(porthole, path)
        wait_until(lambda: find(porthole, "copy") == [FIRST], 60, "the second host's name", porthole.api.log)
        assert find(porthole, FIRST[:8]) == []
        assert refusal(porthole.novnc_port, token_of(get_console(porthole, FIRST))) == 101
        assert (first.accepted, second.accepted) == (1, 1)


def find(porthole: Porthole, name: str) -> list[str]:
    """Return the UUIDs of the servers with that name."""
    _status, answer = porthole.request(f"/v2.1/servers?name=^{name}$")
    return [server["id"] for server in json.loads(answer)["servers"]]

# SPDX-License-Identifier: Apache-2.0
"""URLs for watching, and URLs for one session, from the command to two proxies, with a real broker and memcached."""

import json
import os
import uuid as uuidlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from support.console import open_console, read_greeting, refusal, token_of, wait_for_instances
from support.daemons import Porthole
from support.ports import free_port
from support.programs import run_program
from support.vnc_servers import GREETING, EchoVnc

CROWD = 100
NONE, SHARED = b"\x01", b"\x01"
KEY, ASK = b"\x04\x01\x00\x00\x00\x00\x00a", b"\x03\x01\x00\x00\x00\x00\x04\x00\x03\x00"


@pytest.fixture
def site(make_porthole: Callable[..., Porthole], tmp_path: Path) -> Iterator[tuple[Porthole, str, list[int]]]:
    """Four daemons and a second proxy; the UUID of an instance whose VNC server echoes; the ports of both proxies."""
    with ExitStack() as stack:
        echo = stack.enter_context(EchoVnc())
        uuid = str(uuidlib.uuid4())
        path = tmp_path / "instances.yaml"
        entry = {"uuid": uuid, "name": "echo", "host": "127.0.0.1", "port": echo.port}
        path.write_text(yaml.safe_dump({"instances": [entry]}), encoding="utf-8")
        limits = {f"max_sessions_per_{what}": 2 * CROWD for what in ("source", "token", "instance")}
        porthole = make_porthole(instances_file=path, options={"novncproxy": limits})
        other_port = free_port()
        ports = {"novncproxy_port": other_port, "xvpvncproxy_port": free_port()}
        porthole.add("novncproxy", "second", {"vnc": ports})
        porthole.start_daemon("second")
        wait_for_instances(porthole, uuid)
        yield porthole, uuid, [porthole.novnc_port, other_port]


def create(porthole: Porthole, *arguments: str) -> dict[str, object]:
    """Return what ``porthole console create`` printed."""
    cloud = ["--os-auth-type", "none", "--os-endpoint", f"{porthole.api_url}/v2.1"]
    argv = [*cloud, "console", "create", *arguments, "-f", "json"]
    done = run_program("porthole_cli.main", *argv, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    printed: dict[str, object] = json.loads(done.stdout)
    return printed


def test_of_a_crowd_at_two_proxies_one_gets_in(site: tuple[Porthole, str, list[int]]) -> None:
    porthole, _uuid, ports = site
    made = create(porthole, "echo", "--one-time", "--expires", "120")
    assert (made["mode"], made["uses"]) == ("control", 1)
    token = token_of(str(made["url"]))
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda number: refusal(ports[number % 2], token), range(CROWD)))
    assert statuses.count(101) == 1
    # One address whose tokens fail too often is told to wait.
    assert set(statuses) <= {101, 401, 429}


def test_a_watcher_sees_and_does_not_type(site: tuple[Porthole, str, list[int]]) -> None:
    porthole, uuid, ports = site
    made = create(porthole, uuid, "--view-only")
    assert (made["mode"], made["uses"], made["type"]) == ("view", "any number", "novnc")
    for port in ports:
        with open_console(port, token_of(str(made["url"]))) as console:
            assert read_greeting(console) == GREETING
            console.send(GREETING + NONE + SHARED)
            console.send(KEY + ASK)
            expected, received = GREETING + NONE + SHARED + ASK, b""
            while len(received) < len(expected):
                received += console.recv(timeout=20)
            assert received == expected
    assert "mode=view" in porthole.novncproxy.log()


def test_a_life_longer_than_the_services_is_refused(site: tuple[Porthole, str, list[int]]) -> None:
    porthole, uuid, _ports = site
    body = json.dumps({"console": {"expires_in": 86400}}).encode()
    status, answer = porthole.request(f"/porthole/v1/servers/{uuid}/consoles", body)
    assert status == 400
    assert "the life of a URL in seconds is not a number from 1 to 600" in json.loads(answer)["badRequest"]["message"]

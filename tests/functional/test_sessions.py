# SPDX-License-Identifier: Apache-2.0
"""Who is on, and ending it: two proxies, one of them of two processes, with a real broker and memcached."""

import json
import os
import signal
import uuid as uuidlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import websockets.exceptions
import yaml
from websockets.sync.connection import Connection

from porthole_novncproxy.rpcapi import SESSIONS_TIMEOUT_S
from support.console import get_console, open_console, read_greeting, refusal, token_of, wait_for_instances
from support.daemons import Porthole
from support.deadlines import kept_within
from support.ports import free_port
from support.processes import wait_until
from support.programs import run_program
from support.vnc_servers import EchoVnc

WORKERS = 2


class Site:
    """The daemons, two proxies, and an instance whose VNC server echoes."""

    def __init__(self, porthole: Porthole, uuid: str, other_port: int) -> None:
        self.porthole = porthole
        self.uuid = uuid
        self.ports = (porthole.novnc_port, other_port)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command; return its status and what it printed."""
        cloud = ["--os-auth-type", "none", "--os-endpoint", f"{self.porthole.api_url}/v2.1"]
        done = run_program("porthole_cli.main", *cloud, *arguments, env=dict(os.environ))
        return done.returncode, done.stdout, done.stderr

    def list(self, query: str = "") -> dict[str, list[dict[str, str]]]:
        status, body = self.porthole.request(f"/porthole/v1/sessions?{query}")
        assert status == 200, body
        answer: dict[str, list[dict[str, str]]] = json.loads(body)
        return answer


@pytest.fixture
def site(make_porthole: Callable[..., Porthole], tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        echo = stack.enter_context(EchoVnc())
        uuid = str(uuidlib.uuid4())
        path = tmp_path / "instances.yaml"
        entry = {"uuid": uuid, "name": "echo", "host": "127.0.0.1", "port": echo.port}
        path.write_text(yaml.safe_dump({"instances": [entry]}), encoding="utf-8")
        limits = {f"max_sessions_per_{what}": 100 for what in ("source", "token", "instance")}
        porthole = make_porthole(instances_file=path, options={"novncproxy": limits})
        other_port = free_port()
        ports = {"novncproxy_port": other_port, "xvpvncproxy_port": free_port()}
        second = porthole.add("novncproxy", "second", {"vnc": ports, "novncproxy": {"workers": WORKERS, **limits}})
        second.start()
        for worker in range(WORKERS):
            second.wait_for_line(f"Worker ready program=porthole-novncproxy worker={worker}")
        wait_for_instances(porthole, uuid)
        yield Site(porthole, uuid, other_port)


@pytest.fixture
def consoles(site: Site, stack: ExitStack) -> list[Connection]:
    """Open consoles: three at the first proxy and four at the second, oldest first."""
    token = token_of(get_console(site.porthole, site.uuid))
    opened = []
    for port in [site.ports[0]] * 3 + [site.ports[1]] * 4:
        opened.append(stack.enter_context(open_console(port, token)))
        read_greeting(opened[-1])
    wait_until(lambda: len(site.list()["sessions"]) == len(opened), 30, "all sessions to be listed")
    return opened


def read_close(console: Connection) -> tuple[int, str]:
    """Return the code and the reason of the close frame that the proxy sends."""
    try:
        while True:
            console.recv(timeout=30)
    except websockets.exceptions.ConnectionClosed as exc:
        end = exc.rcvd
    assert end is not None, "no close frame"
    return end.code, end.reason


def test_all_processes_of_all_proxies_are_asked(site: Site, consoles: list[Connection]) -> None:
    answer = site.list()
    assert answer["unreachable"] == []
    sessions = answer["sessions"]
    assert [each["id"] for each in sessions] == sorted((each["id"] for each in sessions), reverse=True)
    names = {each["proxy"] for each in sessions}
    first = f"{site.porthole.host}-{site.ports[0]}-0"
    assert first in names
    assert names <= {first, *(f"{site.porthole.host}-{site.ports[1]}-{number}" for number in range(WORKERS))}
    assert {each["mode"] for each in sessions} == {"control"}
    # Page by page, the same.
    pages, marker = [], ""
    while True:
        page = site.list(f"limit=3{marker}")
        pages += page["sessions"]
        if "sessions_links" not in page:
            break
        marker = f"&marker={page['sessions'][-1]['id']}"
    assert [each["id"] for each in pages] == [each["id"] for each in sessions]
    assert site.list(f"server={uuidlib.uuid4()}")["sessions"] == []


def test_a_session_is_ended_by_the_command_and_its_client_is_told(site: Site, consoles: list[Connection]) -> None:
    newest = site.list("limit=1")["sessions"][0]["id"]
    status, out, err = site.run("session", "end", newest, "--reason", "rescue \u865a")
    assert (status, out, err) == (0, f"Session {newest} has been ended.\n", "")
    code, reason = read_close(consoles[-1])
    assert code == 4403
    assert reason.startswith("Ended by ")
    assert reason.endswith(": rescue \u865a")
    status, out, _ = site.run("session", "list", "-f", "json")
    rows = json.loads(out)
    assert (status, len(rows)) == (0, len(consoles) - 1)
    assert {row["Server"] for row in rows} == {"echo"}
    assert site.run("session", "show", rows[0]["ID"])[0] == 0
    for command in ("show", "end"):
        status, _, err = site.run("session", command, newest)
        assert (status, err) == (1, f"Session {newest} could not be found. (HTTP 404)\n")
    assert f"Console ended by a user session={newest}" in site.porthole.processes["second"].log()


def test_all_sessions_of_a_server_end_and_its_urls_open_nothing(site: Site, consoles: list[Connection]) -> None:
    token = token_of(get_console(site.porthole, site.uuid))
    status, out, err = site.run("session", "end", "--server", "echo", "--reason", "over")
    assert (status, err) == (0, "")
    assert out == f"{len(consoles)} sessions ended, 2 URLs revoked.\n"
    for console in consoles:
        code, reason = read_close(console)
        assert (code, reason.endswith(": over")) == (4403, True)
    assert refusal(site.ports[0], token) == 401
    assert site.list()["sessions"] == []


def test_a_frozen_proxy_is_named_and_costs_a_second(site: Site, consoles: list[Connection]) -> None:
    frozen = site.porthole.novncproxy
    frozen.signal(signal.SIGSTOP)
    try:
        for _ in range(2):
            with kept_within(SESSIONS_TIMEOUT_S, "a list without one proxy"):
                answer = site.list()
            assert answer["unreachable"] == [f"{site.porthole.host}-{site.ports[0]}-0"]
            assert len(answer["sessions"]) == 4
        status, _, err = site.run("session", "list")
        assert (status, err) == (0, f"Not complete: no answer from {answer['unreachable'][0]}.\n")
        # A session that nobody has may be there.
        assert site.porthole.request(f"/porthole/v1/sessions/{uuidlib.uuid4()}")[0] == 503
    finally:
        frozen.signal(signal.SIGCONT)
    wait_until(lambda: len(site.list()["sessions"]) == len(consoles), 30, "the proxy to answer again")

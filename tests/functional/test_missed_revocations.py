# SPDX-License-Identifier: Apache-2.0
"""Revocations that never reach the proxy: the console ends all the same, since the proxy asks again.

The VNC servers go on in all of these tests, so that nothing but the proxy can end a console.
"""

import signal
import uuid as uuidlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from websockets.exceptions import ConnectionClosed
from websockets.sync.connection import Connection

from support.console import get_console, is_alive, open_console, read_greeting, token_of, wait_for_instances
from support.daemons import Porthole
from support.deadlines import kept_within
from support.processes import wait_until
from support.rabbitmq import RabbitMQ
from support.vnc_servers import EchoVnc

MakePorthole = Callable[..., Porthole]
STAYS, ENDS = str(uuidlib.uuid4()), str(uuidlib.uuid4())
# As long as no test lasts, so that an event has the proxy ask, and not the interval.
NEVER = {"novncproxy": {"recheck_interval": 3600}, "rpc": {"call_timeout": 3}}
OFTEN_S = 1
OFTEN = {"novncproxy": {"recheck_interval": OFTEN_S}, "rpc": {"call_timeout": 2}}
# oslo.messaging connects again within some 4 s (rabbit_interval_max); then see LOOK_S and SPREAD_S.
AFTER_RETURN_S = 6.0
# A look at the subscription, the spread and the question.
AFTER_START_S = 3.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instances.yaml"


def write(path: Path, vnc: EchoVnc, *uuids: str) -> None:
    rows = [{"uuid": uuid, "name": uuid[:8], "host": vnc.host, "port": vnc.port} for uuid in uuids]
    path.write_text(yaml.safe_dump({"instances": rows}), encoding="utf-8")


def open_consoles(stack: ExitStack, porthole: Porthole, *uuids: str) -> list[Connection]:
    wait_for_instances(porthole, *uuids)
    connections = []
    for uuid in uuids:
        connections.append(
            stack.enter_context(open_console(porthole.novnc_port, token_of(get_console(porthole, uuid))))
        )
        read_greeting(connections[-1])
    return connections


def assert_ends(connection: Connection, timeout_s: float) -> None:
    with pytest.raises(ConnectionClosed) as caught, kept_within(timeout_s, "the end of the console"):
        connection.recv(timeout=30)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4401, "The console was revoked")


def test_the_broker_restarts_and_a_guest_stops_while_the_proxy_stands_still(
    make_porthole: MakePorthole, own_rabbitmq: RabbitMQ, path: Path, echo: EchoVnc, stack: ExitStack
) -> None:
    write(path, echo, STAYS, ENDS)
    porthole = make_porthole(rabbitmq=own_rabbitmq, instances_file=path, options=NEVER)
    stays, ends = open_consoles(stack, porthole, STAYS, ENDS)
    proxy, compute = porthole.processes["novncproxy"], porthole.processes["compute"]
    proxy.signal(signal.SIGSTOP)
    own_rabbitmq.kill()
    own_rabbitmq.start()
    write(path, echo, STAYS)
    compute.signal(signal.SIGHUP)
    compute.wait_for_line(f"Revocation done instance={ENDS}", 60)
    proxy.signal(signal.SIGCONT)
    assert_ends(ends, AFTER_RETURN_S)
    assert is_alive(stays)
    assert "Revocation received" not in proxy.log()


def test_an_entry_is_taken_out_while_compute_is_away(
    make_porthole: MakePorthole, path: Path, echo: EchoVnc, stack: ExitStack
) -> None:
    """As long as compute is away, nothing ends."""
    write(path, echo, STAYS, ENDS)
    porthole = make_porthole(instances_file=path, options=NEVER)
    stays, ends = open_consoles(stack, porthole, STAYS, ENDS)
    porthole.compute.kill()
    write(path, echo, STAYS)
    assert is_alive(ends)
    porthole.start_daemon("compute")
    assert_ends(ends, AFTER_START_S)
    assert is_alive(stays)


def test_the_interval_alone_finds_what_ended(
    make_porthole: MakePorthole, path: Path, echo: EchoVnc, stack: ExitStack
) -> None:
    """consoleauth is away, so that nobody publishes the revocation."""
    write(path, echo, STAYS, ENDS)
    porthole = make_porthole(instances_file=path, options=OFTEN)
    stays, ends = open_consoles(stack, porthole, STAYS, ENDS)
    porthole.consoleauth.kill()
    write(path, echo, STAYS)
    porthole.compute.signal(signal.SIGHUP)
    assert_ends(ends, 2 * OFTEN_S)
    assert is_alive(stays)


def test_a_compute_that_is_frozen_ends_nothing_and_costs_no_other_host(
    make_porthole: MakePorthole, path: Path, tmp_path: Path, echo: EchoVnc, stack: ExitStack
) -> None:
    write(path, echo, STAYS)
    other_path = tmp_path / "other.yaml"
    write(other_path, echo, ENDS)
    porthole = make_porthole(instances_file=path, options=OFTEN)
    other = {"DEFAULT": {"host": f"{porthole.host}-other"}, "static": {"instances_file": other_path}}
    porthole.add("compute", "compute-other", other)
    porthole.start_daemon("compute-other")
    stays, ends = open_consoles(stack, porthole, STAYS, ENDS)
    proxy = porthole.processes["novncproxy"]
    porthole.compute.signal(signal.SIGSTOP)
    proxy.wait_for_line("Open consoles not validated; asking again", 30)
    porthole.processes["compute-other"].kill()
    write(other_path, echo)
    porthole.start_daemon("compute-other")
    assert_ends(ends, AFTER_START_S)
    assert is_alive(stays)
    porthole.compute.signal(signal.SIGCONT)
    proxy.wait_for_line("Open consoles validated again", 30)
    assert is_alive(stays)
    lines = proxy.log().splitlines()
    host = f"compute={porthole.host} "
    assert sum("Open consoles not validated" in line and host in line for line in lines) == 1


def test_workers_ask_about_their_own_consoles(
    make_porthole: MakePorthole, path: Path, echo: EchoVnc, stack: ExitStack
) -> None:
    write(path, echo, ENDS)
    porthole = make_porthole(
        instances_file=path, options={**NEVER, "novncproxy": {**NEVER["novncproxy"], "workers": 2}}
    )
    connections = [console for _ in range(4) for console in open_consoles(stack, porthole, ENDS)]
    porthole.compute.kill()
    write(path, echo)
    porthole.start_daemon("compute")
    for connection in connections:
        assert_ends(connection, AFTER_START_S)
    log = porthole.processes["novncproxy"].log()
    workers = {line.split()[2] for line in log.splitlines() if "Console opened" in line}
    ending = {line.split()[2] for line in log.splitlines() if "Open consoles no longer valid" in line}
    wait_until(lambda: ending == workers, 1, "each worker's line")

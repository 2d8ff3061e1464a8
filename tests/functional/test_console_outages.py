# SPDX-License-Identifier: Apache-2.0
"""What a user meets when a part is broken: a defined status in time, and everything back by itself.

One broken part at a time: memcached, RabbitMQ, compute, consoleauth, libvirtd; and the number of broker connections,
which consoles must not change (O2).
"""

import os
import signal
import socket
import time
import urllib.request
import uuid as uuidlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from websockets.sync.connection import Connection

from support.console import (
    ask_console,
    ask_remote_console,
    get_console,
    open_console,
    read_greeting,
    refusal,
    token_of,
    wait_for_instances,
)
from support.daemons import Porthole
from support.deadlines import kept_within, time_call
from support.libvirtd import Libvirtd, guest_xml
from support.memcached import Memcached
from support.processes import wait_until
from support.rabbitmq import RabbitMQ
from support.vnc_servers import EchoVnc, reset
from support.websocket import build_upgrade

MakePorthole = Callable[..., Porthole]
RPC_TIMEOUT_S = 3
# The deadline of one call, and of the second call of the same request.
ANSWER_S = 2 * RPC_TIMEOUT_S
OPTIONS = {"rpc": {"call_timeout": RPC_TIMEOUT_S}}


@pytest.fixture
def vnc() -> Iterator[EchoVnc]:
    with EchoVnc() as server:
        yield server


@pytest.fixture
def instances_file(tmp_path: Path, vnc: EchoVnc) -> Path:
    """One instance, whose VNC server echoes what it gets."""
    path = tmp_path / "instances.yaml"
    write_instances(path, vnc.port, str(uuidlib.uuid4()))
    return path


def write_instances(path: Path, port: int, *uuids: str) -> None:
    instances = [
        {"uuid": uuid, "name": f"vnc-{index}", "host": "127.0.0.1", "port": port, "project_id": "p", "user_id": "u"}
        for index, uuid in enumerate(uuids)
    ]
    path.write_text(yaml.safe_dump({"instances": instances}), encoding="utf-8")


def uuid_in(path: Path) -> str:
    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["instances"][0]["uuid"])


def assert_alive(connection: Connection) -> None:
    """Send bytes through the console and get them back."""
    probe = uuidlib.uuid4().bytes
    connection.send(probe)
    received = b""
    while len(received) < len(probe):
        message = connection.recv(timeout=20)
        assert isinstance(message, bytes)
        received += message
    assert received == probe


def assert_unavailable(porthole: Porthole, uuid: str) -> None:
    """Both routes say 503 within the deadline."""
    for ask in (ask_console, ask_remote_console):
        with kept_within(ANSWER_S, "the answer"):
            status, body = ask(porthole, uuid)
        assert (status, body["serviceUnavailable"]["code"]) == (503, 503)


def wait_until_it_works(porthole: Porthole, uuid: str, timeout_s: float = 60) -> str:
    """Return a token that opened a console, once one can be had."""
    tokens: list[str] = []

    def works() -> bool:
        status, body = ask_console(porthole, uuid)
        if status != 200:
            return False
        tokens.append(token_of(body["console"]["url"]))
        return refusal(porthole.novnc_port, tokens[-1]) == 101

    wait_until(works, timeout_s, "consoles to work again")
    return tokens[-1]


def test_memcached_stopped(make_porthole: MakePorthole, own_memcached: Memcached, instances_file: Path) -> None:
    """O4: 503 at both doors, at once; it works again by itself; an open console never notices."""
    porthole = make_porthole(memcached=own_memcached, instances_file=instances_file, options=OPTIONS)
    uuid = uuid_in(instances_file)
    wait_for_instances(porthole, uuid)
    token = token_of(get_console(porthole, uuid))
    with open_console(porthole.novnc_port, token) as connection:
        read_greeting(connection)
        own_memcached.pause()
        assert_unavailable(porthole, uuid)
        assert refusal(porthole.novnc_port, token) == 503
        own_memcached.resume()
        # Slow is not gone: what was stored before is there after.
        wait_until(lambda: refusal(porthole.novnc_port, token) == 101, 20, "the token to work again")
        own_memcached.stop()
        assert_unavailable(porthole, uuid)
        assert refusal(porthole.novnc_port, token) == 503
        own_memcached.start()
        wait_until_it_works(porthole, uuid)
        assert_alive(connection)


def test_rabbitmq_restarted(make_porthole: MakePorthole, own_rabbitmq: RabbitMQ, instances_file: Path) -> None:
    """503 in time while it is away; the daemons find it again; an open console never notices (O2)."""
    porthole = make_porthole(rabbitmq=own_rabbitmq, instances_file=instances_file, options=OPTIONS)
    uuid = uuid_in(instances_file)
    wait_for_instances(porthole, uuid)
    token = token_of(get_console(porthole, uuid))
    with open_console(porthole.novnc_port, token) as connection:
        read_greeting(connection)
        # As a power cut would: nobody takes leave.
        own_rabbitmq.kill()
        assert_unavailable(porthole, uuid)
        with kept_within(ANSWER_S, "the refusal"):
            assert refusal(porthole.novnc_port, token) == 503
        assert_alive(connection)
        own_rabbitmq.start()
        wait_until_it_works(porthole, uuid)
        assert refusal(porthole.novnc_port, token) == 101
        assert_alive(connection)


def test_rabbitmq_back_before_a_proxy_is(
    make_porthole: MakePorthole, own_rabbitmq: RabbitMQ, own_memcached: Memcached, instances_file: Path
) -> None:
    """The answer that consoleauth had in its hands when the broker died is lost; the next one is not."""
    porthole = make_porthole(
        rabbitmq=own_rabbitmq, memcached=own_memcached, instances_file=instances_file, options=OPTIONS
    )
    uuid = uuid_in(instances_file)
    wait_for_instances(porthole, uuid)
    token = token_of(get_console(porthole, uuid))
    with ThreadPoolExecutor(1) as pool:
        own_memcached.pause()
        asked = pool.submit(refusal, porthole.novnc_port, token)
        wait_until(lambda: has_unread_bytes(own_memcached.port), 30, "consoleauth's question to memcached")
        own_rabbitmq.kill()
        own_memcached.resume()
        porthole.novncproxy.signal(signal.SIGSTOP)
        try:
            # The answer waits for the broker, and is out of date when that is back.
            time.sleep(RPC_TIMEOUT_S)
            own_rabbitmq.start()
            porthole.consoleauth.wait_for_line("drop reply")
        finally:
            porthole.novncproxy.signal(signal.SIGCONT)
        assert asked.result(60) == 503
    wait_until_it_works(porthole, uuid, 20)


def test_compute_dead(make_porthole: MakePorthole, instances_file: Path, tmp_path: Path, vnc: EchoVnc) -> None:
    """503 for its instances within the deadline; another host's are not touched."""
    porthole = make_porthole(instances_file=instances_file, options=OPTIONS)
    other_file, other_uuid = tmp_path / "other.yaml", str(uuidlib.uuid4())
    write_instances(other_file, vnc.port, other_uuid)
    porthole.add(
        "compute", "compute-2", {"DEFAULT": {"host": f"{porthole.host}-2"}, "static": {"instances_file": other_file}}
    )
    porthole.start_daemon("compute-2")
    uuid = uuid_in(instances_file)
    wait_for_instances(porthole, uuid, other_uuid)
    token = token_of(get_console(porthole, uuid))
    porthole.compute.kill()
    assert_unavailable(porthole, uuid)
    assert refusal(porthole.novnc_port, token) == 503
    assert refusal(porthole.novnc_port, token_of(get_console(porthole, other_uuid))) == 101
    porthole.start_daemon("compute")
    # A host that did not answer is tried again every two seconds.
    wait_until(lambda: refusal(porthole.novnc_port, token) == 101, 30, "the token of a living compute to work")


def test_many_clients_of_a_dead_compute(make_porthole: MakePorthole, instances_file: Path, tmp_path: Path) -> None:
    """They hold up neither pages nor the consoles of other hosts (O11)."""
    # Five rounds of the four threads would take far longer than one round and the allowance.
    rpc_timeout_s = 2 * RPC_TIMEOUT_S
    options = {"rpc": {"call_timeout": rpc_timeout_s}, "novncproxy": {"handshake_threads": 4}}
    porthole = make_porthole(instances_file=instances_file, options=options)
    uuid = uuid_in(instances_file)
    wait_for_instances(porthole, uuid)
    token = token_of(get_console(porthole, uuid))
    porthole.compute.kill()
    with ThreadPoolExecutor(20) as pool, kept_within(2 * rpc_timeout_s, "twenty refusals"):
        refusals = [pool.submit(refusal, porthole.novnc_port, token) for _ in range(20)]
        page = urllib.request.urlopen(f"http://127.0.0.1:{porthole.novnc_port}/console.html", timeout=20)
        with page:
            assert page.status == 200
        # It came while the first four still waited for their deadline.
        assert not any(answer.done() for answer in refusals)
        assert {answer.result(60) for answer in refusals} == {503}
    # The first four waited for their deadline; the other sixteen were told at once, as is the next one.

    def is_refused() -> None:
        assert refusal(porthole.novnc_port, token) == 503

    # Now and then one is taken to try whether the host is back.
    assert min(time_call(is_refused) for _ in range(3)) < rpc_timeout_s / 2


def test_a_broker_that_stands_still(make_porthole: MakePorthole, own_rabbitmq: RabbitMQ, instances_file: Path) -> None:
    """O11: its kernel takes what is sent, and nothing answers; all the same everybody is told in time, and where."""
    options = {**OPTIONS, "novncproxy": {"handshake_threads": 4}}
    porthole = make_porthole(rabbitmq=own_rabbitmq, instances_file=instances_file, options=options)
    uuid = uuid_in(instances_file)
    wait_for_instances(porthole, uuid)
    token = token_of(get_console(porthole, uuid))
    assert refusal(porthole.novnc_port, token) == 101
    own_rabbitmq.process.signal(signal.SIGSTOP)
    try:
        with kept_within(ANSWER_S, "all answers"), ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(refusal, porthole.novnc_port, token) for _ in range(4)]
            answers += [pool.submit(lambda: ask_console(porthole, uuid)[0]) for _ in range(4)]
            assert {answer.result(60) for answer in answers} == {503}
    finally:
        own_rabbitmq.process.signal(signal.SIGCONT)
    log = porthole.novncproxy.log()
    assert "RPC not answered topic=consoleauth method=check_token" in log
    assert "No answer from consoleauth to check_token" in log
    wait_until_it_works(porthole, uuid)


def test_consoleauth_dead(make_porthole: MakePorthole, instances_file: Path) -> None:
    """O11: nobody hangs; a token lives through a restart, since it is in memcached alone."""
    porthole = make_porthole(instances_file=instances_file, options=OPTIONS)
    uuid = uuid_in(instances_file)
    wait_for_instances(porthole, uuid)
    token = token_of(get_console(porthole, uuid))
    porthole.consoleauth.kill()
    assert_unavailable(porthole, uuid)
    with kept_within(ANSWER_S, "the refusal"):
        assert refusal(porthole.novnc_port, token) == 503
    porthole.start_daemon("consoleauth")
    assert refusal(porthole.novnc_port, token) == 101


def test_libvirtd_restarted(make_porthole: MakePorthole, libvirtd: Libvirtd) -> None:
    """The guest lives, an open console goes on, and compute finds libvirt again."""
    uuid = str(uuidlib.uuid4())
    libvirtd.create(guest_xml("survivor", uuid))
    porthole = make_porthole(libvirt_uri=libvirtd.uri, options=OPTIONS)
    wait_for_instances(porthole, uuid)
    token = token_of(get_console(porthole, uuid))
    with open_console(porthole.novnc_port, token) as connection:
        read_greeting(connection)
        libvirtd.stop()
        wait_until(lambda: ask_console(porthole, uuid)[0] == 503, 20, "the outage to be noticed")
        assert refusal(porthole.novnc_port, token) == 503
        libvirtd.start()
        wait_until_it_works(porthole, uuid)
        # It was never stopped, so its token was never revoked.
        assert refusal(porthole.novnc_port, token) == 101
        connection.send(b"RFB 003.008\n")
        assert connection.recv(timeout=20)


def test_vnc_server_dead_or_silent(make_porthole: MakePorthole, tmp_path: Path) -> None:
    """502 and 504 before the upgrade (C18)."""
    dead, silent = str(uuidlib.uuid4()), str(uuidlib.uuid4())
    with socket.create_server(("127.0.0.1", 0)) as silent_server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        instances = [
            {"uuid": dead, "name": "dead", "host": "127.0.0.1", "port": closed.getsockname()[1]},
            {"uuid": silent, "name": "silent", "host": "127.0.0.1", "port": silent_server.getsockname()[1]},
        ]
        path = tmp_path / "instances.yaml"
        path.write_text(yaml.safe_dump({"instances": instances}), encoding="utf-8")
        porthole = make_porthole(instances_file=path, options={"novncproxy": {"dial_timeout": 1}})
        wait_for_instances(porthole, dead, silent)
        assert refusal(porthole.novnc_port, token_of(get_console(porthole, dead))) == 502
        with kept_within(1, "the dial"):
            assert refusal(porthole.novnc_port, token_of(get_console(porthole, silent))) == 504


def test_consoles_make_no_broker_connections(
    make_porthole: MakePorthole, own_rabbitmq: RabbitMQ, instances_file: Path
) -> None:
    """As many with none, one and a hundred, and after 5 000 junk tokens and 5 000 resets; no more memory, threads and
    processes either (O1, O2, S11).
    """
    options = {"novncproxy": {"max_sessions_per_token": 200, "max_sessions_per_instance": 200}}
    porthole = make_porthole(rabbitmq=own_rabbitmq, instances_file=instances_file, options=options)
    uuid, pid = uuid_in(instances_file), porthole.novncproxy.pid
    wait_for_instances(porthole, uuid)
    token = token_of(get_console(porthole, uuid))
    assert refusal(porthole.novnc_port, token) == 101
    with ExitStack() as stack:
        none_open = own_rabbitmq.connection_count()
        read_greeting(stack.enter_context(open_console(porthole.novnc_port, token)))
        before = own_rabbitmq.connection_count()
        assert before == none_open
        threads = count_threads(pid)
        connections = [stack.enter_context(open_console(porthole.novnc_port, token)) for _ in range(100)]
        for connection in connections:
            read_greeting(connection)
        # A connection that broke and stands again counts twice for a moment.
        wait_until(lambda: own_rabbitmq.connection_count() == before, 30, f"{before} connections to the broker")
        # Clients that come one after the other need no second handshake thread, but may be quicker than the first.
        assert (count_threads(pid) <= threads + 4, children_of(pid)) == (True, [])
        # After a number of them, the address is told to wait.
        for _ in range(200):
            assert refusal(porthole.novnc_port, str(uuidlib.uuid4())) in {401, 429}
        memory = resident_bytes(pid)
        for number in range(5000):
            assert send_junk(porthole.novnc_port, number) in {b"HTTP/1.1 401", b"HTTP/1.1 429"}
            with socket.create_connection(("127.0.0.1", porthole.novnc_port), 20) as sock:
                reset(sock)
        wait_until(lambda: own_rabbitmq.connection_count() == before, 30, f"{before} connections to the broker")
        assert resident_bytes(pid) - memory < 10_000_000
        assert_alive(connections[-1])


def has_unread_bytes(port: int) -> bool:
    """Say whether the kernel holds bytes for a server that does not read (proc_net_tcp)."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    established = (fields for fields in map(str.split, lines) if fields[3] == "01")
    return any(
        fields[1].endswith(f":{port:04X}") and int(fields[4].partition(":")[2], 16) > 0 for fields in established
    )


def send_junk(port: int, number: int) -> bytes:
    """Ask for a console with a token that is none; return the beginning of the answer."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(build_upgrade(f"/?token=junk{number}"))
        return sock.recv(12, socket.MSG_WAITALL)


def count_threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def children_of(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

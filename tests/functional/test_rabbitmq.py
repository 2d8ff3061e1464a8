# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ as a site has it: over TLS, as a cluster with quorum queues, and as a broker that refuses."""

import contextlib
import socket
import threading
import uuid as uuidlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from porthole_common.broker_watch import PROBE_S
from support.certificates import Authority
from support.console import ask_console, get_console, open_console, read_greeting, refusal, token_of, wait_for_instances
from support.daemons import DAEMONS, Porthole
from support.ports import free_port
from support.processes import Process, wait_until
from support.rabbitmq import LOOPBACK, RabbitMQ
from support.vnc_servers import EchoVnc

MakePorthole = Callable[..., Porthole]
RPC_TIMEOUT_S = 4
NODES = 3


@pytest.fixture
def vnc() -> Iterator[EchoVnc]:
    with EchoVnc() as server:
        yield server


@pytest.fixture
def instances_file(tmp_path: Path, vnc: EchoVnc) -> Path:
    path = tmp_path / "instances.yaml"
    instance = {"uuid": str(uuidlib.uuid4()), "name": "vnc-1", "host": "127.0.0.1", "port": vnc.port}
    path.write_text(yaml.safe_dump({"instances": [instance]}), encoding="utf-8")
    return path


def uuid_in(path: Path) -> str:
    return str(yaml.safe_load(path.read_text(encoding="utf-8"))["instances"][0]["uuid"])


def build_tls(broker: RabbitMQ, authority: Authority, host: str) -> dict[str, dict[str, object]]:
    return {
        "DEFAULT": {"transport_url": broker.transport_url.replace("127.0.0.1", host)},
        "oslo_messaging_rabbit": {"ssl": True, "ssl_ca_file": authority.cert},
        "rpc": {"call_timeout": RPC_TIMEOUT_S},
    }


def test_tls(make_porthole: MakePorthole, tmp_path: Path, instances_file: Path) -> None:
    """Consoles open over it; of another authority, or another's name, the broker is none to anybody."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    with RabbitMQ(tmp_path / "broker", certificate=authority.issue("localhost")) as broker:
        porthole = make_porthole(
            rabbitmq=broker, instances_file=instances_file, options=build_tls(broker, authority, "localhost")
        )
        uuid = uuid_in(instances_file)
        wait_for_instances(porthole, uuid)
        with open_console(porthole.novnc_port, token_of(get_console(porthole, uuid))) as connection:
            read_greeting(connection)
        wrong = {
            # It leads to 127.0.0.1 (inet_aton(3)), and is no name that the certificate bears.
            "name": build_tls(broker, authority, "127.1"),
            "authority": build_tls(broker, other, "localhost"),
        }
        for what, options in wrong.items():
            porthole.add("consoleauth", what, options).start()
        for what, said in (("name", "certificate is not valid for"), ("authority", "error=tls")):
            process = porthole.processes[what]
            process.wait_for_line(said)
            assert "Daemon ready" not in process.log()
            process.kill()


def test_tls_that_would_trust_anybody_is_refused(make_porthole: MakePorthole, instances_file: Path) -> None:
    options = {"oslo_messaging_rabbit": {"ssl": True}}
    porthole = make_porthole(instances_file=instances_file, options=options, daemons=[])
    porthole.consoleauth.start()
    assert porthole.consoleauth.wait(90) == 78
    assert "ssl_ca_file" in porthole.consoleauth.log()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[RabbitMQ]]:
    with ExitStack() as stack:
        seed = stack.enter_context(RabbitMQ(tmp_path / "node1"))
        nodes = [seed, *(RabbitMQ(tmp_path / f"node{number}", seed=seed) for number in range(2, NODES + 1))]
        for node in nodes:
            stack.callback(node.close)
        with ThreadPoolExecutor() as pool:
            list(pool.map(RabbitMQ.start, nodes[1:]))
        yield nodes


def test_a_cluster_with_quorum_queues_loses_a_node(
    make_porthole: MakePorthole, cluster: list[RabbitMQ], instances_file: Path
) -> None:
    """The node dies that most connections lead to: consoles open again, and open ones go on."""
    hosts = ",".join(node.transport_url.removeprefix("rabbit://").rstrip("/") for node in cluster)
    options = {
        "DEFAULT": {"transport_url": f"rabbit://{hosts}/"},
        "oslo_messaging_rabbit": {"rabbit_quorum_queue": True, "rabbit_transient_quorum_queue": True},
        "rpc": {"call_timeout": RPC_TIMEOUT_S},
    }
    porthole = make_porthole(rabbitmq=cluster[0], instances_file=instances_file, options=options)
    uuid = uuid_in(instances_file)
    wait_for_instances(porthole, uuid)
    token = token_of(get_console(porthole, uuid))
    with open_console(porthole.novnc_port, token) as connection:
        read_greeting(connection)
        # Each connection has gone to a node by chance.
        most_used = max(cluster, key=RabbitMQ.connection_count)
        assert most_used.connection_count() > 0
        most_used.kill()
        wait_until(lambda: refusal(porthole.novnc_port, token) == 101, 30, "the token to work", porthole.logs)

        def opens_another() -> bool:
            """Each daemon has several connections, and finds out of each by itself that it led to that node."""
            status, body = ask_console(porthole, uuid)
            return status == 200 and refusal(porthole.novnc_port, token_of(body["console"]["url"])) == 101

        wait_until(opens_another, 30, "another console", porthole.logs)
        connection.send(b"still there")
        assert connection.recv(timeout=20) == b"still there"


class NotABroker:
    """Answers each connection as a web server would."""

    def __init__(self) -> None:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                with contextlib.suppress(OSError), sock:
                    sock.settimeout(5)
                    sock.recv(100)
                    sock.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

    def close(self) -> None:
        # A thread in accept(2) would keep a socket that is only closed.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def lines_of_trouble(process: Process) -> list[str]:
    """Return what it wrote of a connection, and of anything that went wrong; other threads' lines are left out."""
    words = ("ERROR", "CRITICAL", "Traceback", "Connection", "connection", "AMQP")
    return [line for line in process.log().splitlines() if any(word in line for word in words)]


def check_trouble(process: Process, cause: str, address: str, words: str) -> None:
    process.wait_for_line("Message broker unusable")
    (line,) = lines_of_trouble(process)
    assert f" address={address} login=guest error={cause} reason=" in line
    assert words in line
    assert ":guest@" not in process.log()


def test_a_broker_that_refuses_is_named_in_one_line_and_so_is_its_return(
    make_porthole: MakePorthole, tmp_path: Path, instances_file: Path
) -> None:
    """An address, a virtual host and a password that are wrong, and a port of something else; each daemon says so."""
    with RabbitMQ(tmp_path / "broker") as broker, contextlib.closing(NotABroker()) as other:
        where, nobody = f"{LOOPBACK}:{broker.port}", free_port()
        quiet = {"DEFAULT": {"debug": False}, "rpc": {"call_timeout": RPC_TIMEOUT_S}}
        porthole = make_porthole(rabbitmq=broker, instances_file=instances_file, options=quiet, daemons=[])
        wrong = {
            "vhost": (f"rabbit://guest:guest@{where}/nowhere", where, 'the virtual host \\"nowhere\\"'),
            "address": (f"rabbit://guest:guest@{LOOPBACK}:{nobody}/", f"{LOOPBACK}:{nobody}", "Connection refused"),
            "protocol": (f"rabbit://guest:guest@{LOOPBACK}:{other.port}/", f"{LOOPBACK}:{other.port}", "not a broker"),
        }
        for cause, (url, _, _) in wrong.items():
            porthole.add("consoleauth", cause, {"DEFAULT": {"transport_url": url}}).start()
        for cause, (_, address, words) in wrong.items():
            check_trouble(porthole.processes[cause], cause, address, words)
            porthole.processes[cause].stop()
        broker.change_password("changed-meanwhile")
        for name in DAEMONS:
            porthole.processes[name].start()
        for name in DAEMONS:
            check_trouble(porthole.processes[name], "credentials", where, 'user \\"guest\\"')
        # It has been tried meanwhile, by several threads.
        broker.change_password("guest")
        for name in DAEMONS:
            process = porthole.processes[name]
            process.wait_for_line(f"Message broker usable again address={where}")
            process.wait_for_line("Daemon ready")
            assert len(lines_of_trouble(process)) == 1
        wait_for_instances(porthole, uuid_in(instances_file))


def test_a_broker_that_takes_no_messages_is_named_by_each_daemon(
    make_porthole: MakePorthole, tmp_path: Path, instances_file: Path
) -> None:
    """Also by one that has nothing to send; and consoles open when the alarm is over, without a restart."""
    with RabbitMQ(tmp_path / "broker") as broker:
        where = f"{LOOPBACK}:{broker.port}"
        quiet = {"DEFAULT": {"debug": False}, "rpc": {"call_timeout": RPC_TIMEOUT_S}}
        porthole = make_porthole(rabbitmq=broker, instances_file=instances_file, options=quiet)
        uuid = uuid_in(instances_file)
        wait_for_instances(porthole, uuid)
        with broker.memory_alarm():
            for name in DAEMONS:
                # A probe, and as long again for a broker's and a daemon's thread to get their turn.
                porthole.processes[name].wait_for_line("Message broker unusable", timeout_s=2 * PROBE_S)
            for name in DAEMONS:
                (line,) = lines_of_trouble(porthole.processes[name])
                assert f" address={where} login=guest error=blocked reason=" in line
        for name in DAEMONS:
            porthole.processes[name].wait_for_line(f"Message broker usable again address={where}")
        wait_until(lambda: ask_console(porthole, uuid)[0] == 200, 30, "a console", porthole.logs)

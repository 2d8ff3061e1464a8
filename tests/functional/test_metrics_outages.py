# SPDX-License-Identifier: Apache-2.0
"""Metrics while something is missing: the broker, the port, the process that has the port."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from support.daemons import Porthole, format_conf
from support.memcached import Memcached
from support.ports import free_port
from support.processes import Process, wait_until
from support.rabbitmq import RabbitMQ
from support.scrapes import Scrape, scrape

TIMEOUT_S = 60
# A WSGI server's worker, as far as its metrics are concerned.
WSGI_WORKER = """
import sys, threading
from oslo_config import cfg
from porthole_common import conf, metrics, metrics_gathering
conf.parse(cfg.CONF, "porthole-api", ["--config-file", sys.argv[1]])
metrics.INVENTORY_AGE.add_source(lambda: [(("node1",), 1)])
for server in metrics_gathering.build_peers(cfg.CONF, "api"):
    server.start()
print("Started", flush=True)
threading.Event().wait()
"""


def try_scrape(port: int) -> Scrape | None:
    with contextlib.suppress(OSError):
        return scrape(port)
    return None


def make_consoleauth(directory: Path, rabbitmq: RabbitMQ, memcached: Memcached, port: int) -> tuple[Porthole, Process]:
    path = directory / "instances.yaml"
    path.write_text(yaml.safe_dump({"instances": []}), encoding="utf-8")
    porthole = Porthole(directory / "p", rabbitmq, memcached, instances_file=path, daemons=())
    return porthole, porthole.add("consoleauth", "measured", {"metrics": {"bind_port": port}})


def test_the_connection_to_the_broker_is_seen(
    own_rabbitmq: RabbitMQ, memcached: Memcached, tmp_path: Path, stack: ExitStack
) -> None:
    port = free_port()
    porthole, daemon = make_consoleauth(tmp_path, own_rabbitmq, memcached, port)
    stack.callback(porthole.stop)
    own_rabbitmq.stop()
    daemon.start()

    def is_connected(state: int) -> Callable[[], bool]:
        return lambda: (found := try_scrape(port)) is not None and found.get("porthole_broker_connected") == state

    # Before it is ready, too.
    wait_until(is_connected(0), TIMEOUT_S, "a daemon without a broker")
    wait_until(lambda: scrape(port).get("porthole_brokers_unusable") == 1, TIMEOUT_S, "the broker's examination")
    own_rabbitmq.start()
    wait_until(is_connected(1), TIMEOUT_S, "the connection")
    wait_until(lambda: scrape(port).get("porthole_brokers_unusable") == 0, TIMEOUT_S, "the end of the examination")
    own_rabbitmq.stop()
    wait_until(is_connected(0), TIMEOUT_S, "the loss of the connection")


def test_a_port_in_use_keeps_no_daemon_from_its_work(
    rabbitmq: RabbitMQ, memcached: Memcached, tmp_path: Path, stack: ExitStack
) -> None:
    holder = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = holder.getsockname()[1]
    porthole, daemon = make_consoleauth(tmp_path, rabbitmq, memcached, port)
    stack.callback(porthole.stop)
    daemon.start()
    daemon.wait_for_line("Daemon ready", TIMEOUT_S)
    [line] = [line for line in daemon.log().splitlines() if "Metrics not served; trying again" in line]
    assert f"127.0.0.1:{port}" in line
    assert "[metrics] bind_host, bind_port" in line
    holder.close()
    wait_until(lambda: try_scrape(port) is not None, TIMEOUT_S, "the port")
    assert daemon.log().count("Metrics not served") == 1


@pytest.fixture
def start_worker(tmp_path: Path, stack: ExitStack) -> Callable[[int], "subprocess.Popen[str]"]:
    def start(port: int) -> "subprocess.Popen[str]":
        path = tmp_path / "porthole.conf"
        path.write_text(format_conf({"metrics": {"bind_port": port}}), encoding="utf-8")
        argv = [sys.executable, "-c", WSGI_WORKER, str(path)]
        env = os.environ | {"PYTHONWARNINGS": "ignore"}
        worker = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env))
        stack.callback(worker.kill)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "Started\n"
        return worker

    return start


def test_the_processes_of_a_wsgi_server_are_one_scrape(start_worker: Callable[[int], "subprocess.Popen[str]"]) -> None:
    port = free_port()
    first = start_worker(port)
    wait_until(lambda: try_scrape(port) is not None, TIMEOUT_S, "the first process")
    start_worker(port)
    wait_until(lambda: scrape(port).get("porthole_worker_up") == 2, TIMEOUT_S, "both processes")
    found = scrape(port)
    assert found.get("porthole_inventory_age_seconds", worker="0") == 1
    assert found.get("porthole_inventory_age_seconds", worker="1") == 1
    # The other one takes the port over.
    first.kill()
    first.wait(TIMEOUT_S)
    wait_until(lambda: (each := try_scrape(port)) is not None and each.get("porthole_worker_up") == 1, TIMEOUT_S, "it")
    assert scrape(port).list_values("porthole_worker_up", "worker") == {"1"}
    # And the next process has the number that is free.
    start_worker(port)
    wait_until(lambda: scrape(port).get("porthole_worker_up") == 2, TIMEOUT_S, "the next process")
    assert scrape(port).list_values("porthole_worker_up", "worker") == {"0", "1"}

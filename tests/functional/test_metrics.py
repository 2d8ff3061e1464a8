# SPDX-License-Identifier: Apache-2.0
"""``/metrics`` of running daemons: what is counted, all workers in one scrape, and Prometheus' judgement."""

import os
import re
import signal
import time
import uuid as uuidlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from porthole_common.metrics import DEFINITIONS
from support.console import (
    connect_xvp,
    get_console,
    is_alive,
    open_console,
    read_greeting,
    refusal,
    token_of,
    wait_for_instances,
)
from support.daemons import DAEMONS, Porthole
from support.memcached import Memcached
from support.ports import free_port
from support.processes import Process, wait_until
from support.rabbitmq import RabbitMQ
from support.scrapes import Scrape, run_promtool, scrape
from support.vnc_servers import EchoVnc

WORKERS = 2
TIMEOUT_S = 30
USER = "admin"


class Site:
    """Four daemons, the proxy with workers, each with metrics at a port of its own; one instance."""

    def __init__(self, directory: Path, rabbitmq: RabbitMQ, memcached: Memcached, vnc: EchoVnc) -> None:
        self.uuid = str(uuidlib.uuid4())
        path = directory / "instances.yaml"
        instance = {"uuid": self.uuid, "name": "echo", "host": "127.0.0.1", "port": vnc.port}
        path.write_text(yaml.safe_dump({"instances": [instance]}), encoding="utf-8")
        self.porthole = Porthole(
            directory,
            rabbitmq,
            memcached,
            instances_file=path,
            options={"novncproxy": {"workers": WORKERS, "max_sessions_per_token": 20}},
            daemons=(),
        )
        self.ports = {daemon: free_port() for daemon in DAEMONS}
        self.processes = {
            daemon: self.porthole.add(daemon, f"measured-{daemon}", {"metrics": {"bind_port": self.ports[daemon]}})
            for daemon in DAEMONS
        }
        self.tokens: list[str] = []

    def start(self) -> None:
        for process in self.processes.values():
            process.start()
        for process in self.processes.values():
            process.wait_for_line("Daemon ready", TIMEOUT_S)
        wait_for_instances(self.porthole, self.uuid)

    def make_token(self, console_type: str = "novnc") -> str:
        self.tokens.append(token_of(get_console(self.porthole, self.uuid, console_type)))
        return self.tokens[-1]

    def scrape(self, daemon: str = "novncproxy") -> Scrape:
        return scrape(self.ports[daemon])

    @property
    def proxy(self) -> Process:
        return self.processes["novncproxy"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitMQ, memcached: Memcached) -> Iterator[Site]:
    with EchoVnc() as vnc:
        site = Site(tmp_path_factory.mktemp("metrics"), rabbitmq, memcached, vnc)
        try:
            site.start()
            yield site
        finally:
            site.porthole.stop()


def test_each_daemon_serves_its_metrics_and_prometheus_finds_no_fault(site: Site) -> None:
    for daemon in DAEMONS:
        found = site.scrape(daemon)
        expected = {name for name, each in DEFINITIONS.items() if daemon in each.on}
        # Of a name, the page and the code are compared by a unit test.
        assert found.names == expected, daemon
        assert run_promtool("check", "metrics", text=found.text) == (0, ""), daemon
        assert found.get("porthole_build_info", version="0.1.0") >= 1
        assert found.get("process_open_fds") > 5
    assert "9777" not in site.porthole.logs()


def test_consoles_are_counted_from_their_tokens_to_their_ends(site: Site, stack: ExitStack) -> None:
    before, before_auth, before_api = site.scrape(), site.scrape("consoleauth"), site.scrape("api")
    connections = [stack.enter_context(open_console(site.porthole.novnc_port, site.make_token())) for _ in range(6)]
    for connection in connections:
        read_greeting(connection)
    _, viewer = connect_xvp(site.porthole.xvp_port, site.make_token("xvpvnc"))
    with viewer:
        wait_until(lambda: site.scrape().get("porthole_sessions") == 7, TIMEOUT_S, "seven consoles")
        during = site.scrape()
        assert during.get("porthole_sessions", door="novnc", mode="control") == 6
        assert during.list_values("porthole_sessions", "worker") == {"0", "1"}
    payload = b"x" * 5000
    connections[0].send(payload)
    received = b""
    while len(received) < len(payload):
        received += connections[0].recv(timeout=TIMEOUT_S)  # type: ignore[operator]
    assert refusal(site.porthole.novnc_port, str(uuidlib.uuid4())) == 401
    for connection in connections:
        connection.close()
    wait_until(lambda: site.scrape().get("porthole_sessions") == 0, TIMEOUT_S, "the consoles to end")
    after, after_auth, after_api = site.scrape(), site.scrape("consoleauth"), site.scrape("api")

    def grown(name: str, **labels: str) -> float:
        return after.get(name, **labels) - before.get(name, **labels)

    assert grown("porthole_openings_total", outcome="opened") == 7
    assert grown("porthole_openings_total", outcome="refused") == 1
    assert grown("porthole_refusals_total", reason="token_invalid_unknown", status="401") == 1
    assert grown("porthole_opening_stage_seconds_count", stage="check") == 8
    assert grown("porthole_opening_stage_seconds_count", stage="dial") == 7
    assert grown("porthole_sessions_ended_total") == 7
    assert grown("porthole_relayed_bytes_total", door="novnc", direction="from_client") == len(payload)
    assert grown("porthole_relayed_bytes_total", door="novnc", direction="to_client") >= len(payload) + 6 * 12
    # Before and after the dial; questions that are asked at once are one.
    assert 7 <= grown("porthole_rpc_call_seconds_count", method="validate_console") <= 14
    assert after.get("porthole_loop_lag_seconds_count") > 0
    made = "porthole_tokens_authorized_total"
    assert after_auth.get(made) - before_auth.get(made) == 7
    refused = "porthole_token_checks_total"
    assert after_auth.get(refused, outcome="refused") - before_auth.get(refused, outcome="refused") == 1
    posts = "porthole_http_request_seconds_count"
    assert after_api.get(posts, method="POST", status="200") - before_api.get(posts, method="POST", status="200") == 7
    assert after_api.get("porthole_inventory_age_seconds", host=site.porthole.host) < 40
    assert site.scrape("compute").get("porthole_instances", state="running") == 1


def test_no_user_token_address_or_instance_is_in_a_scrape(site: Site) -> None:
    with open_console(site.porthole.novnc_port, site.make_token()) as connection:
        read_greeting(connection)
        for daemon in DAEMONS:
            text = site.scrape(daemon).text
            assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", text), daemon
            assert "127.0.0.1" not in text
            assert f'"{USER}"' not in text
            assert not any(token in text for token in site.tokens)
    # Closed consoles of this test are not for the next one.
    wait_until(lambda: site.scrape().get("porthole_sessions") == 0, TIMEOUT_S, "the console to end")


def test_a_worker_that_died_leaves_nothing_and_has_a_successor(site: Site) -> None:
    names = list_sockets(site)
    assert len(names) == WORKERS
    victim = min(site.proxy.children())
    os.kill(victim, signal.SIGKILL)

    def is_back() -> bool:
        # A worker answers before it serves.
        serving = site.scrape().list_values("porthole_sessions_limit", "worker")
        return len(serving) == WORKERS and victim not in site.proxy.children()

    wait_until(is_back, TIMEOUT_S, "the successor's metrics")
    assert site.scrape().list_values("porthole_worker_up", "worker") == {"0", "1"}
    assert list_sockets(site) == names


def list_sockets(site: Site) -> set[str]:
    """The abstract sockets that the supervisor listens at: those of its workers."""
    inodes = set()
    for entry in Path(f"/proc/{site.proxy.pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(entry).removeprefix("socket:[").removesuffix("]"))
        except OSError:
            continue
    rows = [line.split() for line in Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()[1:]]
    return {row[7] for row in rows if len(row) == 8 and row[6] in inodes and row[7].startswith("@") and row[5] == "01"}


def test_a_frozen_worker_is_named_and_costs_no_other_its_numbers(site: Site) -> None:
    frozen = min(site.proxy.children())
    os.kill(frozen, signal.SIGSTOP)
    try:
        began_at = time.monotonic()
        found = site.scrape()
        took_s = time.monotonic() - began_at
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert found.get("porthole_worker_up") == WORKERS - 1
    assert len(found.list_values("porthole_sessions_limit", "worker")) == WORKERS - 1
    # Prometheus gives up after ten seconds.
    assert took_s < 5
    wait_until(lambda: site.scrape().get("porthole_worker_up") == WORKERS, TIMEOUT_S, "the worker to answer again")


def test_a_proxy_drains_under_the_eyes_of_prometheus(site: Site) -> None:
    """The last test of this site's proxy: it ends here."""
    extra = {"metrics": {"bind_port": site.ports["novncproxy"]}, "DEFAULT": {"graceful_shutdown_timeout": 60}}
    site.proxy.stop()
    draining = site.porthole.add("novncproxy", "draining", extra)
    draining.start()
    draining.wait_for_line("Daemon ready", TIMEOUT_S)
    with open_console(site.porthole.novnc_port, site.make_token()) as connection:
        read_greeting(connection)
        draining.signal(signal.SIGTERM)
        draining.wait_for_line("Drain started", TIMEOUT_S)
        assert site.scrape().get("porthole_sessions") == 1
        assert is_alive(connection)
    draining.wait(TIMEOUT_S)

# SPDX-License-Identifier: Apache-2.0
"""What the daemons tell systemd: ready when they are and not before, and signs of life while their loops turn.

The other end is a socket of the test's; a real systemd is in test_install.py.
"""

import os
import signal
import sys
import uuid as uuidlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from support.console import get_console, is_alive, open_console, read_greeting, token_of, wait_for_instances
from support.daemons import DAEMONS, Porthole
from support.libvirtd import Libvirtd
from support.notify_socket import NotifySocket
from support.processes import Process, wait_until
from support.rabbitmq import RabbitMQ
from support.vnc_servers import EchoVnc

MakePorthole = Callable[..., Porthole]
WATCHDOG_S = 3.0
TIMEOUT_S = 60
# porthole-novncproxy, in which SIGUSR1 makes the event loop stand still.
STUCK_PROXY = """
import faulthandler, signal, sys, time
from porthole_novncproxy import daemon, main
loops = []
class Loop(daemon.Loop):
    def __init__(self, name):
        super().__init__(name)
        loops.append(self)
daemon.Loop = Loop
signal.signal(signal.SIGUSR1, lambda *_: loops[-1].call_soon(lambda: time.sleep(3600)))
sys.exit(main.main())
"""


@pytest.fixture
def listen(tmp_path: Path) -> Iterator[Callable[[Process], NotifySocket]]:
    """Makes a socket for a daemon that is not started yet, with a watchdog."""
    with ExitStack() as stack:

        def run(process: Process) -> NotifySocket:
            heard = stack.enter_context(NotifySocket(tmp_path / f"{process.name}.sock", WATCHDOG_S))
            process.env.update(heard.env)
            return heard

        yield run


@pytest.fixture
def instances(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The UUID of an instance, and the file that says where its VNC server is."""
    with EchoVnc() as vnc:
        uuid, path = str(uuidlib.uuid4()), tmp_path / "instances.yaml"
        instance = {"uuid": uuid, "name": "echo", "host": "127.0.0.1", "port": vnc.port}
        path.write_text(yaml.safe_dump({"instances": [instance]}), encoding="utf-8")
        yield uuid, path


def wait_for(heard: NotifySocket, line: str, count: int = 1) -> None:
    wait_until(lambda: heard.count(line) >= count, TIMEOUT_S, f"{count} times {line}", lambda: str(heard.states()))


def test_each_daemon_says_when_it_is_ready_that_it_lives_that_it_reloads_and_that_it_ends(
    make_porthole: MakePorthole, instances: tuple[str, Path], listen: Callable[[Process], NotifySocket]
) -> None:
    porthole = make_porthole(instances_file=instances[1], daemons=())
    heard = {name: listen(porthole.processes[name]) for name in DAEMONS}
    for name in DAEMONS:
        porthole.processes[name].start()
    for name in DAEMONS:
        wait_for(heard[name], "READY=1")
        wait_for(heard[name], "WATCHDOG=1", 2)
        assert heard[name].count("READY=1") == 1
    for name in DAEMONS:
        porthole.processes[name].signal(signal.SIGHUP)
        wait_for(heard[name], "READY=1", 2)
        said = [line for line in heard[name].states() if line in {"READY=1", "RELOADING=1"}]
        assert said == ["READY=1", "RELOADING=1", "READY=1"]
    for name in DAEMONS:
        porthole.processes[name].signal(signal.SIGTERM)
        assert porthole.processes[name].wait(TIMEOUT_S) == 0
        assert "STOPPING=1" in heard[name].states()


def test_the_api_and_consoleauth_are_not_ready_without_a_broker(
    make_porthole: MakePorthole,
    own_rabbitmq: RabbitMQ,
    instances: tuple[str, Path],
    listen: Callable[[Process], NotifySocket],
) -> None:
    own_rabbitmq.stop()
    porthole = make_porthole(instances_file=instances[1], rabbitmq=own_rabbitmq, daemons=())
    heard = {name: listen(porthole.processes[name]) for name in ("api", "consoleauth", "novncproxy")}
    for name in heard:
        porthole.processes[name].start()
    wait_for(heard["api"], "STATUS=waits for the message bus")
    assert porthole.request("/v2.1/servers")[0] == 503
    for name, one in heard.items():
        assert "READY=1" not in one.states(), name
    own_rabbitmq.start()
    for one in heard.values():
        wait_for(one, "READY=1")


def test_compute_is_not_ready_without_libvirt(
    make_porthole: MakePorthole, libvirtd: Libvirtd, listen: Callable[[Process], NotifySocket]
) -> None:
    libvirtd.stop()
    porthole = make_porthole(libvirt_uri=libvirtd.uri, daemons=())
    heard = listen(porthole.compute)
    porthole.compute.start()
    wait_for(heard, f"STATUS=waits for libvirt at {libvirtd.uri}")
    assert "READY=1" not in heard.states()
    libvirtd.start()
    wait_for(heard, "READY=1")
    wait_for(heard, "WATCHDOG=1")


def test_a_proxy_whose_event_loop_is_stuck_gives_no_more_signs_of_life(
    make_porthole: MakePorthole, instances: tuple[str, Path], listen: Callable[[Process], NotifySocket]
) -> None:
    porthole = make_porthole(instances_file=instances[1], daemons=())
    proxy = porthole.novncproxy
    proxy.argv = [sys.executable, "-c", STUCK_PROXY, *proxy.argv[3:]]
    heard = listen(proxy)
    proxy.start()
    wait_for(heard, "WATCHDOG=1", 2)
    proxy.signal(signal.SIGUSR1)
    proxy.wait_for_line("Daemon blocked")
    said = heard.count("WATCHDOG=1")
    # The main thread still turns, and says so twice more in the log: three times is the whole of WatchdogSec=.
    wait_until(lambda: proxy.log().count("Daemon blocked") >= 3, TIMEOUT_S, "three rounds without an answer")
    assert heard.count("WATCHDOG=1") == said
    # What systemd does then; each thread says where it was.
    proxy.signal(signal.SIGABRT)
    assert proxy.wait(TIMEOUT_S) == -signal.SIGABRT
    assert "in _run" in proxy.log()


def test_a_worker_that_is_stuck_is_replaced_and_takes_no_other_along(
    make_porthole: MakePorthole, instances: tuple[str, Path], listen: Callable[[Process], NotifySocket]
) -> None:
    uuid, path = instances
    options = {"novncproxy": {"workers": 2, "max_sessions_per_token": 50}}
    porthole = make_porthole(instances_file=path, daemons=("consoleauth", "compute", "api"), options=options)
    proxy = porthole.novncproxy
    heard = listen(proxy)
    proxy.start()
    wait_for(heard, "READY=1")
    log = proxy.log_of_run()
    assert all(f"Worker ready program=porthole-novncproxy worker={worker}" in log for worker in (0, 1)), (
        "READY=1 came too early"
    )
    wait_for_instances(porthole, uuid)
    token = token_of(get_console(porthole, uuid))
    with ExitStack() as stack:
        consoles = [stack.enter_context(open_console(porthole.novnc_port, token)) for _ in range(12)]
        for console in consoles:
            read_greeting(console)
        stuck, healthy = sorted(proxy.children())
        os.kill(stuck, signal.SIGSTOP)
        proxy.wait_for_line("Blocked worker ended")
        wait_until(lambda: len(proxy.children() - {stuck}) == 2, TIMEOUT_S, "the worker to be replaced")
        assert healthy in proxy.children()
        said = heard.count("WATCHDOG=1")
        wait_for(heard, "WATCHDOG=1", said + 2)
        alive = sum(is_alive(console) for console in consoles)
        assert 0 < alive < 12
    proxy.signal(signal.SIGHUP)
    wait_for(heard, "READY=1", 2)
    assert "RELOADING=1" in heard.states()
    proxy.signal(signal.SIGTERM)
    wait_for(heard, "STOPPING=1")
    assert proxy.wait(TIMEOUT_S) == 0

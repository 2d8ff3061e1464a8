# SPDX-License-Identifier: Apache-2.0
"""The socket of a standalone for the doctor, on a bus in memory on which no service answers."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from oslo_config import cfg

from porthole_cli.doctor import bus, standalone, standalone_port
from porthole_cli.doctor.standalone_port import Standalone
from porthole_cli.doctor_socket import DoctorSocket
from porthole_common.rpc import Rpc
from support.bus import parse_global_conf
from support.clouds import ids

# accept() fails until descriptors are free again. Several clients, since a call that waits has a descriptor already.
_OUT_OF_DESCRIPTORS = """
import logging, os, resource, socket, threading
from oslo_config import cfg
from porthole_cli import doctor_socket
from porthole_cli.doctor import standalone_port
from support.bus import parse_global_conf

failed = threading.Event()
handler = logging.Handler()
handler.emit = lambda record: failed.set()
logging.getLogger(doctor_socket.__name__).addHandler(handler)
parse_global_conf()
examined = doctor_socket.DoctorSocket(cfg.CONF, None, "http://127.0.0.1:8774/v2.1")
examined.start()
[name] = [each.name for each in standalone_port.find_standalones() if each.pid == os.getpid()]
clients = [socket.socket(socket.AF_UNIX) for _ in range(4)]
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
for client in clients:
    client.settimeout(20)
    client.connect(chr(0) + name)
print("failed" if failed.wait(20) else "accepted")
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print("greeted" if all(client.recv(1) == b"{" for client in clients) else "closed")
examined.stop()
print("stopped" if not any(thread.name == "doctor-socket" for thread in threading.enumerate()) else "runs")
"""
ENDPOINT = "http://127.0.0.1:8774/v2.1"


@pytest.fixture
def doctor_socket(monkeypatch: pytest.MonkeyPatch) -> Iterator[DoctorSocket]:
    # Nobody answers discovery here.
    monkeypatch.setattr(bus, "DISCOVERY_S", 0.2)
    parse_global_conf()
    rpc = Rpc(cfg.CONF, 1, transport_url="fake://")
    doctor_socket = DoctorSocket(cfg.CONF, rpc, ENDPOINT)
    doctor_socket.start()
    yield doctor_socket
    doctor_socket.stop()
    rpc.close()
    cfg.CONF.reset()


def find() -> Standalone | None:
    """Return the one of this process, beside which others may run on the machine."""
    return next((each for each in standalone_port.find_standalones() if each.pid == os.getpid()), None)


def test_it_is_found_greets_and_examines_again_and_again(doctor_socket: DoctorSocket) -> None:
    one = find()
    assert one is not None
    assert one.greeting is not None
    assert one.greeting.endpoint == ENDPOINT
    assert one.greeting.novncproxy_base_url == cfg.CONF.vnc.novncproxy_base_url
    for _ in range(2):
        report = standalone.examine_standalone(one)
        assert "daemons.unheard" in ids(report.findings)
        assert "standalone.mute" not in ids(report.findings)


def test_it_is_gone_when_it_was_stopped(doctor_socket: DoctorSocket) -> None:
    doctor_socket.stop()
    assert find() is None


def test_one_that_never_started_can_be_stopped() -> None:
    parse_global_conf()
    rpc = Rpc(cfg.CONF, 1, transport_url="fake://")
    DoctorSocket(cfg.CONF, rpc, ENDPOINT).stop()
    rpc.close()
    cfg.CONF.reset()


def test_a_client_that_leaves_or_stays_silent_keeps_nobody_out(doctor_socket: DoctorSocket) -> None:
    one = find()
    assert one is not None
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as gone:
        for each in (silent, gone):
            each.connect(f"\0{one.name}")
        gone.sendall(b"\n")
        gone.close()
        assert "daemons.unheard" in ids(standalone.examine_standalone(one).findings)


def test_it_outlives_a_lack_of_descriptors() -> None:
    """In a process of its own, since the limit is the whole process's."""
    done = subprocess.run(
        [sys.executable, "-c", _OUT_OF_DESCRIPTORS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["failed", "greeted", "stopped"], done.stderr


def test_another_user_is_told_nothing(doctor_socket: DoctorSocket) -> None:
    doctor_socket.stop()
    rpc = Rpc(cfg.CONF, 1, transport_url="fake://")
    other = DoctorSocket(cfg.CONF, rpc, ENDPOINT, uids=frozenset({os.geteuid() + 1}))
    other.start()
    try:
        [name] = [each.name for each in standalone_port.find_standalones() if each.pid == os.getpid()]
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(10)
            stranger.connect(f"\0{name}")
            assert stranger.recv(1) == b""
    finally:
        other.stop()
        rpc.close()

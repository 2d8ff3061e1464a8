# SPDX-License-Identifier: Apache-2.0
"""``porthole doctor`` on a whole Porthole with real servers: well at first, then with one fault planted after another.

Each fault must be found with its own id, within the time that the command promises. Faults between hosts are planted
where there are several.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid as uuidlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from porthole_cli.doctor.broker import examine_broker
from porthole_common.rpc import Broker
from support.certificates import Authority
from support.console import wait_for_instances
from support.daemons import Porthole
from support.deadlines import MACHINE_SLACK_S
from support.libvirtd import Libvirtd, guest_xml
from support.memcached import Memcached
from support.ports import free_port
from support.processes import wait_until
from support.programs import run_program
from support.rabbitmq import RabbitMQ

# What the command promises, and what Python takes to start on a machine that is busy with other tests.
PROMISE_S = 30
START_S = 30
# As a transport_url has them.
SECRETS = (":guest@", "wrong-password")
# Puts a clock that is wrong where the doctor reads its own.
_SKEWED = """
import sys
from datetime import UTC, datetime, timedelta
from oslo_config import cfg
from porthole_cli.doctor import examination, report, run
ports = examination.Ports(clock=lambda: datetime.now(UTC) + timedelta(seconds=300))
examined = examination.Examination(cfg.CONF, ports)
print(report.format_json(run.examine(examined, sys.argv[1:])))
examined.close()
"""


@dataclass
class Doctor:
    """The command on one configuration file."""

    conf_path: Path

    def run(self, *arguments: str, prefix: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
        command = ("porthole_cli.main", "doctor", "--config-file", str(self.conf_path), *arguments)
        environment = os.environ | {"PYTHONWARNINGS": "", "COLUMNS": "120", "NO_PROXY": "*", "no_proxy": "*"}
        timeout_s = PROMISE_S + START_S
        if not prefix:
            return run_program(*command, env=environment, timeout_s=timeout_s)
        argv = [*prefix, sys.executable, "-m", *command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment)

    def find(self, prefix: Sequence[str] = ()) -> dict[str, list[dict[str, str]]]:
        """Return the findings by id; what any examination must keep to is looked at here."""
        done = self.run("-f", "json", prefix=prefix)
        assert done.stderr == ""
        assert not any(secret in done.stdout for secret in SECRETS), done.stdout
        report = json.loads(done.stdout)
        assert report["seconds"] < PROMISE_S + MACHINE_SLACK_S, report
        assert done.returncode == {"ok": 0, "warning": 1, "error": 2}[report["severity"]], report
        return by_id(report)


def by_id(report: dict[str, list[dict[str, str]]]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for each in report["findings"]:
        assert each["severity"] == "ok" or each["mend"], each
        found.setdefault(each["id"], []).append(each)
    return found


def troubles(found: dict[str, list[dict[str, str]]]) -> set[str]:
    return {finding_id for finding_id in found if not finding_id.endswith(".ok")}


@pytest.fixture(scope="module")
def porthole(
    tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitMQ, memcached: Memcached, libvirtd_of_run: Libvirtd
) -> Iterator[Porthole]:
    """The four daemons and a guest on loopback, all of it in order."""
    directory = tmp_path_factory.mktemp("doctor")
    libvirtd_of_run.create(guest_xml("demo"))
    options = {"novncproxy": {"max_sessions": 100}}
    with Porthole(directory, rabbitmq, memcached, libvirt_uri=libvirtd_of_run.uri, options=options) as porthole:
        porthole.conf_path.chmod(0o640)
        wait_for_instances(porthole)
        yield porthole
    libvirtd_of_run.remove_guests()


@pytest.fixture
def doctor(porthole: Porthole) -> Doctor:
    return Doctor(porthole.conf_path)


@pytest.fixture
def make_doctor(porthole: Porthole, tmp_path: Path) -> Callable[[str, str], Doctor]:
    """A doctor for the same Porthole with ``pattern`` replaced in its configuration."""

    def make(pattern: str, replacement: str) -> Doctor:
        path = tmp_path / "other.conf"
        text, count = re.subn(pattern, replacement, porthole.conf_path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert count == 1, pattern
        path.write_text(text, encoding="utf-8")
        path.chmod(0o640)
        return Doctor(path)

    return make


def test_all_is_well_and_nothing_is_left_behind(doctor: Doctor, porthole: Porthole, memcached: Memcached) -> None:
    before = memcached.stats()["curr_items"]
    found = doctor.find()
    assert sorted(found) == sorted(
        f"{subject}.ok"
        for subject in (
            *("broker", "clock", "config", "daemons", "descriptors", "libvirt", "memcached"),
            *("novnc", "token", "url", "vnc"),
        )
    )
    assert memcached.stats()["cmd_set"] > 0
    assert memcached.stats()["curr_items"] == before
    # Each daemon's lines about its questions, from the first to the last, name the doctor.
    asked = re.search(r"(request_id=\S+) .* user=porthole-doctor .* Console token authorized", porthole.logs())
    assert asked, porthole.logs()
    lines = [line for line in porthole.logs().splitlines() if asked[1] in line]
    assert [line for line in lines if "user=porthole-doctor" not in line] == []
    for event in (
        "VNC servers dialled for an examination",
        "token accepted",
        "tokens revoked",
        "Revocation received",
        "token refused",
    ):
        assert any(event in line for line in lines), event


def test_the_words_are_for_a_terminal_and_hold_no_secret(doctor: Doctor) -> None:
    done = doctor.run()
    assert done.returncode == 0
    assert done.stdout.startswith("porthole doctor: 11 in order (")
    assert "  token        authorized, known to 1 consoleauth, revoked, and gone\n" in done.stdout
    assert not any(secret in done.stdout for secret in SECRETS)
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", done.stdout)


@pytest.mark.parametrize(
    ("pattern", "replacement", "expected"),
    [
        ("guest:guest@", "guest:wrong-password@", "broker.credentials"),
        (r"^(transport_url.*:\d+)/.*$", r"\1/nowhere", "broker.vhost"),
        (r"^(transport_url.*):\d+/", r"\1:1/", "broker.address"),
        (r"^(transport_url.*@)[^:]+:", r"\1no-such-host.invalid:", "broker.address"),
        (r"\[api\]", "[oslo_messaging_rabbit]\nssl = true\n[api]", "broker.tls"),
        (r"^transport_url = .*$", "transport_url = kafka://a:wrong-password@127.0.0.1", "config.invalid"),
        (r"^bind_port = \d\d+$", "bind_port = many", "config.invalid"),
    ],
)
def test_a_configuration_that_leads_nowhere(
    make_doctor: Callable[[str, str], Doctor], pattern: str, replacement: str, expected: str
) -> None:
    doctor = make_doctor(pattern, replacement)
    assert troubles(doctor.find()) == {expected}


def test_consumers_are_counted_and_a_queue_of_nobody_is_none(porthole: Porthole, rabbitmq: RabbitMQ) -> None:
    broker = Broker("127.0.0.1", rabbitmq.port, "guest", "guest", "/", None)
    met = examine_broker(broker, {f"nobodys-{uuidlib.uuid4()}": "nobody", "consoleauth": "consoleauth"})
    assert met.is_usable
    assert met.consumers == {"nobody": 0, "consoleauth": 1}


def test_a_port_where_something_else_listens(
    make_doctor: Callable[[str, str], Doctor], libvirtd_of_run: Libvirtd
) -> None:
    doctor = make_doctor(r"^(transport_url.*):\d+/", rf"\1:{libvirtd_of_run.vnc_port('demo')}/")
    assert troubles(doctor.find()) == {"broker.protocol"}


def test_who_may_read_the_configuration(make_doctor: Callable[[str, str], Doctor]) -> None:
    doctor = make_doctor(r"\[api\]", "[api]")
    doctor.conf_path.chmod(0o644)
    found = doctor.find()
    assert troubles(found) == {"config.readable_by_all"}
    assert found["config.readable_by_all"][0]["severity"] == "warning"
    doctor.conf_path.chmod(0)
    # Root reads what it likes, unless it has given that right away.
    blind = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    assert troubles(doctor.find(prefix=blind)) == {"config.unreadable"}


def test_guests_that_let_in_whom_they_should_not(doctor: Doctor, porthole: Porthole, libvirtd_of_run: Libvirtd) -> None:
    open_to_all = "<graphics type='vnc' autoport='yes' listen='0.0.0.0'/>"
    selfish = "<graphics type='vnc' autoport='yes' listen='127.0.0.1' sharePolicy='allow-exclusive'/>"
    for name, vnc in (("open", open_to_all), ("selfish", selfish)):
        libvirtd_of_run.create(guest_xml(name, vnc=vnc))
    try:
        found = doctor.find()
    finally:
        for name in ("open", "selfish"):
            libvirtd_of_run.destroy(name)
    assert troubles(found) == {"vnc.wildcard", "vnc.exclusive"}
    assert "VNC server of open (" in found["vnc.wildcard"][0]["problem"]
    assert found["vnc.wildcard"][0]["host"] == porthole.host
    assert found["vnc.exclusive"][0]["problem"].startswith("selfish (")


def test_two_consoleauths_that_do_not_share_one_memcached(doctor: Doctor, porthole: Porthole) -> None:
    with Memcached() as other:
        options = {"DEFAULT": {"host": "other-host"}, "memcache": {"servers": other.address}}
        stranger = porthole.add("consoleauth", "stranger", options)
        porthole.start_daemon("stranger")
        try:
            found = doctor.find()
            assert troubles(found) == {"memcached.differs", "memcached.not_shared"}
            assert found["token.ok"], "each of them works by itself"
            assert other.stats()["curr_items"] == 0
            other.stop()
            unreachable = doctor.find()["memcached.unreachable"]
        finally:
            stranger.stop()
    assert [each["host"] for each in unreachable] == ["other-host"]


def test_a_screen_that_is_not_there_and_a_url_that_is_not_spoken(
    doctor: Doctor, porthole: Porthole, tmp_path: Path
) -> None:
    port = free_port()
    instances = tmp_path / "instances.yaml"
    instances.write_text(
        f"instances: [{{uuid: {uuidlib.uuid4()}, name: absent, host: 127.0.0.1, port: {port}}}]\n", encoding="utf-8"
    )
    options = {
        "DEFAULT": {"host": "static-host"},
        "compute": {"driver": "static"},
        "static": {"instances_file": instances},
        "vnc": {"novncproxy_base_url": f"https://127.0.0.1:{porthole.novnc_port}/console.html"},
    }
    compute = porthole.add("compute", "static", options)
    porthole.start_daemon("static")
    try:
        found = doctor.find()
    finally:
        compute.stop()
    assert troubles(found) == {"vnc.unreachable", "url.https_without_certificate", "url.unreachable"}
    assert f"The VNC server of absent (127.0.0.1:{port}) on" in found["vnc.unreachable"][0]["problem"]
    # The next test starts where no api remembers it.
    porthole.api.stop()
    porthole.start_daemon("api")


def test_a_proxy_with_an_old_certificate_too_few_descriptors_and_a_wish_that_no_guest_fulfils(
    doctor: Doctor, porthole: Porthole, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("console.example", expired=True)
    options = {
        "DEFAULT": {"cert": files.cert, "key": files.key},
        "vnc": {"auth_schemes": "vencrypt", "vencrypt_ca_certs": authority.cert},
    }
    proxy = porthole.add("novncproxy", "poor", options)
    prlimit = shutil.which("prlimit")
    assert prlimit
    proxy.argv[:0] = [prlimit, "--nofile=256"]
    porthole.novncproxy.stop()
    porthole.start_daemon("poor")
    try:
        found = doctor.find()
    finally:
        proxy.stop()
        porthole.start_daemon("novncproxy")
    assert troubles(found) == {"certificate.expired", "url.http_with_certificate", "descriptors.low", "vnc.security"}
    assert found["url.http_with_certificate"][0]["severity"] == "warning"
    assert "VNC server of demo (127.0.0.1:" in found["vnc.security"][0]["problem"]
    assert "may open 256 descriptors, and its own limits need 456" in found["descriptors.low"][0]["problem"]


def test_a_proxy_that_does_not_start_without_a_web_root(
    doctor: Doctor, porthole: Porthole, make_doctor: Callable[[str, str], Doctor]
) -> None:
    rootless = porthole.add("novncproxy", "rootless", {"DEFAULT": {"web": "/nowhere"}})
    porthole.novncproxy.stop()
    try:
        rootless.start()
        assert rootless.wait(60) == 78
        found = make_doctor(r"\[api\]", "[DEFAULT]\nweb = /nowhere\n[api]").find()
    finally:
        porthole.start_daemon("novncproxy")
    assert troubles(found) == {"novncproxy.none", "novnc.missing"}


def test_a_compute_that_was_killed_and_a_consoleauth_that_hangs(doctor: Doctor, porthole: Porthole) -> None:
    porthole.compute.kill()
    porthole.consoleauth.signal(signal.SIGSTOP)
    try:
        found = doctor.find()
    finally:
        porthole.consoleauth.signal(signal.SIGCONT)
        porthole.start_daemon("compute")
    assert troubles(found) == {"compute.none", "compute.lost", "daemons.unheard"}
    assert found["compute.lost"][0]["host"] == porthole.host
    assert "1 of 1 porthole-consoleauth on the bus does not answer" in found["daemons.unheard"][0]["problem"]


def test_a_hypervisor_that_is_down(doctor: Doctor, porthole: Porthole, libvirtd_of_run: Libvirtd) -> None:
    libvirtd_of_run.stop()
    try:
        found = doctor.find()
    finally:
        libvirtd_of_run.start()
    assert troubles(found) == {"libvirt.unreachable"}
    assert found["libvirt.unreachable"][0]["host"] == porthole.host


def test_a_clock_that_is_wrong(doctor: Doctor, porthole: Porthole) -> None:
    wait_until(lambda: not troubles(doctor.find()), 60, "a Porthole in order", porthole.logs)
    done = subprocess.run(
        [sys.executable, "-c", _SKEWED, str(porthole.conf_path)],
        capture_output=True,
        text=True,
        timeout=PROMISE_S + START_S,
        check=True,
        env=os.environ | {"PYTHONWARNINGS": ""},
    )
    found = by_id(json.loads(done.stdout))
    assert troubles(found) == {"clock.skew"}
    # Of two clocks nobody can say which is wrong.
    assert {each["host"] for each in found["clock.skew"]} == {porthole.host, "(this host)"}


def test_all_is_well_again(doctor: Doctor, porthole: Porthole) -> None:
    wait_until(lambda: not troubles(doctor.find()), 60, "a Porthole in order", porthole.logs)

# SPDX-License-Identifier: Apache-2.0
"""``porthole standalone`` as a user starts it: one process, no broker, no memcached, nothing off loopback."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from support.libvirtd import Libvirtd, guest_xml
from support.ports import free_port
from support.processes import Process, wait_until
from support.programs import run_program

GREETING = b"RFB 003.008\n"
UUID = "2a5a0a3e-7c5f-4c8e-9d0a-0c1d2e3f4a5b"
TIMEOUT_S = 30


@pytest.fixture(scope="module")
def vnc_port() -> Iterator[int]:
    """A server that greets whoever connects as RFB 3.8 does, and waits for the other side to leave."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(GREETING)
                connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(TIMEOUT_S)


class Standalone:
    """One running ``porthole standalone`` on free ports."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.api_port, self.novnc_port, self.xvp_port = free_port(), free_port(), free_port()
        self.endpoint = f"http://127.0.0.1:{self.api_port}/v2.1"
        ports = [f"--api-port={self.api_port}", f"--novnc-port={self.novnc_port}", f"--xvp-port={self.xvp_port}"]
        argv = [sys.executable, "-m", "porthole_cli.main", "standalone", *ports, *flags]
        env = {"PYTHONUNBUFFERED": "1", "NO_PROXY": "*", "PYTHONWARNINGS": ""}
        self.process = Process(argv, directory / "standalone.log", env, name="porthole standalone")

    def start(self) -> None:
        self.process.start()
        self.process.wait_for_line("Daemon ready", TIMEOUT_S)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a client command against it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        environment |= {"NO_PROXY": "*", "PYTHONWARNINGS": "", "COLUMNS": "200"}
        return run_program("porthole_cli.main", "--os-endpoint", self.endpoint, *argv, env=environment)

    def wait_for_server(self, name: str) -> None:
        wait_until(lambda: name in self.run("list", "-f", "value").stdout.split(), TIMEOUT_S, f"server {name}")

    def get_url(self, name: str, console_type: str) -> str:
        done = self.run("get-vnc-console", name, console_type, "-f", "value", "-c", "Url")
        assert done.returncode == 0, done.stderr + self.process.log()
        return done.stdout.strip()

    def listening(self) -> set[str]:
        """The addresses that the process listens on, in hexadecimal as /proc/net/tcp has them."""
        inodes = set()
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(entry)))
        found = set()
        for table in ("tcp", "tcp6"):
            for row in Path(f"/proc/{self.process.pid}/net/{table}").read_text().splitlines()[1:]:
                fields = row.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    found.add(fields[1].split(":")[0])
        return found


def websocket_url(url: str) -> str:
    """Return the address that the page at ``url`` opens its WebSocket on."""
    parts = urlsplit(url)
    return f"ws://{parts.netloc}/{parse_qs(parts.query)['path'][0]}"


def token_of(url: str) -> str:
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", url)
    assert found, url
    return found[0]


def read_page(url: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=TIMEOUT_S) as answer:
        return answer.status, answer.read().decode()


def refused_with(url: str) -> int:
    """Open the WebSocket, which must be refused; return the status."""
    with pytest.raises(InvalidStatus) as caught, connect(websocket_url(url), open_timeout=TIMEOUT_S, proxy=None):
        pass
    return caught.value.response.status_code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Standalone]]:
    started = []

    def begin(*flags: str) -> Standalone:
        standalone = Standalone(tmp_path, *flags)
        started.append(standalone)
        standalone.start()
        return standalone

    yield begin
    for standalone in started:
        standalone.process.stop()


@pytest.fixture(scope="module")
def instances_file(tmp_path_factory: pytest.TempPathFactory, vnc_port: int) -> Path:
    path = tmp_path_factory.mktemp("instances") / "instances.yaml"
    path.write_text(f"instances: [{{uuid: {UUID}, name: web, host: 127.0.0.1, port: {vnc_port}}}]\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def standalone(instances_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """One with the server ``web``, for tests that leave it as it is."""
    running = Standalone(tmp_path_factory.mktemp("standalone"), "--debug", "--instances-file", str(instances_file))
    try:
        running.start()
        running.wait_for_server("web")
        yield running
    finally:
        running.process.stop()


class TestConsole:
    def test_a_browser_gets_the_page_and_the_vnc_servers_bytes(self, standalone: Standalone) -> None:
        url = standalone.get_url("web", "novnc")

        status, page = read_page(url)
        assert status == 200
        assert "noVNC" in page
        origin = f"http://127.0.0.1:{standalone.novnc_port}"
        with connect(
            websocket_url(url), subprotocols=["binary"], origin=origin, open_timeout=TIMEOUT_S, proxy=None
        ) as console:
            assert console.recv(timeout=TIMEOUT_S) == GREETING

    def test_a_native_viewer_gets_them_too(self, standalone: Standalone) -> None:
        token = token_of(standalone.get_url("web", "xvpvnc"))

        with socket.create_connection(("127.0.0.1", standalone.xvp_port), TIMEOUT_S) as viewer:
            viewer.sendall(f"CONNECT /console?token={token} HTTP/1.0\r\n\r\n".encode())
            stream = viewer.makefile("rb")
            assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
            assert stream.readline() == b"\r\n"
            assert stream.read(len(GREETING)) == GREETING

    def test_a_guest_of_libvirt_until_it_is_stopped(self, start: Callable[..., Standalone], libvirtd: Libvirtd) -> None:
        libvirtd.create(guest_xml("alpha"))
        standalone = start("--libvirt-uri", libvirtd.uri)
        standalone.wait_for_server("alpha")
        url = standalone.get_url("alpha", "novnc")
        with connect(websocket_url(url), subprotocols=["binary"], open_timeout=TIMEOUT_S, proxy=None) as console:
            assert console.recv(timeout=TIMEOUT_S) == GREETING

        libvirtd.destroy("alpha")

        assert refused_with(url) == 401

    def test_a_token_that_nobody_gave_out(self, standalone: Standalone) -> None:
        url = f"http://127.0.0.1:{standalone.novnc_port}/console.html?path=%3Ftoken%3D{UUID}"

        assert refused_with(url) == 401


class TestAnnouncement:
    def test_its_commands_work_as_they_are_printed(self, standalone: Standalone, tmp_path: Path) -> None:
        printed = re.findall(r"^    (\S.* (?:list|get-vnc-console SERVER))$", standalone.process.log(), re.MULTILINE)
        assert len(printed) == 2

        for command in printed:
            argv = shlex.split(command.replace("SERVER", "web"))
            environment = os.environ | {"PATH": str(tmp_path), "NO_PROXY": "*", "PYTHONWARNINGS": ""}
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment)
            assert done.returncode == 0, done.stderr

    def test_it_says_that_libvirt_does_not_answer(self, tmp_path: Path) -> None:
        uri = f"qemu+unix:///session?socket={tmp_path}/none"
        standalone = Standalone(tmp_path, "--libvirt-uri", uri)
        try:
            standalone.process.start()
            standalone.process.wait_for_line("get-vnc-console SERVER", TIMEOUT_S)
        finally:
            standalone.process.stop()

        expected = f"libvirt at {uri} does not answer; {sys.executable} -m porthole_cli.main doctor says why\n"
        assert expected in standalone.process.log()


class TestSurroundings:
    def test_it_listens_on_loopback_and_nowhere_else(self, standalone: Standalone) -> None:
        # 127.0.0.1 as the kernel writes it on a little-endian machine.
        assert standalone.listening() == {"0100007F"}

    def test_no_token_in_the_log_at_debug(self, standalone: Standalone) -> None:
        url = standalone.get_url("web", "novnc")
        read_page(url)
        with connect(websocket_url(url), subprotocols=["binary"], open_timeout=TIMEOUT_S, proxy=None) as console:
            console.recv(timeout=TIMEOUT_S)
        standalone.process.wait_for_line("Console closed")

        log = standalone.process.log()
        assert "DEBUG" in log
        assert token_of(url) not in log

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_with_consoles_open(
        self, start: Callable[..., Standalone], instances_file: Path, number: int
    ) -> None:
        standalone = start("--instances-file", str(instances_file))
        standalone.wait_for_server("web")
        url = standalone.get_url("web", "novnc")
        with connect(websocket_url(url), subprotocols=["binary"], open_timeout=TIMEOUT_S, proxy=None) as console:
            console.recv(timeout=TIMEOUT_S)
            standalone.process.signal(number)

            assert standalone.process.wait(TIMEOUT_S) == 0


class Doctor:
    """``porthole doctor`` in an environment that is another than the standalone's."""

    def __init__(self, directory: Path) -> None:
        home = {
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory / "run"),
            "XDG_CACHE_HOME": str(directory / "c"),
        }
        self._environment = os.environ | home | {"PYTHONWARNINGS": "", "NO_PROXY": "*"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_program("porthole_cli.main", "doctor", *arguments, env=self._environment, timeout_s=90)

    def find(self, pid: int) -> tuple[int, dict[str, dict[str, str]]]:
        """Return the exit status and the findings by id for the standalone that is process ``pid``."""
        done = self.run("--standalone", str(pid), "-f", "json")
        assert done.stderr == ""
        return done.returncode, {each["id"]: each for each in json.loads(done.stdout)["findings"]}


class TestDoctor:
    def test_all_is_well_and_then_the_hypervisor_is_away(
        self, start: Callable[..., Standalone], libvirtd: Libvirtd, tmp_path: Path
    ) -> None:
        libvirtd.create(guest_xml("alpha"))
        standalone = start("--libvirt-uri", libvirtd.uri)
        standalone.wait_for_server("alpha")
        pid, doctor = standalone.process.pid, Doctor(tmp_path)

        status, found = doctor.find(pid)
        subjects = ("standalone", "api", "daemons", "libvirt", "vnc", "url", "novnc", "token")
        assert set(found) - {"descriptors.ok"} == {f"{subject}.ok" for subject in subjects}, found
        assert status == 0
        assert f"API at {standalone.endpoint} and" in found["standalone.ok"]["problem"]
        assert f"http://127.0.0.1:{standalone.novnc_port}/console.html opens" in found["url.ok"]["problem"]
        assert found["vnc.ok"]["problem"].startswith("1 screen on 1 host; 1 dial was answered")
        log = standalone.process.log()
        asked = re.search(r"(request_id=\S+) .* user=porthole-doctor .* Console token authorized", log)
        assert asked, log
        lines = [line for line in log.splitlines() if asked[1] in line]
        assert [line for line in lines if "user=porthole-doctor" not in line] == []
        assert any("porthole_novncproxy" in line for line in lines), log

        libvirtd.stop()

        status, found = doctor.find(pid)
        assert status == 2
        assert {each for each in found if not each.endswith(".ok")} == {"libvirt.unreachable"}
        assert "--libvirt-uri" in found["libvirt.unreachable"]["mend"]
        libvirtd.start()

    def test_it_is_found_without_being_named_behind_the_daemons_and_gone_after_a_kill(
        self, start: Callable[..., Standalone], instances_file: Path, tmp_path: Path
    ) -> None:
        standalone = start("--instances-file", str(instances_file))
        pid, doctor = standalone.process.pid, Doctor(tmp_path)

        # Others may run beside this test.
        assert re.search(rf"\bprocess .*\b{pid}\b", doctor.run().stdout)

        # A configuration of the daemons comes first, and the standalone is mentioned beside it.
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            url = f"rabbit://guest:guest@127.0.0.1:{held.getsockname()[1]}/"
            path = tmp_path / ".porthole" / "porthole.conf"
            path.parent.mkdir()
            path.write_text(f"[DEFAULT]\ntransport_url = {url}\n", encoding="utf-8")
            done = doctor.run("-f", "json")
        beside = {each["id"]: each for each in json.loads(done.stdout)["findings"]}
        assert (done.returncode, "broker.address" in beside) == (2, True)
        assert re.search(rf"beside the daemons \(process .*\b{pid}\b", beside["standalone.ok"]["problem"])
        status, found = doctor.find(pid)
        assert "broker.address" not in found

        standalone.process.signal(signal.SIGSTOP)
        status, found = doctor.find(pid)
        standalone.process.signal(signal.SIGCONT)
        assert (status, list(found)) == (2, ["standalone.mute"])
        assert f"kill -CONT {pid}" in found["standalone.mute"]["mend"]

        standalone.process.kill()
        status, found = doctor.find(pid)
        assert (status, list(found)) == (2, ["standalone.none"])


class TestRefusals:
    def refuse(self, tmp_path: Path, *flags: str, status: int = 78) -> str:
        """Start what must not start; return what it said on stderr and stdout."""
        standalone = Standalone(tmp_path, *flags)
        standalone.process.start()
        assert standalone.process.wait(TIMEOUT_S) == status
        return standalone.process.log()

    def test_an_address_off_loopback(self, tmp_path: Path) -> None:
        path = tmp_path / "porthole.conf"
        path.write_text("[vnc]\nnovncproxy_host = 0.0.0.0\n", encoding="utf-8")

        said = self.refuse(tmp_path, "--config-file", str(path))

        assert "[vnc] novncproxy_host: standalone has no authentication" in said
        assert "Traceback" not in said

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        said = self.refuse(tmp_path, "--config-file", str(tmp_path / "none.conf"))

        assert "none.conf" in said
        assert "Traceback" not in said

    @pytest.mark.parametrize(
        ("flag", "option"),
        [
            ("--api-port", "[api] bind_port"),
            ("--novnc-port", "[vnc] novncproxy_host, novncproxy_port"),
            ("--xvp-port", "[vnc] xvpvncproxy_host, xvpvncproxy_port"),
        ],
    )
    def test_a_port_that_is_taken(
        self, tmp_path: Path, instances_file: Path, vnc_port: int, flag: str, option: str
    ) -> None:
        said = self.refuse(tmp_path, "--instances-file", str(instances_file), f"{flag}={vnc_port}", status=1)

        (line,) = [line for line in said.splitlines() if line.startswith("porthole standalone: ")]
        assert line.startswith(f"porthole standalone: {flag} ({option}): ")
        assert str(vnc_port) in line
        assert "Address already in use" in line
        assert "Traceback" not in said

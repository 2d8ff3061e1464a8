# SPDX-License-Identifier: Apache-2.0
"""deploy/quickstart.sh from its start to Ctrl-C: it prints a URL that opens the guest's screen, and leaves nothing.

The environment of the tests stands in for the one it would make (PORTHOLE_VENV), and its temporary directory and
home are the test's own, so that whatever is left can be found.
"""

import contextlib
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.sync.client import connect

from support.leftovers import find_processes
from support.processes import Process, wait_until

SCRIPT = Path(__file__).parents[2] / "deploy" / "quickstart.sh"
URL = re.compile(r"http://127\.0\.0\.1:(\d+)/console\.html\?path=%3Ftoken%3D[0-9a-f-]{36}")
# The first start in a checkout downloads the guest's kernel.
TIMEOUT_S = 120
CTRL_C = b"\x03"


class Quickstart:
    """One run of the script, with everything that it may leave behind."""

    def __init__(self) -> None:
        # Short, for a UNIX socket's path ends at 107 bytes, and open to the user that libvirtd runs as.
        self.directory = Path(tempfile.mkdtemp(prefix="phq"))
        self.directory.chmod(0o711)
        self.temporary, self.home = self.directory / "t", self.directory / "h"
        for path in (self.temporary, self.home):
            path.mkdir(mode=0o711)
        self.environment = {
            "PORTHOLE_VENV": sys.prefix,
            "TMPDIR": str(self.temporary),
            "HOME": str(self.home),
            "PYTHONWARNINGS": "",
            "PYTHONUNBUFFERED": "1",
        }
        self.started: list[Process] = []

    def start(self, umask: str = "022") -> Process:
        """Start the script in a process group of its own, as a shell does."""
        log = self.directory / f"log{len(self.started)}"
        argv = ["bash", "-c", f"umask {umask} && exec bash {SCRIPT}"]
        process = Process(argv, log, self.environment, name="quickstart", new_session=True)
        self.started.append(process)
        process.start()
        return process

    def replace_python(self, lines: str) -> None:
        """Have the shell run ``lines`` before each start of the environment's Python; "$@" are its arguments."""
        environment = self.directory / "venv"
        (environment / "bin").mkdir(parents=True)
        python = environment / "bin" / "python"
        python.write_text(f'#!/bin/sh\n{lines}\nexec {sys.executable} "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        self.environment["PORTHOLE_VENV"] = str(environment)

    def processes(self) -> dict[int, str]:
        """The command lines of the processes that have the temporary directory in theirs or in their environment."""
        return find_processes(self.temporary)

    def assert_nothing_left(self) -> None:
        assert self.processes() == {}
        assert list(self.temporary.iterdir()) == []
        assert list(self.home.iterdir()) == []

    def close(self) -> None:
        for process in self.started:
            process.stop(timeout_s=60)
        # Only a test that fails has any.
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.directory)


@pytest.fixture
def quickstart() -> Iterator[Quickstart]:
    run = Quickstart()
    yield run
    run.close()


@pytest.fixture
def api_port_taken() -> Iterator[None]:
    """Somebody listens on the API's usual port: this test, or whoever did before."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind(("127.0.0.1", 8774))
            holder.listen()
        except OSError:
            assert socket.create_connection(("127.0.0.1", 8774), 5)
        yield


def guests_of_this_machine() -> str:
    """The guests of the machine's own libvirtd, if it has one that answers."""
    if os.geteuid() != 0:
        return ""
    command = ["virsh", "--quiet", "--connect", "qemu:///system", "list", "--all", "--name"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout


class Terminal:
    """A terminal that a command has as its own: what it shows, and the keys that somebody presses there."""

    def __init__(self, argv: list[str], environment: dict[str, str]) -> None:
        self._shown = bytearray()
        self._master, terminal = pty.openpty()
        self.popen = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, **environment},
        )
        os.close(terminal)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        # EIO: the last process has closed it.
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 4096):
                self._shown += data

    def shown(self) -> str:
        return self._shown.decode(errors="replace")

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            self.popen.wait(60)
        self._thread.join(10)
        os.close(self._master)


def test_a_url_that_opens_the_screen_and_ctrl_c_that_leaves_nothing(
    quickstart: Quickstart, api_port_taken: None
) -> None:
    guests = guests_of_this_machine()
    process = quickstart.start()
    process.wait_for(lambda: "Ctrl-C ends" in process.log(), TIMEOUT_S, "the URL")

    found = URL.search(process.log())
    assert found, process.log()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(found[0], timeout=30) as page:
        assert "noVNC" in page.read().decode()
    path = parse_qs(urlsplit(found[0]).query)["path"][0]
    with connect(f"ws://127.0.0.1:{found[1]}/{path}", subprotocols=["binary"], open_timeout=30, proxy=None) as console:
        assert console.recv(timeout=30) == b"RFB 003.008\n"
    assert "port 8774 is taken; using" in process.log()
    assert re.search(r"--os-endpoint http://127\.0\.0\.1:\d+/v2\.1 get-vnc-console \S+\n", process.log())
    token = found[0][-36:]
    assert not any(token in line for line in quickstart.processes().values())
    assert "has ended" not in process.log()

    process.signal(signal.SIGINT)

    assert process.wait(60) == 130
    quickstart.assert_nothing_left()
    assert guests_of_this_machine() == guests


def test_a_terminal_shows_nothing_of_polkit_and_its_ctrl_c_leaves_nothing(quickstart: Quickstart) -> None:
    """With a terminal of its own virsh starts polkit's agent, which complains where no polkit runs."""
    terminal = Terminal(["bash", str(SCRIPT)], quickstart.environment)
    try:
        wait_until(lambda: "Ctrl-C ends" in terminal.shown(), TIMEOUT_S, "the URL", terminal.shown)

        terminal.press(CTRL_C)

        wait_until(lambda: "quickstart.sh: ending …" in terminal.shown(), 30, "the answer to Ctrl-C", terminal.shown)
        assert terminal.popen.wait(60) == 130
    finally:
        terminal.close()
    assert "polkit" not in terminal.shown()
    quickstart.assert_nothing_left()


def test_the_next_start_removes_what_a_killed_one_left(quickstart: Quickstart) -> None:
    guests = guests_of_this_machine()
    killed = quickstart.start()
    killed.wait_for(lambda: "Ctrl-C ends" in killed.log(), TIMEOUT_S, "the URL")
    (folder,) = quickstart.temporary.iterdir()

    # The script alone: what it started goes on.
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait(10)
    left = [*quickstart.processes().values()]
    assert any("standalone" in line for line in left), left
    assert guests_of_this_machine() != guests or any("qemu-system" in line for line in left), left

    # QEMU's user reads the guest's files, however narrow the umask is.
    process = quickstart.start(umask="077")
    process.wait_for(lambda: "Ctrl-C ends" in process.log(), TIMEOUT_S, "the URL")
    assert f"removing what a killed quickstart has left: {folder}" in process.log()
    assert not folder.exists()
    assert not any(str(folder) in line for line in quickstart.processes().values())
    assert len([line for line in quickstart.processes().values() if "standalone" in line]) == 1

    process.signal(signal.SIGINT)

    assert process.wait(60) == 130
    quickstart.assert_nothing_left()
    assert guests_of_this_machine() == guests


def test_a_guest_that_ends_is_noticed_and_ctrl_c_leaves_nothing(quickstart: Quickstart) -> None:
    process = quickstart.start()
    process.wait_for(lambda: "Ctrl-C ends" in process.log(), TIMEOUT_S, "the URL")
    (note,) = quickstart.temporary.glob("*/guest")
    uri, uuid, name = note.read_text(encoding="utf-8").split()

    virsh = ["virsh", "--quiet", "--connect", uri, "destroy", uuid]
    subprocess.run(virsh, capture_output=True, timeout=30, check=True)

    ended = f'the guest "{name}" has ended. Press Ctrl-C, then start deploy/quickstart.sh again\n'
    process.wait_for(lambda: ended in process.log(), TIMEOUT_S, "the news of the guest")
    assert any("standalone" in line for line in quickstart.processes().values())

    process.signal(signal.SIGINT)

    assert process.wait(60) == 130
    assert process.log().count("has ended") == 1
    quickstart.assert_nothing_left()


def test_a_signal_half_way_leaves_nothing(quickstart: Quickstart) -> None:
    process = quickstart.start()
    # The guest's description is there just before libvirt is asked to start it.
    process.wait_for(lambda: list(quickstart.temporary.glob("*/guest.xml")), TIMEOUT_S, "the guest's start")

    process.signal(signal.SIGTERM)

    assert process.wait(60) == 143
    quickstart.assert_nothing_left()


def test_an_error_half_way_is_shown_and_leaves_nothing(quickstart: Quickstart) -> None:
    quickstart.replace_python('case "$*" in *standalone*) echo "no such luck" >&2; exit 3 ;; esac')
    process = quickstart.start()

    assert process.wait(TIMEOUT_S) == 1

    assert "no such luck" in process.log()
    assert "quickstart.sh: Porthole did not start" in process.log()
    quickstart.assert_nothing_left()


# Between the choice of the ports and the start, another process takes the API's, up to so many times.
TAKE_PORT = """\
limit=%(times)d
case "$*" in *standalone*--api-port*)
    echo >>%(count)s
    if [ "$(wc -l <%(count)s)" -le "$limit" ]; then
        port=$(echo "$*" | sed 's/.*--api-port \\([0-9]*\\).*/\\1/')
        %(python)s -c 'import socket, sys, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
print(flush=True)
time.sleep(60)' "$port" >%(held)s &
        until [ -s %(held)s ]; do sleep 0.1; done
        rm %(held)s
    fi ;;
esac"""


def take_ports(quickstart: Quickstart, times: int) -> None:
    files = {name: str(quickstart.directory / name) for name in ("count", "held")}
    quickstart.replace_python(TAKE_PORT % {"times": times, "python": sys.executable, **files})


def test_a_port_that_another_process_takes_meanwhile(quickstart: Quickstart) -> None:
    take_ports(quickstart, 1)
    process = quickstart.start()

    process.wait_for(lambda: "Ctrl-C ends" in process.log(), TIMEOUT_S, "the URL")

    assert process.log().count("meanwhile") == 1
    assert URL.search(process.log())


def test_ports_that_are_taken_each_time(quickstart: Quickstart) -> None:
    take_ports(quickstart, 100)
    process = quickstart.start()

    assert process.wait(TIMEOUT_S) == 1

    taken = re.findall(r"another process has taken port (\d+) meanwhile", process.log())
    assert len(taken) == 3
    remedy = "Find the process by: ss -ltnp. End it, and start again"
    assert process.log().splitlines()[-1].endswith(f"port {taken[-1]} is taken on 127.0.0.1. {remedy}")


def test_help_begins_with_what_it_does() -> None:
    done = subprocess.run(["bash", str(SCRIPT), "--help"], capture_output=True, text=True, timeout=30, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Opens the screen of a virtual machine in a browser")
    assert "PORTHOLE_VENV" in done.stdout.splitlines()[-1]


def test_a_folder_that_libvirt_cannot_use_is_refused_at_once(quickstart: Quickstart) -> None:
    quickstart.environment["TMPDIR"] = f"{quickstart.temporary}/a b"

    process = quickstart.start()

    assert process.wait(30) == 1
    assert "no path with a space" in process.log()


def test_an_argument_it_does_not_know(quickstart: Quickstart) -> None:
    done = subprocess.run(["bash", str(SCRIPT), "--frob"], capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 2
    assert "--frob" in done.stderr

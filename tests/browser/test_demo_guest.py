# SPDX-License-Identifier: Apache-2.0
"""The quickstart's guest in the browser: ``porthole standalone``, the page, and a Linux that takes every key.

What arrived is read at the guest's serial port. One guest serves the tests in the order they stand here.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.browser import Browser, Tab
from support.demo_guest import GREETING, PROMPT, DemoGuest
from support.libvirtd import Libvirtd
from support.ports import free_port
from support.processes import Process, wait_until

TIMEOUT_S = 60
# 60 characters with capitals, digits and signs; a fast typist.
SENTENCE = "echo The quick brown Fox jumps over 13 lazy Dogs, all of it."
KEY_MS = 30
TIMES = 5
# The prompt is there 10 s after the start, where nothing else runs: so much processor time may it take.
MAX_BOOT_S = 10
# What the quickstart's header promises of an idle guest.
MAX_MEMORY_MIB = 256
MAX_IDLE_SHARE = 0.02
IDLE_S = 10
REBOOTS = 2


class Standalone:
    """A running ``porthole standalone`` on free ports."""

    def __init__(self, directory: Path, libvirt_uri: str) -> None:
        ports = {name: free_port() for name in ("api", "novnc", "xvp")}
        self._endpoint = f"http://127.0.0.1:{ports['api']}/v2.1"
        argv = [sys.executable, "-m", "porthole_cli.main", "standalone", "--libvirt-uri", libvirt_uri]
        argv += [f"--{name}-port={port}" for name, port in ports.items()]
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        self._environment |= {"HOME": str(directory), "NO_PROXY": "*", "PYTHONWARNINGS": ""}
        self.process = Process(argv, directory / "standalone.log", self._environment, name="porthole standalone")

    def start(self) -> None:
        self.process.start()
        self.process.wait_for_line("Daemon ready", TIMEOUT_S)

    def get_url(self, server: str) -> str:
        """Ask for the console until the guest is known."""
        urls: list[str] = []

        def ask() -> bool:
            words = ["get-vnc-console", server, "novnc", "-f", "value", "-c", "Url"]
            done = subprocess.run(
                [sys.executable, "-m", "porthole_cli.main", "--os-endpoint", self._endpoint, *words],
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            urls.append(done.stdout.strip())
            return done.returncode == 0

        wait_until(ask, TIMEOUT_S, f"a console of {server}", self.process.log)
        return urls[-1]


@pytest.fixture(scope="module")
def guest(libvirtd: Libvirtd) -> Iterator[DemoGuest]:
    with DemoGuest(libvirtd) as guest:
        yield guest


@pytest.fixture(scope="module")
def standalone(libvirtd: Libvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    standalone = Standalone(tmp_path_factory.mktemp("standalone"), libvirtd.uri)
    try:
        standalone.start()
        yield standalone
    finally:
        standalone.process.stop()


@pytest.fixture
def tab(guest: DemoGuest, standalone: Standalone, browser: Browser) -> Tab:
    tab = browser.open(standalone.get_url(guest.name), width=860, height=570)
    tab.wait_for_text("#state", "Connected")
    tab.wait_for_desktop()
    tab.page.locator("canvas").click(position={"x": 5, "y": 5})
    return tab


def wait_for_line(tab: Tab, guest: DemoGuest, line: str) -> None:
    """Return once ``line`` is the last one on the guest's screen."""
    try:
        tab.wait_for(lambda: guest.screen()[-1:] == [line.rstrip()], "the line")
    except AssertionError as error:
        raise AssertionError(f"{line!r} is not the last line of {guest.screen()}") from error


def test_the_picture(tab: Tab, guest: DemoGuest, request: pytest.FixtureRequest) -> None:
    assert any(GREETING in line for line in guest.screen())
    tab.page.keyboard.type("echo Hello from the browser\n", delay=KEY_MS)
    wait_for_line(tab, guest, PROMPT)
    assert guest.screen()[-2] == "Hello from the browser"
    assert tab.text("#name") == guest.name
    picture = request.config.getoption("--save-screenshot", None)
    if picture:
        tab.page.wait_for_timeout(1000)
        picture.write_bytes(tab.screenshot())


def test_no_key_is_lost(tab: Tab, guest: DemoGuest) -> None:
    assert len(SENTENCE) == 60
    for _ in range(TIMES):
        tab.page.keyboard.type(SENTENCE, delay=KEY_MS)
        wait_for_line(tab, guest, PROMPT + SENTENCE)
        tab.type_keys("Enter")
        wait_for_line(tab, guest, PROMPT)
        assert guest.screen()[-2] == SENTENCE.removeprefix("echo ")


def test_both_shells_have_job_control(tab: Tab, guest: DemoGuest) -> None:
    tab.page.keyboard.type("sleep 1000\n", delay=KEY_MS)
    tab.wait_for(lambda: "sleep 1000" in guest.run("ps"), "sleep at the guest's screen")
    tab.type_keys("Control+c")
    wait_for_line(tab, guest, PROMPT)
    assert "sleep 1000" not in guest.run("ps")
    assert guest.run("sleep 1000 & jobs").endswith("Running                    sleep 1000\n")
    guest.run("kill %1")


def test_it_starts_quickly_and_costs_next_to_nothing_idle(tab: Tab, guest: DemoGuest) -> None:
    """With a viewer who looks at it."""
    before = processor_time_s(guest.pid)
    assert before < MAX_BOOT_S
    started = time.monotonic()
    tab.page.wait_for_timeout(IDLE_S * 1000)
    share = (processor_time_s(guest.pid) - before) / (time.monotonic() - started)
    assert share < MAX_IDLE_SHARE
    assert resident_mib(guest.pid) < MAX_MEMORY_MIB


def test_it_starts_anew_on_the_same_page(tab: Tab, guest: DemoGuest) -> None:
    guest.run("touch /tmp/before")
    tab.page.keyboard.type("reboot\n", delay=KEY_MS)
    guest.wait_for_restart()
    assert guest.run("ls /tmp") == ""
    assert tab.text("#state") == "Connected"


@pytest.mark.timeout(300)
def test_its_memory_stays_small_after_reboots_with_a_full_folder(guest: DemoGuest) -> None:
    """Each start touches other parts of its memory."""
    for _ in range(REBOOTS):
        guest.run("dd if=/dev/zero of=/tmp/full bs=64k")
        guest.enter("reboot")
        guest.wait_for_restart()
    assert "No space left on device" in guest.run("dd if=/dev/zero of=/tmp/full bs=64k")
    assert resident_mib(guest.pid) < MAX_MEMORY_MIB


def test_it_answers_itself(guest: DemoGuest) -> None:
    assert " 0% packet loss" in guest.run("ping -c 1 127.0.0.1")


def test_the_page_says_that_it_is_off(tab: Tab) -> None:
    """The last one that needs the guest."""
    tab.page.keyboard.type("poweroff\n", delay=KEY_MS)
    tab.wait_for_text("#state", "Ended")


def processor_time_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

# SPDX-License-Identifier: Apache-2.0
"""The whole path as a user walks it: a URL from the command, a browser, the guest's screen, keys that arrive.

Four daemons, RabbitMQ, memcached, libvirt and QEMU are real. What the guest shows is asked of libvirt, not of the
proxy, so that the two ways to its screen are held against each other. One guest and one set of daemons serve the tests
in the order they stand here.
"""

import os
import subprocess
import sys
import time
import urllib.request
import uuid as uuidlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.browser import SAME, Browser, Pixels, Tab, equal_share, read_pixels
from support.console import get_console, token_of, wait_for_instances
from support.daemons import Options, Porthole
from support.libvirtd import Libvirtd, guest_xml
from support.memcached import Memcached
from support.processes import wait_until
from support.rabbitmq import RabbitMQ

# It boots to a prompt that echoes what is typed, and then waits; one guest of it at a time, since it waits in a loop.
IMAGE = Path("/usr/lib/grub-rescue/grub-rescue-cdrom.iso")
BOOT_TIMEOUT_S = 120
ECHO_TIMEOUT_S = 3
TIMEOUT_S = 60
# A blinking cursor is the only thing that moves on a screen at rest; a word is more than that.
CURSOR_PIXELS = 100
# A keyboard's queue is short, and a guest that is emulated on a busy machine reads it slowly.
HOLD_MS = 60
GUEST = "vm1"

PAGES = ["console.html?", "vnc_lite.html?", "vnc_auto.html?", "vnc.html?autoconnect=1&"]


class Guest:
    """A guest at GRUB's prompt, seen and typed at through libvirt alone."""

    def __init__(self, libvirtd: Libvirtd, directory: Path) -> None:
        self._libvirtd = libvirtd
        self._shot = directory / "screen"
        self.uuid = str(uuidlib.uuid4())

    def start(self) -> None:
        assert IMAGE.exists(), f"{IMAGE} is not installed (see bindep.txt)"
        self._libvirtd.create(guest_xml(GUEST, self.uuid, cdrom=IMAGE))
        self.wait_for_prompt()

    def destroy(self) -> None:
        self._libvirtd.destroy(self.uuid)

    def screen(self) -> Pixels:
        return read_pixels(self._libvirtd.screenshot(self.uuid, self._shot).read_bytes())

    def wait_for_prompt(self) -> None:
        """Return once letters that libvirt types are echoed, and gone when they are taken back.

        GRUB shows a menu first, where the letter ``c`` leads to the prompt.
        """
        wait_until(self._echoes, BOOT_TIMEOUT_S, "GRUB's prompt")

    def _echoes(self) -> bool:
        before = self.screen()
        self._press("KEY_C")
        has_echo = self._soon(lambda: changed_pixels(before, self.screen()) >= CURSOR_PIXELS)
        self._press("KEY_BACKSPACE")
        return has_echo and self._soon(lambda: changed_pixels(before, self.screen()) < CURSOR_PIXELS // 2)

    def _press(self, key: str) -> None:
        for _ in range(8):
            self._libvirtd.send_key(self.uuid, key)

    def _soon(self, predicate: Callable[[], bool]) -> bool:
        """Tell whether ``predicate()`` comes true while the guest may still be about to draw."""
        deadline = time.monotonic() + ECHO_TIMEOUT_S
        while not (true := predicate()) and time.monotonic() < deadline:
            continue
        return true


def changed_pixels(one: Pixels, other: Pixels) -> int:
    """How many pixels differ; all of them for unequal sizes."""
    return round((1 - equal_share(one, other)) * (one.size // 3))


@pytest.fixture(scope="module")
def guest(libvirtd: Libvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    guest = Guest(libvirtd, tmp_path_factory.mktemp("guest"))
    guest.start()
    yield guest
    libvirtd.remove_guests()


@pytest.fixture(scope="module")
def porthole(
    rabbitmq: RabbitMQ,
    memcached: Memcached,
    libvirtd: Libvirtd,
    guest: Guest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Porthole]:
    directory = tmp_path_factory.mktemp("porthole")
    # A consoleauth that is away is waited for by the upgrade, and by the question why it was refused.
    options: Options = {"rpc": {"call_timeout": 4}}
    with Porthole(directory, rabbitmq, memcached, libvirt_uri=libvirtd.uri, options=options) as porthole:
        wait_for_instances(porthole, guest.uuid)
        yield porthole


def url_from_command(porthole: Porthole, directory: Path) -> str:
    """Ask for the console as a user does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    done = subprocess.run(
        [sys.executable, "-m", "porthole_cli.main", "get-vnc-console", GUEST, "novnc", "-f", "value", "-c", "Url"],
        env={**environment, "HOME": str(directory), "OS_ENDPOINT": porthole.api_url, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for_same_screen(tab: Tab, guest: Guest) -> None:
    """Return once the canvas shows what libvirt says that the guest shows."""
    tab.wait_for_desktop()
    tab.wait_for(lambda: equal_share(tab.canvas(), guest.screen()) >= SAME, "the guest's screen on the canvas")


def type_and_compare(tab: Tab, guest: Guest, text: str) -> None:
    """Type into the canvas: the guest's screen changes by that, and the canvas with it."""
    before_guest, before_canvas = guest.screen(), tab.canvas()
    assert changed_pixels(before_guest, guest.screen()) < CURSOR_PIXELS, "the guest's screen is not at rest"
    tab.page.locator("canvas").click(position={"x": 5, "y": 5})
    tab.type_keys(*text, hold_ms=HOLD_MS)
    tab.wait_for(
        lambda: changed_pixels(before_guest, guest.screen()) >= CURSOR_PIXELS, f"{text!r} on the guest's screen"
    )
    tab.wait_for(lambda: changed_pixels(before_canvas, tab.canvas()) >= CURSOR_PIXELS, f"{text!r} on the canvas")
    wait_for_same_screen(tab, guest)


def test_a_user_opens_the_guests_screen_and_types(
    porthole: Porthole, guest: Guest, browser: Browser, tmp_path: Path
) -> None:
    url = url_from_command(porthole, tmp_path)
    tab = browser.open(url, width=860, height=570)
    tab.wait_for_text("#state", "Connected")
    wait_for_same_screen(tab, guest)
    type_and_compare(tab, guest, "echo Hello from the browser")
    tab.type_keys("Enter")
    wait_for_same_screen(tab, guest)
    assert tab.text("#name") == GUEST
    assert (tab.messages, tab.errors) == ([], [])


@pytest.mark.parametrize("page", PAGES)
def test_every_page_shows_the_screen_and_takes_keys(
    porthole: Porthole, guest: Guest, browser: Browser, page: str
) -> None:
    """C15: the pages that URLs name exist in the noVNC that is installed, and work under their policies."""
    url = get_console(porthole, guest.uuid)
    tab = browser.open(url.replace("console.html?", page))
    wait_for_same_screen(tab, guest)
    type_and_compare(tab, guest, "porthole ")
    assert (tab.violations, tab.errors) == ([], [])
    assert [sent.url for sent in tab.sent if sent.headers.get("referer")] == []


def test_the_page_itself_spends_nothing(porthole: Porthole, guest: Guest, browser: Browser) -> None:
    url = get_console(porthole, guest.uuid)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(3):
        with opener.open(url, timeout=TIMEOUT_S) as page:
            assert page.headers["Cache-Control"] == "no-store"
            assert page.headers["Referrer-Policy"] == "no-referrer"
            assert b"noVNC" in page.read()
    for _ in range(2):
        browser.open(url).wait_for_text("#state", "Connected")


def test_a_link_that_opens_nothing_says_so(porthole: Porthole, guest: Guest, browser: Browser) -> None:
    url = get_console(porthole, guest.uuid)
    tab = browser.open(url.replace(token_of(url), str(uuidlib.uuid4())))
    tab.wait_for_text("#state", "Not connected")
    assert tab.text("#panel-title") == "This link does not open a console any more"
    assert tab.text("#panel-detail").startswith("401: ")


def test_consoleauth_away_and_back(porthole: Porthole, guest: Guest, browser: Browser) -> None:
    url = get_console(porthole, guest.uuid)
    porthole.consoleauth.stop()
    tab = browser.open(url)
    tab.wait_for_text("#state", "Not connected")
    assert tab.text("#panel-title") == "The console service is not complete right now"
    porthole.start_daemon("consoleauth")
    tab.page.get_by_role("button", name="Try again").click()
    tab.wait_for_text("#state", "Connected")


def test_the_proxy_goes_and_comes_back(porthole: Porthole, guest: Guest, browser: Browser) -> None:
    tab = browser.open(get_console(porthole, guest.uuid))
    tab.wait_for_text("#state", "Connected")
    porthole.novncproxy.stop()
    tab.wait_for_text("#state", "Ended")
    assert tab.text("#panel-title") == "The console proxy is restarting"
    porthole.start_daemon("novncproxy")
    tab.page.locator("#panel-action").click()
    wait_for_same_screen(tab, guest)


def test_the_end_of_the_guest(porthole: Porthole, guest: Guest, browser: Browser) -> None:
    """The last one that needs the guest."""
    tab = browser.open(get_console(porthole, guest.uuid))
    tab.wait_for_text("#state", "Connected")
    guest.destroy()
    tab.wait_for_text("#state", "Ended")
    # Its end of the connection, a reset of it (QEMU is killed, and may have had keys unread), or the revocation: one of
    # them comes first.
    title = tab.text("#panel-title")
    assert title in ("The guest closed its screen", "Access to this console has ended") or title.endswith("was lost")
    tab.page.reload()
    tab.wait_for_text("#state", "Not connected")
    assert tab.text("#panel-title") == "This link does not open a console any more"

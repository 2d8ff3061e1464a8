# SPDX-License-Identifier: Apache-2.0
"""The console page with every release of noVNC that it is for, as npm's package has it: a library without pages.

The proxy, the VNC server (TigerVNC) and the browser are real, and noVNC's code is that of the release.
"""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from porthole_common import errors
from porthole_novncproxy import novnc
from porthole_novncproxy.front.pages import NOVNC_PAGES, Pages
from support import novnc_releases
from support.browser import SAME, Browser, Tab, equal_share
from support.console_server import ConsoleServer
from support.proxy import InProcessProxy
from support.x11_screen import Screen
from support.xvnc import Xvnc

WIDTH, HEIGHT = 320, 200
BEFORE, AFTER = (40, 120, 80), (200, 100, 40)


@pytest.fixture(scope="module")
def xvnc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Xvnc]:
    with Xvnc(tmp_path_factory.mktemp("xvnc"), f"{WIDTH}x{HEIGHT}") as xvnc:
        yield xvnc


@pytest.fixture(scope="module")
def screen(xvnc: Xvnc) -> Iterator[Screen]:
    with Screen(xvnc.display) as screen:
        yield screen


def is_painted(tab: Tab, colour: tuple[int, int, int]) -> bool:
    return equal_share(tab.canvas(), np.full((HEIGHT, WIDTH, 3), colour, np.uint8)) >= SAME


def paint_and_see(tab: Tab, screen: Screen, colour: tuple[int, int, int]) -> None:
    screen.paint(*colour)
    tab.wait_for(partial(is_painted, tab, colour), f"the colour {colour} on the canvas")


@pytest.mark.parametrize("version", novnc_releases.CHECKSUMS)
def test_the_console_page_on_every_release(browser: Browser, xvnc: Xvnc, screen: Screen, version: str) -> None:
    """C15: the screen is seen, a key arrives, what it changes is seen, and no page is offered that is not there."""
    web_root = novnc_releases.find_web_root(version)
    assert novnc.find_version(str(web_root)) == version
    with InProcessProxy(web_root) as proxy:
        tab = browser.open(f"http://127.0.0.1:{proxy.novnc_port}/console.html?path=%3Ftoken%3D{proxy.issue(xvnc)}")
        tab.wait_for_text("#state", "Connected")
        tab.wait_for_desktop()
        paint_and_see(tab, screen, BEFORE)
        tab.type_keys("a")
        assert screen.next_key() >= 8
        paint_and_see(tab, screen, AFTER)
        tab.wait_for(lambda: [sent for sent in tab.sent if sent.url.endswith("/vnc.html")], "a look for vnc.html")
        assert not tab.page.locator("#all-tools").is_visible()
        assert (tab.text("#state"), tab.violations, tab.errors) == ("Connected", [], [])
        # The browser's own line about vnc.html, which is not there.
        assert [line for line in tab.messages if "404" not in line] == []


# Asks for the check of a server's key, as noVNC 1.4 and later do with RA2.
UNVERIFIED = """
export default class extends EventTarget {
    constructor(target, socket) {
        super();
        socket.onmessage = () => {};
        socket.addEventListener('open', () => this.dispatchEvent(new CustomEvent('serververification')));
    }
    disconnect() {}
}
"""


@pytest.mark.parametrize("has_page", [True, False])
def test_novncs_own_page_is_offered_where_it_is_there(browser: Browser, tmp_path: Path, has_page: bool) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "rfb.js").write_text(UNVERIFIED)
    if has_page:
        (tmp_path / "vnc.html").write_text("")
    with ConsoleServer(str(tmp_path)) as server:
        tab = browser.open(server.url + "/console.html?path=%3Ftoken%3DT")
        tab.wait_for_text("#panel-title", "wants its key checked")
        assert ("All noVNC tools" in tab.text("#panel-next")) is has_page
        assert tab.page.locator("#all-tools").is_visible() is has_page
        assert tab.errors == []


@pytest.mark.parametrize("version", novnc_releases.COMMONJS)
def test_a_release_that_no_browser_loads_is_refused_at_start(version: str) -> None:
    package = novnc_releases.find_package(version)
    with pytest.raises(errors.ConfigInvalid, match=r"CommonJS alone \(lib/rfb.js\).* npm's package has core/rfb.js"):
        Pages(str(package), [])


def test_a_page_of_novncs_that_is_not_there_names_the_one_that_is(browser: Browser, xvnc: Xvnc) -> None:
    with InProcessProxy(novnc_releases.find_web_root("1.7.0")) as proxy:
        for name in sorted(NOVNC_PAGES):
            url = f"http://127.0.0.1:{proxy.novnc_port}/{name}?path=%3Ftoken%3D{proxy.issue(xvnc)}"
            tab = browser.new_tab()
            assert tab.goto(url) == 404
            assert "no noVNC application" in tab.text("body")
            assert f"put console.html in place of {name}" in tab.text("body")
            # As it says.
            tab.goto(url.replace(name, "console.html"))
            tab.wait_for_text("#state", "Connected")


def test_another_release_in_the_same_folder_is_loaded_whole(browser: Browser, xvnc: Xvnc, tmp_path: Path) -> None:
    """C35: npm's archives give every file one date in every release, which vouches for nothing that was kept."""
    web_root = tmp_path / "web"
    shutil.copytree(novnc_releases.find_package("1.4.0"), web_root)
    with InProcessProxy(web_root) as proxy:
        tab = browser.open(f"http://127.0.0.1:{proxy.novnc_port}/console.html?path=%3Ftoken%3D{proxy.issue(xvnc)}")
        tab.wait_for_text("#state", "Connected")
        shutil.rmtree(web_root)
        shutil.copytree(novnc_releases.find_package("1.7.0"), web_root)
        tab.page.reload()
        tab.wait_for_text("#state", "Connected")
        for name in ("core/rfb.js", "core/websock.js"):
            loaded = tab.page.evaluate("async (name) => (await fetch(name)).text()", name)
            assert loaded == (web_root / name).read_text(encoding="utf-8")
        assert tab.errors == []

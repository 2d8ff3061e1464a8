# SPDX-License-Identifier: Apache-2.0
"""The console page before a QEMU that speaks VeNCrypt: the screen, a password, and a certificate that does not do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from support.browser import Browser, Tab, read_pixels
from support.certificates import Authority
from support.processes import wait_until
from support.proxy import InProcessProxy
from support.qemu import QemuVnc, x509
from support.secure_vnc import security_of

WEB_ROOT = Path("/usr/share/novnc")
PASSWORD = "s3cret"
Open = Callable[[InProcessProxy, QemuVnc], Tab]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def open_page(browser: Browser) -> Open:
    def run(proxy: InProcessProxy, server: QemuVnc) -> Tab:
        path = f"?path=%3Ftoken%3D{proxy.issue(server)}"
        return browser.open(f"http://127.0.0.1:{proxy.novnc_port}/console.html{path}")

    return run


def make_qemu(directory: Path, authority: Authority, password: str | None = None) -> QemuVnc:
    credentials = x509(directory / "pki", authority, authority.issue(chain=False))
    return QemuVnc(directory / "guest", credentials, password)


def wait_for_screen(tab: Tab, server: QemuVnc, directory: Path) -> None:
    """Return once the canvas is what QEMU itself says that it shows, pixel by pixel."""
    shown = read_pixels(server.screenshot(directory / "qemu.ppm").read_bytes())
    assert len(np.unique(shown)) > 1
    tab.wait_for_desktop()
    tab.wait_for(lambda: np.array_equal(tab.canvas(), shown), "QEMU's screen")


def test_the_screen_of_a_guest_behind_vencrypt(open_page: Open, authority: Authority, tmp_path: Path) -> None:
    security = security_of("vencrypt", ca_certs=authority.cert)
    with make_qemu(tmp_path, authority) as server, InProcessProxy(WEB_ROOT, security=security) as proxy:
        tab = open_page(proxy, server)
        tab.wait_for_text("#state", "Connected")
        wait_for_screen(tab, server, tmp_path)
        assert tab.text("#name") == "guest"
        assert not tab.violations


def test_the_password_of_a_guest_behind_vencrypt(open_page: Open, authority: Authority, tmp_path: Path) -> None:
    security = security_of("vencrypt", ca_certs=authority.cert)
    with make_qemu(tmp_path, authority, PASSWORD) as server, InProcessProxy(WEB_ROOT, security=security) as proxy:
        tab = open_page(proxy, server)
        tab.wait_for_text("#panel-title", "asks for a password")
        tab.page.get_by_role("textbox", name="Password").fill("wrong")
        tab.type_keys("Enter")
        tab.wait_for_text("#panel-title", "The VNC server refused the password")
        wait_until(lambda: proxy.counter.total == 0, 30, "the console ends")
        tab = open_page(proxy, server)
        tab.page.get_by_role("textbox", name="Password").fill(PASSWORD)
        tab.type_keys("Enter")
        tab.wait_for_text("#state", "Connected")
        wait_for_screen(tab, server, tmp_path)


def test_the_page_says_that_a_guest_is_not_protected_as_it_should_be(
    open_page: Open, authority: Authority, tmp_path: Path
) -> None:
    security = security_of("vencrypt", ca_certs=Authority(tmp_path, "other").cert)
    with make_qemu(tmp_path, authority) as server, InProcessProxy(WEB_ROOT, security=security) as proxy:
        tab = open_page(proxy, server)
        tab.wait_for_text("#panel-title", "screen does not answer")
        assert tab.text("#panel-detail") == (
            "502: The screen of the machine is not protected in the way that this service asks for."
        )

# SPDX-License-Identifier: Apache-2.0
"""console.html in a browser: every state it can be in, and that noVNC's own pages work under their policies.

The other side is a stand-in that does as told; the whole path with the real one is in test_browser.py.
"""

from pathlib import Path

import numpy as np
import pytest

from porthole_common import errors
from porthole_common.model import RevocationReason
from porthole_novncproxy.admission import access
from porthole_novncproxy.front.pages import PACKAGE_WEB
from porthole_novncproxy.sessions.registry import REVOKED_WORDS
from support.browser import Browser, Tab
from support.console_server import COLOUR, HEIGHT, WIDTH, ConsoleServer, Session

TOKEN = "6b1c9a52-7a3e-4f0c-9d7c-0a4c4f4e2f11"
CONSOLE = f"/console.html?path=%3Ftoken%3D{TOKEN}"
XK_CONTROL_L, XK_ALT_L, XK_DELETE = 0xFFE3, 0xFFE9, 0xFFFF


def connect(browser: Browser, server: ConsoleServer, path: str = CONSOLE) -> tuple[Tab, Session]:
    tab = browser.open(server.url + path)
    session = server.next_session()
    tab.wait_for_text("#state", "Connected")
    return tab, session


def wait_for_screen(tab: Tab) -> None:
    tab.wait_for_desktop()
    tab.wait_for(lambda: np.all(tab.canvas() == COLOUR), "a canvas of one colour")


def active_id(tab: Tab) -> str:
    return str(tab.page.evaluate("() => document.activeElement.id || document.activeElement.tagName"))


def test_the_screen_appears_and_keys_arrive(browser: Browser, console_server: ConsoleServer) -> None:
    tab, session = connect(browser, console_server)
    wait_for_screen(tab)
    assert tab.canvas().shape == (HEIGHT, WIDTH, 3)
    assert session.path == f"/?token={TOKEN}"
    assert (tab.text("#name"), tab.page.title()) == ("vm1", "vm1 \u2013 console (noVNC)")
    assert active_id(tab) == "CANVAS"
    tab.page.locator("#all-tools").wait_for()
    tab.type_keys("a")
    assert session.next_keys(2) == [(ord("a"), True), (ord("a"), False)]
    assert (tab.messages, tab.errors) == ([], [])


@pytest.mark.parametrize(
    ("name", "shown"), [("QEMU (guest (1))", "guest (1)"), ("desk", "desk"), ("", "Console"), ("<b>x</b>", "<b>x</b>")]
)
def test_the_title_is_the_guests_name(browser: Browser, console_server: ConsoleServer, name: str, shown: str) -> None:
    console_server.desktop_name = name
    tab, _session = connect(browser, console_server)
    assert tab.text("#name") == shown


def test_ctrl_alt_del(browser: Browser, console_server: ConsoleServer) -> None:
    tab, session = connect(browser, console_server)
    tab.page.get_by_role("button", name="Ctrl-Alt-Del").click()
    keys = [XK_CONTROL_L, XK_ALT_L, XK_DELETE]
    assert session.next_keys(6) == [(key, True) for key in keys] + [(key, False) for key in reversed(keys)]
    assert active_id(tab) == "CANVAS"


def test_keyboard_comes_back_to_the_buttons(browser: Browser, console_server: ConsoleServer) -> None:
    """Without it nobody could leave the canvas by keyboard; no key stays down in the guest."""
    tab, session = connect(browser, console_server)
    tab.type_keys("Control+Alt+m")
    assert session.next_keys(4) == [
        (XK_CONTROL_L, True),
        (XK_ALT_L, True),
        (XK_CONTROL_L, False),
        (XK_ALT_L, False),
    ]
    assert active_id(tab) == "ctrl-alt-del"


def test_fit_and_one_to_one(browser: Browser, console_server: ConsoleServer) -> None:
    tab, _session = connect(browser, console_server)
    tab.wait_for_desktop()
    canvas, fit = tab.page.locator("canvas"), tab.page.get_by_role("button", name="Fit")
    tab.page.wait_for_function(f"() => document.querySelector('canvas').offsetHeight > {HEIGHT}")
    fit.click()
    tab.page.wait_for_function(f"() => document.querySelector('canvas').offsetHeight === {HEIGHT}")
    assert (fit.get_attribute("aria-pressed"), canvas.bounding_box() is not None) == ("false", True)
    fit.click()
    tab.page.wait_for_function(f"() => document.querySelector('canvas').offsetHeight > {HEIGHT}")


def test_full_screen(browser: Browser, console_server: ConsoleServer) -> None:
    tab, _session = connect(browser, console_server)
    tab.page.get_by_role("button", name="Full screen").click()
    tab.page.wait_for_function("() => document.fullscreenElement?.id === 'stage'")
    tab.type_keys("Control+Alt+m")
    tab.page.wait_for_function("() => document.fullscreenElement === null")
    assert tab.errors == []


def test_reconnect_while_connected(browser: Browser, console_server: ConsoleServer) -> None:
    tab, _session = connect(browser, console_server)
    tab.page.locator("#tools").get_by_role("button", name="Reconnect").click()
    again = console_server.next_session()
    tab.wait_for_text("#state", "Connected")
    tab.type_keys("b")
    assert again.next_keys(2) == [(ord("b"), True), (ord("b"), False)]
    assert not tab.page.locator("#panel").is_visible()
    assert tab.page.locator("canvas").count() == 1


@pytest.mark.parametrize(
    ("code", "title", "can_retry"),
    [
        (200, "The connection does not get through", True),
        (400, "This address is malformed", False),
        (401, "This link does not open a console any more", False),
        (403, "This page may not open the console", False),
        (418, "The console could not be opened", True),
        (429, "Too many consoles are open", True),
        (502, "The guest\u2019s screen does not answer", True),
        (503, "The console service is not complete right now", True),
        (504, "The guest\u2019s screen is silent", True),
    ],
)
def test_a_refusal_is_told_in_words(
    browser: Browser, console_server: ConsoleServer, code: int, title: str, can_retry: bool
) -> None:
    """C18: the status comes from a plain GET of the WebSocket's own path and query."""
    console_server.refuse_upgrade = 403 if code == 200 else code
    console_server.probe = (code, "The proxy's own reason.")
    tab = browser.open(console_server.url + CONSOLE)
    tab.wait_for_text("#state", "Not connected")
    assert tab.text("#panel-title") == title
    assert tab.text("#panel-reason")
    assert tab.text("#panel-next")
    assert "The proxy's own reason." in tab.text("#panel-detail")
    assert [probe.path for probe in console_server.probes] == [f"/?token={TOKEN}"]
    assert tab.page.locator("#panel-action").is_visible() == can_retry
    assert active_id(tab) == ("panel-action" if can_retry else "panel-title")
    assert (tab.violations, tab.errors) == ([], [])


def test_old_links_are_told_apart_from_open_consoles(browser: Browser, console_server: ConsoleServer) -> None:
    """Both are 429, and a user who has no console open can close none."""
    status, reason = access.refusal_for(errors.TokensRefused(1.0))
    console_server.refuse_upgrade, console_server.probe = status, (status, reason)
    tab = browser.open(console_server.url + CONSOLE)
    tab.wait_for_text("#state", "Not connected")
    assert tab.text("#panel-title") == "Too many old links came from your address"
    assert reason in tab.text("#panel-detail")
    assert tab.page.locator("#panel-action").is_visible()


def test_try_again_after_a_refusal(browser: Browser, console_server: ConsoleServer) -> None:
    console_server.refuse_upgrade, console_server.probe = 502, (502, "")
    tab = browser.open(console_server.url + CONSOLE)
    tab.wait_for_text("#state", "Not connected")
    console_server.refuse_upgrade = None
    tab.page.get_by_role("button", name="Try again").click()
    tab.wait_for_text("#state", "Connected")
    assert not tab.page.locator("#panel").is_visible()


@pytest.mark.parametrize(
    ("code", "title", "can_retry"),
    [
        (1000, "The guest closed its screen", True),
        (1001, "The console proxy is restarting", True),
        (1002, "The connection broke the protocol", True),
        (1009, "The connection broke the protocol", True),
        (1011, "The console was cut off", True),
        (4000, "The connection was lost", True),
        (4401, "Access to this console has ended", False),
        (4403, "Somebody has ended this session", True),
        (4408, "This session has reached its time limit", True),
        (4409, "This session was idle for too long", True),
    ],
)
def test_the_end_of_a_session_is_told_in_words(
    browser: Browser, console_server: ConsoleServer, code: int, title: str, can_retry: bool
) -> None:
    """C20: each close code of the proxy, which noVNC alone would call "something went wrong"."""
    tab, session = connect(browser, console_server)
    session.close(code, "the proxy's reason")
    tab.wait_for_text("#state", "Ended")
    assert tab.text("#panel-title") == title
    assert tab.text("#panel-detail") == f"{code}: the proxy's reason"
    assert tab.page.locator("#panel-action").is_visible() == can_retry
    assert tab.page.locator("#reconnect").is_enabled() == can_retry
    assert console_server.probes == []


def test_a_guest_that_moved_is_told_in_words(browser: Browser, console_server: ConsoleServer) -> None:
    """The code is that of a revocation; the words beside it are the proxy's own."""
    tab, session = connect(browser, console_server)
    session.close(4401, REVOKED_WORDS[RevocationReason.MOVED])
    tab.wait_for_text("#state", "Ended")
    assert tab.text("#panel-title") == "The guest has moved"
    assert "another host" in tab.text("#panel-reason")
    assert not tab.page.locator("#panel-action").is_visible()


@pytest.mark.parametrize(
    ("probe", "title"),
    [
        ((200, ""), "The connection was lost"),
        ((401, ""), "This link does not open a console any more"),
        ((503, ""), "The console service is not complete right now"),
    ],
)
def test_a_cut_connection_is_looked_into(
    browser: Browser, console_server: ConsoleServer, probe: tuple[int, str], title: str
) -> None:
    tab, session = connect(browser, console_server)
    console_server.probe = probe
    session.cut()
    tab.wait_for_text("#state", "Ended")
    assert tab.text("#panel-title") == title


def test_no_proxy_any_more(browser: Browser, console_server: ConsoleServer) -> None:
    tab, session = connect(browser, console_server)
    console_server.stop_listening()
    session.cut()
    tab.wait_for_text("#state", "Ended")
    assert tab.text("#panel-title") == "The console proxy cannot be reached"


def test_password(browser: Browser, console_server: ConsoleServer) -> None:
    console_server.asks_password = True
    tab = browser.open(console_server.url + CONSOLE)
    tab.wait_for_text("#panel-title", "asks for a password")
    assert active_id(tab) == "password"
    assert not tab.page.locator("#username").is_visible()
    tab.page.get_by_role("textbox", name="Password").fill("secret")
    tab.type_keys("Enter")
    tab.wait_for_text("#state", "Connected")
    assert tab.page.locator("#password").input_value() == ""
    assert active_id(tab) == "CANVAS"


def test_wrong_password(browser: Browser, console_server: ConsoleServer) -> None:
    console_server.asks_password, console_server.accepts_password = True, False
    tab = browser.open(console_server.url + CONSOLE)
    tab.page.get_by_role("textbox", name="Password").fill("wrong")
    tab.type_keys("Enter")
    tab.wait_for_text("#state", "Not connected")
    assert tab.text("#panel-title") == "The VNC server refused the password"
    assert tab.text("#panel-detail") == "Authentication failure"


def test_a_server_that_speaks_no_rfb(browser: Browser, console_server: ConsoleServer) -> None:
    console_server.first_words = b"SSH-2.0-x\r\n\r\n"
    tab = browser.open(console_server.url + CONSOLE)
    tab.wait_for_text("#state", "Ended")
    assert tab.text("#panel-title") == "noVNC and the guest\u2019s screen do not understand each other"


@pytest.mark.parametrize("path", ["/", "/console.html", "/console.html?scale=1"])
def test_an_address_without_a_console(browser: Browser, console_server: ConsoleServer, path: str) -> None:
    tab = browser.open(console_server.url + path)
    tab.wait_for_text("#state", "Not connected")
    assert tab.text("#panel-title") == "This address has no console in it"
    assert tab.websockets == []


@pytest.mark.parametrize(
    ("query", "dialled"),
    [
        ("?path=%3Ftoken%3DT", "/?token=T"),
        ("?path=websockify%3Ftoken%3DT", "/websockify?token=T"),
        ("?token=T", "/websockify?token=T"),
        ("?scale=0&path=a%2Fb%3Fx%3D1%26token%3DT", "/a/b?x=1&token=T"),
        ("#path=%3Ftoken%3DT", "/?token=T"),
        ("?path=%2Fabs%3Ftoken%3DT", "/abs?token=T"),
        ("?path=%2F%2Fevil.example%2Fx%3Ftoken%3DT", "//evil.example/x?token=T"),
        ("?path=%09%2F%2Fevil.example%3Ftoken%3DT", "///evil.example?token=T"),
        ("?path=%5C%5Cevil.example%3Ftoken%3DT", "///evil.example?token=T"),
        ("?path=wss%3A%2F%2Fevil.example%2F%3Ftoken%3DT", "/wss://evil.example/?token=T"),
        ("?host=evil.example&port=1&path=%3Ftoken%3DT", "/?token=T"),
    ],
)
def test_the_console_is_dialled_at_the_pages_own_origin(
    browser: Browser, console_server: ConsoleServer, query: str, dialled: str
) -> None:
    tab = browser.open(f"{console_server.url}/console.html{query}")
    session = console_server.next_session()
    tab.wait_for_text("#state", "Connected")
    assert session.path == dialled
    assert [url.split("/")[2] for url in tab.websockets] == [console_server.url.split("/")[2]]


def test_below_a_sub_path(browser: Browser, console_server: ConsoleServer) -> None:
    console_server.prefix = "/some/where"
    tab = browser.open(console_server.url + "/some/where" + CONSOLE)
    assert console_server.next_session().path == f"/some/where/?token={TOKEN}"
    tab.wait_for_text("#state", "Connected")
    assert tab.page.locator("#all-tools").get_attribute("href") == (
        f"vnc.html?autoconnect=1&path=some%2Fwhere%2F%3Ftoken%3D{TOKEN}"
    )


def test_older_novnc_is_named(browser: Browser, tmp_path: Path) -> None:
    """Before 1.3 noVNC took an address only, and would leave the page's WebSocket unread."""
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "rfb.js").write_text("export default class extends EventTarget {}")
    (tmp_path / "vnc.html").write_text("")
    with ConsoleServer(str(tmp_path)) as server:
        tab = browser.open(server.url + CONSOLE)
        tab.wait_for_text("#state", "Not connected")
        assert tab.text("#panel-title") == "The noVNC on this server is too old"


def test_broken_novnc_is_named(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "rfb.js").write_text("import './nowhere.js';")
    (tmp_path / "vnc.html").write_text("")
    with ConsoleServer(str(tmp_path)) as server:
        tab = browser.open(server.url + CONSOLE)
        tab.wait_for_text("#state", "Not connected")
        assert tab.text("#panel-title") == "noVNC did not load"


def test_phone_width(browser: Browser, console_server: ConsoleServer) -> None:
    tab = browser.open(console_server.url + CONSOLE, width=320, height=560)
    tab.wait_for_text("#state", "Connected")
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") == 320
    for button in tab.page.locator("#tools button").all():
        box = button.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 320
        assert box["height"] >= 30


@pytest.mark.parametrize("page", ["vnc_lite.html?", "vnc_auto.html?", "vnc.html?autoconnect=1&"])
def test_novncs_own_pages_work_under_their_policy(browser: Browser, console_server: ConsoleServer, page: str) -> None:
    tab = browser.open(f"{console_server.url}/{page}path=%3Ftoken%3D{TOKEN}")
    wait_for_screen(tab)
    assert (tab.violations, tab.errors) == ([], [])


@pytest.mark.parametrize("page", ["console.html?", "vnc_lite.html?", "vnc.html?autoconnect=1&"])
def test_no_token_in_a_referer_and_nothing_from_elsewhere(
    browser: Browser, console_server: ConsoleServer, page: str
) -> None:
    """S9."""
    tab = browser.open(f"{console_server.url}/{page}path=%3Ftoken%3D{TOKEN}")
    tab.wait_for_desktop()
    assert {sent.url.partition("/")[0] for sent in tab.sent} <= {"http:", "data:"}
    assert all(sent.url.startswith((console_server.url + "/", "data:")) for sent in tab.sent)
    assert len(console_server.requests) > 30
    assert [request.headers.get("Referer") for request in console_server.requests if "Referer" in request.headers] == []


def test_a_foreign_host_in_novncs_query_is_not_dialled(browser: Browser, console_server: ConsoleServer) -> None:
    with ConsoleServer() as other:
        port = other.url.rpartition(":")[2]
        tab = browser.open(f"{console_server.url}/vnc_lite.html?port={port}&path=%3Ftoken%3D{TOKEN}")
        tab.wait_for(lambda: tab.violations, "a word about the policy")
        assert other.requests == []
    assert "connect-src" in tab.violations[0]


def test_every_word_has_its_element() -> None:
    """A renamed element would leave the page without a word."""
    page, script = (PACKAGE_WEB / "console.html").read_text(), (PACKAGE_WEB / "console.js").read_text()
    for part in script.split("element('")[1:]:
        assert f'id="{part.partition(chr(39))[0]}"' in page

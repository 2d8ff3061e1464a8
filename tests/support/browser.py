# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium: open a URL, read what the page shows and complains about, type, take the canvas's pixels.

Why: the browser tests look at a console as a person does. The browser is the machine's own (no download), with a
fresh profile for each :class:`Browser`; each :class:`Tab` records what its page wrote to the console, what its content
security policy refused, and the requests it made.
"""

import base64
import io
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import ConsoleMessage, Page, Request, WebSocket, sync_playwright

Pixels = npt.NDArray[np.uint8]

ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# A page is up in a second; a machine that emulates a guest beside it may need many.
TIMEOUT_S = 60
POLL_MS = 50
VIOLATION = "CSP violation:"
REPORT_VIOLATIONS = f"""
document.addEventListener('securitypolicyviolation', (event) => {{
    console.error('{VIOLATION} ' + event.violatedDirective + ' ' + event.blockedURI + ' ' + event.sourceFile);
}});
"""
# A canvas that noVNC has not drawn on yet is empty or without size.
IS_DRAWN = """
() => {
    const canvas = document.querySelector('canvas');
    if (!canvas || !canvas.width || !canvas.height) return false;
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    const data = copy.getImageData(0, 0, canvas.width, canvas.height).data;
    return data.some((value, index) => index % 4 === 3 && value !== 0);
}
"""


@dataclass(frozen=True)
class Sent:
    """A request that a page made; header names in lower case."""

    url: str
    headers: dict[str, str]


class Tab:
    """One page. ``messages``: lines written to its console; ``violations``: what its policy refused."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.messages: list[str] = []
        self.errors: list[str] = []
        self.sent: list[Sent] = []
        self.websockets: list[str] = []
        page.set_default_timeout(TIMEOUT_S * 1000)
        page.add_init_script(REPORT_VIOLATIONS)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._on_request)
        page.on("websocket", self._on_websocket)

    @property
    def violations(self) -> list[str]:
        """What the page's content security policy refused; empty when the page and its policy fit."""
        return [line for line in self.messages if VIOLATION in line or "Content Security Policy" in line]

    def goto(self, url: str) -> int:
        """Open ``url`` and return the status of the page."""
        response = self.page.goto(url, wait_until="domcontentloaded")
        assert response is not None
        return response.status

    def wait_for_text(self, selector: str, text: str) -> None:
        """Return once the element shows ``text`` somewhere in its text."""
        self.page.locator(selector).filter(has_text=text).wait_for()

    def wait_for_desktop(self) -> None:
        """Return once noVNC has drawn on its canvas."""
        self.page.wait_for_function(IS_DRAWN)

    def wait_for(self, predicate: Callable[[], object], what: str) -> None:
        """Return once ``predicate()`` is true; the page goes on meanwhile, and what it does is recorded.

        :raises AssertionError: when that takes more than :data:`TIMEOUT_S`; it says ``what`` was awaited.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while not predicate():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {TIMEOUT_S} s in vain for: {what}\n" + "\n".join(self.messages))
            self.page.wait_for_timeout(POLL_MS)

    def text(self, selector: str) -> str:
        """Return the visible text of an element, stripped."""
        return self.page.locator(selector).inner_text().strip()

    def canvas(self) -> Pixels:
        """Return what noVNC's canvas holds, as an array of height * width * (red, green, blue)."""
        url = self.page.evaluate("() => document.querySelector('canvas').toDataURL('image/png')")
        return read_pixels(base64.b64decode(url.partition(",")[2]))

    def screenshot(self) -> bytes:
        """Return what the window shows, as PNG."""
        return self.page.screenshot()

    def type_keys(self, *keys: str, hold_ms: float = 0) -> None:
        """Press keys one after the other, each for ``hold_ms``, by their DOM names (``a``, ``Control+Alt+m``)."""
        for key in keys:
            self.page.keyboard.press(key, delay=hold_ms)

    def _on_console(self, message: ConsoleMessage) -> None:
        self.messages.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        self.sent.append(Sent(request.url, {name.lower(): value for name, value in request.headers.items()}))

    def _on_websocket(self, websocket: WebSocket) -> None:
        self.websockets.append(websocket.url)


class Browser:
    """One Chromium; :meth:`open` gives a page of its own profile."""

    def __init__(self, extra_arguments: Sequence[str] = ()) -> None:
        self._arguments = [*ARGUMENTS, *extra_arguments]
        if os.geteuid() == 0:
            # Chromium refuses to run as root inside its own sandbox.
            self._arguments.append("--no-sandbox")

    def start(self) -> None:
        """Start it."""
        executable = shutil.which("chromium")
        assert executable, "chromium is not installed (see bindep.txt)"
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=executable, args=self._arguments)

    def stop(self) -> None:
        """End it and forget its profile."""
        self._browser.close()
        self._playwright.stop()

    def new_tab(self, width: int = 1100, height: int = 760) -> Tab:
        """Return an empty page in a fresh profile (cookies, storage, cache)."""
        context = self._browser.new_context(viewport={"width": width, "height": height})
        return Tab(context.new_page())

    def open(self, url: str, width: int = 1100, height: int = 760) -> Tab:
        """Return a fresh page that has loaded ``url``."""
        tab = self.new_tab(width, height)
        tab.goto(url)
        return tab

    def close_tabs(self) -> None:
        """Close every page, so that the next test starts from nothing."""
        for context in self._browser.contexts:
            context.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def read_pixels(image: bytes) -> Pixels:
    """Decode a PNG, PPM or the like to an array of height * width * (red, green, blue)."""
    with Image.open(io.BytesIO(image)) as opened:
        return np.asarray(opened.convert("RGB"))


# The share from which on two pictures are one, whatever a cursor does.
SAME = 0.995


def equal_share(one: Pixels, other: Pixels, tolerance: int = 8) -> float:
    """Return which share of the pixels (0 to 1) are the same within ``tolerance`` per colour; 0 for unequal sizes."""
    if one.shape != other.shape:
        return 0.0
    difference = np.abs(one.astype(np.int16) - other.astype(np.int16)).max(axis=2)
    return float((difference <= tolerance).mean())

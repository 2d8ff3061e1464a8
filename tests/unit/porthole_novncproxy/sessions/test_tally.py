# SPDX-License-Identifier: Apache-2.0
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from porthole_common import metrics
from porthole_common.model import ConsoleMode, ConsoleType
from porthole_novncproxy.admission.gate import Admission
from porthole_novncproxy.sessions import tally
from porthole_novncproxy.sessions.tally import Tally, name_code
from porthole_relay.frames import CloseCode
from porthole_relay.loop import Loop
from support.cases import naming
from support.fake_loop import FakeLoop
from support.scrapes import Scrape


def make_admission(console_type: ConsoleType, mode: ConsoleMode = ConsoleMode.CONTROL) -> Any:
    return SimpleNamespace(connect_info=SimpleNamespace(console_type=console_type, mode=mode))


NOVNC, XVPVNC = map(make_admission, ConsoleType)
VIEWER = make_admission(ConsoleType.NOVNC, ConsoleMode.VIEW)
OPEN, ENDED = ("novnc", "control"), "porthole_sessions_ended_total"


class Proxy:
    def __init__(self) -> None:
        self.loop = FakeLoop()
        self.tally = Tally(cast(Loop, self.loop))

    @contextmanager
    def turning(self) -> Iterator[None]:
        """Run the loop's calls in another thread, as they come."""
        done = threading.Event()

        def turn() -> None:
            while not done.wait(0.001):
                self.loop.run_soon()

        thread = threading.Thread(target=turn)
        thread.start()
        yield
        done.set()
        thread.join(20)


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Proxy:
    # Each read is a new sum.
    monkeypatch.setattr(tally, "_REUSE_S", -1.0)
    return Proxy()


@pytest.fixture
def make_key() -> Callable[[int, int], Any]:
    class Key(SimpleNamespace):
        __hash__ = object.__hash__  # type: ignore[assignment]

    return lambda to_client, from_client: Key(numbers=(to_client, from_client, 1000))


def test_open_consoles_and_their_bytes_by_door(proxy: Proxy, make_key: Callable[[int, int], Any]) -> None:
    for session, admission in (
        (make_key(100, 7), NOVNC),
        (make_key(20, 1), NOVNC),
        (make_key(5, 5), XVPVNC),
        (make_key(0, 0), VIEWER),
    ):
        proxy.tally.note_opened(session, cast(Admission, admission))
    with proxy.turning():
        totals = proxy.tally.read()
    assert totals.sessions == {OPEN: 2, ("novnc", "view"): 1, ("xvpvnc", "control"): 1, ("xvpvnc", "view"): 0}
    assert totals.relayed_bytes["novnc", "to_client"] == 120
    assert totals.relayed_bytes["novnc", "from_client"] == 8
    assert totals.relayed_bytes["xvpvnc", "to_client"] == 5


def test_a_console_that_ends_takes_no_byte_along(proxy: Proxy, make_key: Callable[[int, int], Any]) -> None:
    session, admission = make_key(100, 7), cast(Admission, NOVNC)
    proxy.tally.note_opened(session, admission)
    with proxy.turning():
        before = proxy.tally.read()
        proxy.loop.call_soon(lambda: proxy.tally.note_ended(session, admission))
        after = proxy.tally.read()
    assert after.relayed_bytes == before.relayed_bytes
    assert (before.sessions[OPEN], after.sessions[OPEN]) == (1, 0)


def test_each_door_has_its_numbers_before_the_first_console(proxy: Proxy) -> None:
    with proxy.turning():
        totals = proxy.tally.read()
    assert set(totals.sessions) == {(door, mode) for door in ("novnc", "xvpvnc") for mode in ("control", "view")}
    assert set(totals.sessions.values()) == {0}
    assert set(totals.relayed_bytes.values()) == {0}
    assert len(totals.relayed_bytes) == 4


def test_a_blocked_loop_has_the_numbers_of_before(
    proxy: Proxy,
    make_key: Callable[[int, int], Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A counter that drops would look like a restart."""
    proxy.tally.note_opened(make_key(100, 7), cast(Admission, NOVNC))
    with proxy.turning():
        before = proxy.tally.read()
    monkeypatch.setattr(tally, "READ_TIMEOUT_S", 0.01)
    with caplog.at_level(logging.WARNING):
        assert proxy.tally.read() is before
    assert "Consoles not measured" in caplog.text


def test_close_codes_are_few() -> None:
    for code, name in ((None, "none"), (1000, "1000"), (CloseCode.REVOKED, "4401"), (4999, "other"), (3000, "other")):
        with naming(str(code)):
            assert name_code(code) == name


def test_openings_and_ends_are_counted(proxy: Proxy, make_key: Callable[[int, int], Any]) -> None:
    def read() -> tuple[float, float]:
        scrape = Scrape(metrics.render("novncproxy").decode())
        opened = scrape.get("porthole_openings_total", door="xvpvnc", outcome="opened")
        return opened, scrape.get(ENDED, door="xvpvnc", code="1000")

    opened, ended = read()
    session, admission = make_key(1, 1), cast(Admission, XVPVNC)
    proxy.tally.note_opened(session, admission)
    proxy.tally.note_ended(session, admission)
    assert read() == (opened + 1, ended + 1)

# SPDX-License-Identifier: Apache-2.0
"""Open consoles and relayed bytes, by door, for the metrics.

Why: the relay counts the bytes of each session as plain numbers, without a lock. A scrape has the loop add up those of
the open sessions and those of the sessions that have ended, in one of its turns, so that no byte is counted twice or
missed when a session ends at that moment. Made by :mod:`porthole_novncproxy.sessions.registry`.
"""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from porthole_common import metrics
from porthole_novncproxy.admission.gate import Admission
from porthole_novncproxy.doors import DOORS, find_door
from porthole_relay.frames import CloseCode
from porthole_relay.loop import Loop
from porthole_relay.session import Session

# View-only sessions do not exist yet; the label is there, so that dashboards need no change.
MODE = "control"
# How long a scrape waits for the loop. A loop that is blocked has the numbers of the last scrape.
READ_TIMEOUT_S = 0.5
# The metrics of one scrape are read from one sum.
_REUSE_S = 0.25


@dataclass
class Totals:
    """``sessions`` by (door, mode), and ``relayed_bytes`` by (door, direction)."""

    sessions: Counter[tuple[str, str]] = field(
        default_factory=lambda: Counter(dict.fromkeys(((door.name, MODE) for door in DOORS), 0))
    )
    relayed_bytes: Counter[tuple[str, str]] = field(
        default_factory=lambda: Counter(
            dict.fromkeys(((door.name, way) for door in DOORS for way in ("to_client", "from_client")), 0)
        )
    )


class Tally:
    """The numbers of one registry. The loop's thread calls all methods but :meth:`read`."""

    def __init__(self, loop: Loop, sessions: Mapping[Session, Admission]) -> None:
        """``sessions`` are the open ones, which the registry changes in the loop's thread."""
        self._loop = loop
        self._sessions = sessions
        self._ended = Totals()
        self._last = Totals()
        self._read_at_s = float("-inf")
        self._reading = threading.Lock()

    def note_opened(self, admission: Admission) -> None:
        """Count a console that has just been opened."""
        metrics.OPENINGS.labels(_get_door(admission), "opened").inc()

    def note_ended(self, session: Session, admission: Admission) -> None:
        """Count a console that has just ended, and keep its bytes."""
        door = _get_door(admission)
        _add_bytes(self._ended, door, session)
        metrics.SESSIONS_ENDED.labels(door, name_code(session.close_code)).inc()

    def read(self) -> Totals:
        """Return the totals as they are in the next turn of the loop. From any thread but the loop's."""
        with self._reading:
            if time.monotonic() - self._read_at_s > _REUSE_S:
                self._ask()
            return self._last

    def _ask(self) -> None:
        done = threading.Event()
        totals = Totals()

        def add_up() -> None:
            totals.relayed_bytes.update(self._ended.relayed_bytes)
            for session, admission in self._sessions.items():
                door = _get_door(admission)
                totals.sessions[door, MODE] += 1
                _add_bytes(totals, door, session)
            done.set()

        self._loop.call_soon(add_up)
        if done.wait(READ_TIMEOUT_S):
            self._last = totals
        self._read_at_s = time.monotonic()


def name_code(code: int | None) -> str:
    """Return a close code as a label: a client may send any number, and none is sent when a connection breaks."""
    if code is None:
        return "none"
    return str(int(code)) if code in set(CloseCode) else "other"


def _get_door(admission: Admission) -> str:
    return find_door(admission.connect_info.console_type)


def _add_bytes(totals: Totals, door: str, session: Session) -> None:
    to_client, from_client = session.relayed_bytes
    totals.relayed_bytes[door, "to_client"] += to_client
    totals.relayed_bytes[door, "from_client"] += from_client

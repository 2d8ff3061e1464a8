# SPDX-License-Identifier: Apache-2.0
"""Open consoles and relayed bytes, by door, for the metrics.

Why: the relay counts the bytes of each session as plain numbers, without a lock. A scrape has the loop add up those of
the open sessions and those of the sessions that have ended, in one of its turns, so that no byte is counted twice or
missed when a session ends at that moment. Made by :mod:`porthole_novncproxy.sessions.registry`.
"""

import threading
import time
from dataclasses import dataclass, field

from porthole_common import metrics
from porthole_common.log import get_logger
from porthole_common.model import ConsoleMode
from porthole_novncproxy.admission.gate import Admission
from porthole_novncproxy.doors import DOORS, find_door
from porthole_relay.frames import CloseCode
from porthole_relay.loop import Loop
from porthole_relay.session import Session

LOG = get_logger(__name__)
# How long a scrape waits for the loop. A loop that is blocked has the numbers of the last scrape.
READ_TIMEOUT_S = 0.5
# The metrics of one scrape are read from one sum.
_REUSE_S = 0.25
_MODES = [(door.name, str(mode)) for door in DOORS for mode in ConsoleMode]
_DIRECTIONS = [(door.name, direction) for door in DOORS for direction in ("to_client", "from_client")]


@dataclass
class Totals:
    """``sessions`` by (door, mode), and ``relayed_bytes`` by (door, direction)."""

    sessions: dict[tuple[str, str], int] = field(default_factory=lambda: dict.fromkeys(_MODES, 0))
    relayed_bytes: dict[tuple[str, str], int] = field(default_factory=lambda: dict.fromkeys(_DIRECTIONS, 0))


class Tally:
    """The numbers of one registry. The loop's thread calls all methods but :meth:`read`."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        # By door and mode, so that the sum over thousands is short.
        self._open: dict[tuple[str, str], dict[Session, None]] = {key: {} for key in _MODES}
        self._ended_bytes = Totals().relayed_bytes
        self._last = Totals()
        self._read_at_s = float("-inf")
        self._reading = threading.Lock()

    def note_opened(self, session: Session, admission: Admission) -> None:
        """Count a console that has just been opened."""
        door = find_door(admission.connect_info.console_type)
        self._open[door, str(admission.connect_info.mode)][session] = None
        metrics.OPENINGS.labels(door, "opened").inc()

    def note_ended(self, session: Session, admission: Admission) -> None:
        """Count a console that has just ended, and keep its bytes."""
        door = find_door(admission.connect_info.console_type)
        del self._open[door, str(admission.connect_info.mode)][session]
        to_client, from_client, code = session.numbers
        self._ended_bytes[door, "to_client"] += to_client
        self._ended_bytes[door, "from_client"] += from_client
        metrics.SESSIONS_ENDED.labels(door, name_code(code)).inc()

    def read(self) -> Totals:
        """Return the totals as they are in the next turn of the loop. From any thread but the loop's."""
        with self._reading:
            if time.monotonic() - self._read_at_s > _REUSE_S:
                self._ask()
            return self._last

    def _ask(self) -> None:
        try:
            self._last = self._loop.ask(self._add_up, READ_TIMEOUT_S)
        except TimeoutError:
            LOG.warning("Consoles not measured; the event loop is busy", seconds=READ_TIMEOUT_S)
        self._read_at_s = time.monotonic()

    def _add_up(self) -> Totals:
        totals = Totals(relayed_bytes=dict(self._ended_bytes))
        for (door, mode), sessions in self._open.items():
            totals.sessions[door, mode] = len(sessions)
            to_client = from_client = 0
            for session in sessions:
                to, back, _ = session.numbers
                to_client += to
                from_client += back
            totals.relayed_bytes[door, "to_client"] += to_client
            totals.relayed_bytes[door, "from_client"] += from_client
        return totals


def name_code(code: int | None) -> str:
    """Return a close code as a label: a client may send any number, and none is sent when a connection breaks."""
    if code is None:
        return "none"
    return str(int(code)) if code in set(CloseCode) else "other"

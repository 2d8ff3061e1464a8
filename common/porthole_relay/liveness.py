# SPDX-License-Identifier: Apache-2.0
"""Whether a console should go on: pings and their answers, the idle limit, the session limit. No clock, no I/O.

Why: middleboxes cut connections that are silent (O8), clients vanish without a word, and operators limit how long a
screen stays open. Times are seconds of one monotonic clock. Called by :mod:`porthole_relay.session` and
:mod:`porthole_relay.stream_pair`.
"""

from dataclasses import dataclass

from porthole_relay.frames import CloseCode


@dataclass(frozen=True)
class LivenessPolicy:
    """The options, in seconds; 0 turns each off. ``max_session_time_s`` counts from the opening of the console."""

    ping_interval_s: float = 0.0
    idle_timeout_s: float = 0.0
    max_session_time_s: float = 0.0


@dataclass(frozen=True)
class SendPing:
    """A ping is due: the client must answer it before the next one."""


@dataclass(frozen=True)
class EndSession:
    """The session must be closed with this code and reason."""

    code: CloseCode
    reason: str


class Liveness:
    """The clock of one session."""

    __slots__ = ("_ends_at", "_heard_at", "_moved_at", "_pinged_at", "_policy", "input_at")

    def __init__(self, policy: LivenessPolicy, now: float, expires_at: float | None) -> None:
        """``expires_at``: when the session ends in any case, or None."""
        self._policy = policy
        self._heard_at = self._moved_at = now
        self._pinged_at = now
        # When the client last sent RFB bytes; None before.
        self.input_at: float | None = None
        ends = [] if expires_at is None else [expires_at]
        if policy.max_session_time_s:
            ends.append(now + policy.max_session_time_s)
        self._ends_at = min(ends, default=None)

    def heard(self, now: float) -> None:
        """Note that bytes of the client arrived, such as a pong."""
        self._heard_at = now

    def moved(self, now: float) -> None:
        """Note that RFB bytes went one way or the other. Pings do not count: with them no console would be idle."""
        self._moved_at = now

    def typed(self, now: float) -> None:
        """Note that RFB bytes of the client went on."""
        self._moved_at = self.input_at = now

    def due_in_s(self, now: float) -> float | None:
        """Return in how many seconds :meth:`check` has something to do at the earliest; None for never."""
        times = [] if self._ends_at is None else [self._ends_at]
        if self._policy.ping_interval_s:
            times.append(self._pinged_at + self._policy.ping_interval_s)
        if self._policy.idle_timeout_s:
            times.append(self._moved_at + self._policy.idle_timeout_s)
        return max(0.0, min(times) - now) if times else None

    def find_limit(self, now: float) -> EndSession | None:
        """Return the end of a session whose time is over at ``now``, or None."""
        if self._ends_at is not None and now >= self._ends_at:
            return EndSession(CloseCode.SESSION_LIMIT, "The time of this session is over")
        return None

    def check(self, now: float) -> SendPing | EndSession | None:
        """Return the action that is due at ``now``, or None."""
        policy = self._policy
        if (limit := self.find_limit(now)) is not None:
            return limit
        if policy.idle_timeout_s and now >= self._moved_at + policy.idle_timeout_s:
            return EndSession(CloseCode.IDLE, "The session was idle for too long")
        if not policy.ping_interval_s or now < self._pinged_at + policy.ping_interval_s:
            return None
        if self._heard_at < self._pinged_at:
            return EndSession(CloseCode.INTERNAL_ERROR, "The client does not answer")
        self._pinged_at = now
        return SendPing()

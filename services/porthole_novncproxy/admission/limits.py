# SPDX-License-Identifier: Apache-2.0
"""How many consoles are open: in all, per source, per token, per instance, per user (OSSN-0008).

Why: an open console costs two descriptors, and one client must not take them all. A console counts from before its VNC
server is dialled until both sockets are closed. Called by :mod:`porthole_novncproxy.admission.gate`.
"""

import functools
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from porthole_common import errors
from porthole_common.allowance import find_network


@dataclass(frozen=True)
class Limits:
    """The bounds; each is the number of consoles that may be open at once. ``per_user`` None: any number."""

    total: int
    per_source: int
    per_token: int
    per_instance: int
    per_user: int | None = None


class SessionCounter:
    """Counts open consoles against :class:`Limits`. Thread-safe; holds keys only while they count."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._counts: dict[tuple[str, str], _Count] = {}
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """Open consoles now."""
        with self._lock:
            count = self._counts.get(("max_sessions", ""))
            return count.consoles if count else 0

    def reserve(self, source: str, token: str, instance_uuid: str, user_id: str | None = None) -> Callable[[], None]:
        """Count one more console of the address ``source``; return the function that uncounts it.

        ``user_id``: whom the token was issued to. Where consoleauth does not say it, no user's bound applies. A second
        call of the returned function does nothing.

        :raises LimitReached: when a limit is reached; the console is not counted then.
        """
        limits = self.limits
        bounds = {
            ("max_sessions", ""): limits.total,
            ("max_sessions_per_source", find_network(source)): limits.per_source,
            ("max_sessions_per_token", hashlib.sha256(token.encode()).hexdigest()): limits.per_token,
            ("max_sessions_per_instance", instance_uuid): limits.per_instance,
        }
        if user_id is not None and limits.per_user is not None:
            bounds["max_sessions_per_user", user_id] = limits.per_user
        with self._lock:
            counts = tuple(self._counts.get(key) or _Count(key) for key in bounds)
            for count, bound in zip(counts, bounds.values(), strict=True):
                if count.consoles >= bound:
                    raise errors.LimitReached(f"[novncproxy] {count.key[0]}")
            for count in counts:
                count.consoles += 1
                self._counts[count.key] = count
        return functools.partial(self.release, _Reservation(counts))

    def release(self, reservation: "_Reservation") -> None:
        """Uncount a console; a second call does nothing."""
        with self._lock:
            counts, reservation.counts = reservation.counts, ()
            for count in counts:
                count.consoles -= 1
                if not count.consoles:
                    del self._counts[count.key]


class _Count:
    """How many consoles are open under a key. All of them refer to this object, and none has a key of its own."""

    __slots__ = ("consoles", "key")

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key
        self.consoles = 0


class _Reservation:
    """The counts of one console; without any once it is released."""

    __slots__ = ("counts",)

    def __init__(self, counts: tuple[_Count, ...]) -> None:
        self.counts = counts

# SPDX-License-Identifier: Apache-2.0
"""How many consoles are open: in all, per source, per token, per instance, per user (OSSN-0008).

Why: an open console costs two descriptors, and one client must not take them all. A console counts from before its VNC
server is dialled until both sockets are closed. Called by :mod:`porthole_novncproxy.admission.gate`.
"""

import collections
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
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """Open consoles now."""
        with self._lock:
            return self._counts["max_sessions", ""]

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
            for (option, name), bound in bounds.items():
                if self._counts[option, name] >= bound:
                    self._forget_zeros(bounds)
                    raise errors.LimitReached(f"[novncproxy] {option}")
            self._counts.update(bounds.keys())
        open_keys = list(bounds)

        def release() -> None:
            with self._lock:
                self._counts.subtract(open_keys)
                self._forget_zeros(open_keys)
                open_keys.clear()

        return release

    def _forget_zeros(self, keys: collections.abc.Iterable[tuple[str, str]]) -> None:
        for key in keys:
            if self._counts[key] <= 0:
                del self._counts[key]

# SPDX-License-Identifier: Apache-2.0
"""How long a reader waits for the first inventories of an api process.

Why: at start an instance may be missing because its compute has not answered yet, and "no such server" would be wrong.
Readers wait ``WARM_LIMIT_S`` when no compute answers, and at most ``WARM_MOST_S`` while answers still arrive.
Called by :mod:`porthole_api.directory`, whose lock protects it.
"""

from collections.abc import Callable

# The computes answer at once; this limits the wait of a user of a cloud without computes.
WARM_LIMIT_S = 2.0
# A thousand answers take two seconds to be read, on a busy machine several times that. A reader waits at most this
# long, which is below [rpc] call_timeout. Then it gets the instances known so far.
WARM_MOST_S = 8.0
# All computes answer the first question at about the same time: when no new host appears for this long, all have.
WARM_QUIET_S = 0.5


class WarmUp:
    """The first answers of the computes. ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._made_at_s = clock()
        self._asked_at_s: float | None = None
        self._new_host_at_s: float | None = None

    @property
    def has_asked(self) -> bool:
        """Whether the computes have been asked for their inventories."""
        return self._asked_at_s is not None

    def mark_asked(self) -> None:
        """Note that every compute has just been asked."""
        self._asked_at_s = self._clock()

    def mark_new_host(self) -> None:
        """Note that a host has answered for the first time."""
        self._new_host_at_s = self._clock()

    def get_remaining_s(self) -> float:
        """Return how long the first answers may still be incomplete; 0 or less when they count as complete."""
        return self._get_end_s() - self._clock()

    def _get_end_s(self) -> float:
        if self._asked_at_s is None:
            return self._made_at_s + WARM_LIMIT_S
        if self._new_host_at_s is None:
            return self._asked_at_s + WARM_LIMIT_S
        quiet_at_s = max(self._new_host_at_s, self._asked_at_s) + WARM_QUIET_S
        return min(self._asked_at_s + WARM_MOST_S, quiet_at_s)

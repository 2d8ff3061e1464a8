# SPDX-License-Identifier: Apache-2.0
"""From where each user has logged in before.

Why: guesses for one user are bounded over all sources, so two addresses that guess on and on could lock a user out
whose password they do not know. A source from which the user's password was right before is held back by its own bound
alone. Each user has a few entries, so nobody's logins push out another user's. Pure, and not thread-safe: called by
:mod:`porthole_api.login_limits` under its lock.
"""

from collections import OrderedDict
from collections.abc import Callable

# A user who is away for a holiday comes back as a known one.
KEPT_S = 30 * 86400.0
# Home, office and the machines of a user, by IPv4 and IPv6. The source that was not used for the longest time goes.
MAX_SOURCES = 16
# It guards the memory, a KiB or two for each user; the user who was away for the longest time goes.
MAX_USERS = 10_000


class KnownSources:
    """The sources of the users, all of them as keyed hashes; ``clock`` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # By user and source: when it is forgotten.
        self._ends: OrderedDict[bytes, OrderedDict[bytes, float]] = OrderedDict()

    def add(self, user: bytes, source: bytes) -> None:
        """Note that the user's password was right from there."""
        ends = self._ends.setdefault(user, OrderedDict())
        self._ends.move_to_end(user)
        ends[source] = self._clock() + KEPT_S
        ends.move_to_end(source)
        if len(ends) > MAX_SOURCES:
            ends.popitem(last=False)
        if len(self._ends) > MAX_USERS:
            self._ends.popitem(last=False)

    def has(self, user: bytes, source: bytes) -> bool:
        """Return whether the user's password was right from there within ``KEPT_S``."""
        ends = self._ends.get(user)
        return ends is not None and ends.get(source, 0.0) > self._clock()

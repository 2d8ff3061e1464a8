# SPDX-License-Identifier: Apache-2.0
"""From where each user has logged in before.

Why: guesses for one user are bounded over all sources, so two addresses that guess on and on could lock a user out
whose password they do not know. A source from which the user's password was right before is held back by its own bound
alone. Each user has a few entries, so nobody's logins push out another user's. Pure, and not thread-safe: called by
:mod:`porthole_api.login_limits` under its lock.
"""

from collections import OrderedDict
from collections.abc import Callable

from porthole_common.recent import Recent

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
        self._sources: OrderedDict[bytes, Recent[bytes]] = OrderedDict()

    def add(self, user: bytes, source: bytes) -> None:
        """Note that the user's password was right from there."""
        if user not in self._sources:
            self._sources[user] = Recent(self._clock, KEPT_S, MAX_SOURCES)
        self._sources[user].add(source)
        self._sources.move_to_end(user)
        if len(self._sources) > MAX_USERS:
            self._sources.popitem(last=False)

    def has(self, user: bytes, source: bytes) -> bool:
        """Return whether the user's password was right from there within ``KEPT_S``."""
        sources = self._sources.get(user)
        return sources is not None and sources.has(source)

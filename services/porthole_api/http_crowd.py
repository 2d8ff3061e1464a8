# SPDX-License-Identifier: Apache-2.0
"""Which connection makes room for a new one, and when there is no room: how many a source and all may have.

Why nobody waits: a client that opens connections and sends nothing, or a part of a request, or does not read its
answer, costs descriptors and memory. Its own oldest connection goes first, and only when all sources together have too
many that of another: the site with the most. A connection whose request is being answered never goes. Pure; called by
:mod:`porthole_api.http_server`.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

# How many connections there are in all. It guards the descriptors and the time of the loop.
MAX_CONNECTIONS = 500
# Of one source: a proxy in front brings all users, and leaves room for the health checks of another.
MAX_PER_SOURCE = 400
# Of one source, without a request that is being answered. A browser has six.
MAX_WAITING_PER_SOURCE = 100
# Descriptors for the broker, Keystone, files and libraries.
KEPT_BACK = 128
_LEAST = 16


class Connection(Protocol):
    """What is known of an open connection."""

    source: str
    # Of several sources of IPv6: one client may have thousands of them.
    site: str
    # Monotonic: when it was opened, when its request began, when its last answer was ready, or when its client last
    # read of it.
    moved_at_s: float

    @property
    def waits(self) -> bool:
        """Whether no request of it is being answered, so that it may be closed."""


C = TypeVar("C", bound=Connection)


@dataclass(frozen=True)
class Room(Generic[C]):
    """``leaves`` is closed for the new connection. ``is_full``: the new one is refused, since all are answered now."""

    leaves: C | None = None
    is_full: bool = False
    of_source: bool = False


def find_room(connections: Collection[C], source: str, limit: int = MAX_CONNECTIONS) -> Room[C]:
    """Return how a new connection of ``source`` finds room beside ``connections``."""
    most = min(MAX_PER_SOURCE, limit * 4 // 5)
    if len(connections) < min(MAX_WAITING_PER_SOURCE, most):
        return Room()
    mine = [one for one in connections if one.source == source]
    waiting = [one for one in mine if one.waits]
    if len(waiting) >= MAX_WAITING_PER_SOURCE or len(mine) >= most:
        return Room(_find_oldest(waiting), is_full=len(mine) - len(waiting) >= most, of_source=True)
    if len(connections) >= limit:
        return Room(find_leaving(connections), is_full=sum(not one.waits for one in connections) >= limit)
    return Room()


def find_leaving(connections: Collection[C]) -> C | None:
    """Return the oldest waiting connection of the site that has the most of them; None when none waits."""
    sites = defaultdict(list)
    for one in connections:
        if one.waits:
            sites[one.site].append(one)
    return _find_oldest(max(sites.values(), key=len, default=[]))


def find_limit(descriptors: int) -> int:
    """Return how many connections a process with so many descriptors may have."""
    return max(_LEAST, min(MAX_CONNECTIONS, descriptors - KEPT_BACK))


def _find_oldest(waiting: Sequence[C]) -> C | None:
    return min(waiting, key=lambda one: one.moved_at_s, default=None)

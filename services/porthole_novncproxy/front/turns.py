# SPDX-License-Identifier: Apache-2.0
"""A queue in which sources take turns.

Why: in a queue by arrival, a client waits behind all connections of a source that floods. Here the client waits for one
of each other source. Called by ``listener`` for requests, and by ``tls_handshakes`` under its lock.
"""

import collections
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Turns(Generic[Item]):
    """Items by source; those of one source keep their order."""

    def __init__(self) -> None:
        # The source whose turn is next first.
        self._waiting: collections.OrderedDict[str, collections.deque[Item]] = collections.OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, source: str, item: Item) -> None:
        """Put ``item`` behind the others of ``source``."""
        self._waiting.setdefault(source, collections.deque()).append(item)

    def take(self) -> Item | None:
        """Return the item whose turn it is; None when there is none."""
        if not self._waiting:
            return None
        source, items = self._waiting.popitem(last=False)
        item = items.popleft()
        if items:
            self._waiting[source] = items
        return item

    def remove(self, source: str, item: Item) -> bool:
        """Take ``item`` out; return False when it is not there."""
        items = self._waiting.get(source)
        if items is None or item not in items:
            return False
        items.remove(item)
        if not items:
            del self._waiting[source]
        return True

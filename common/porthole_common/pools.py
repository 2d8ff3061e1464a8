# SPDX-License-Identifier: Apache-2.0
"""The thread pools of the process, for their metrics: how many threads are busy, and how many jobs wait.

A pool of threads calls :func:`watch` when it is made; nothing has to be said at its end. Pools of one name are added
up. Work that runs in the threads of a library is counted by :class:`Work`.
"""

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Protocol

from porthole_common import metrics

_lock = threading.Lock()


class Pool(Protocol):
    """A pool as it is at this moment; reading it takes no lock."""

    @property
    def name(self) -> str:
        """The first part of its threads' names."""

    @property
    def busy(self) -> int:
        """The number of threads that are at work."""

    @property
    def limit(self) -> int:
        """The most threads that it may have; 0 when another part decides that."""

    @property
    def waiting(self) -> int:
        """The number of jobs that wait for a thread."""


_pools: "weakref.WeakSet[Pool]" = weakref.WeakSet()


def watch(pool: Pool) -> None:
    """Measure ``pool`` for as long as it exists."""
    with _lock:
        _pools.add(pool)


def _list() -> list[Pool]:
    with _lock:
        return list(_pools)


class Work:
    """Work in threads that are not Porthole's own."""

    waiting = 0

    def __init__(self, name: str, limit: int = 0) -> None:
        self.name = name
        self.limit = limit
        # One entry for each: append and pop need no lock.
        self._under_way: list[None] = []
        watch(self)

    @property
    def busy(self) -> int:
        """The number of threads that are at work."""
        return len(self._under_way)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count one thread as busy within the block."""
        self._under_way.append(None)
        try:
            yield
        finally:
            self._under_way.pop()


metrics.BUSY_THREADS.add_source(lambda: [((pool.name,), pool.busy) for pool in _list()])
metrics.MAX_THREADS.add_source(lambda: [((pool.name,), pool.limit) for pool in _list() if pool.limit])
metrics.WAITING_JOBS.add_source(lambda: [((pool.name,), pool.waiting) for pool in _list()])

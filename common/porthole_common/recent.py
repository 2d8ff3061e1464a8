# SPDX-License-Identifier: Apache-2.0
"""What was so a moment ago: keys that are remembered for a time, and a bound on how many.

Why here: the api remembers passwords and sources of users, and the noVNC proxy remembers tokens, refusals and silent
guests, by one rule. Pure, and not thread-safe: whoever has one calls it under a lock of its own, but for
:meth:`Recent.has`, which any thread may call at any time.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Recent(Generic[Key]):
    """Keys, each for ``seconds``. Of more than ``most`` the one goes that was added, or touched, before the others."""

    def __init__(self, clock: Callable[[], float], seconds: float, most: int) -> None:
        """``clock`` returns monotonic seconds."""
        self._clock = clock
        self._seconds = seconds
        self._most = most
        self._ends_at: OrderedDict[Key, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ends_at)

    def has(self, key: Key) -> bool:
        """Whether the key was added less than ``seconds`` ago."""
        ends_at = self._ends_at.get(key)
        return ends_at is not None and ends_at > self._clock()

    def list_keys(self) -> list[Key]:
        """Return the keys that were added less than ``seconds`` ago."""
        return [key for key in self._ends_at if self.has(key)]

    def add(self, key: Key) -> None:
        """Remember the key from now on."""
        self._ends_at[key] = self._clock() + self._seconds
        self._ends_at.move_to_end(key)
        if len(self._ends_at) > self._most:
            self._ends_at.popitem(last=False)

    def touch(self, key: Key) -> None:
        """Have another key go first; for how long this one is remembered stays as it is."""
        if key in self._ends_at:
            self._ends_at.move_to_end(key)

    def discard(self, key: Key) -> None:
        """Forget the key."""
        self._ends_at.pop(key, None)

# SPDX-License-Identifier: Apache-2.0
"""A memcached node in memory for unit tests of the store's rules: with compare-and-set ids, expiry and faults."""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence

from porthole_common import errors
from porthole_common.diagnosis import StoreRoom
from porthole_consoleauth import token_store


class FakeNode:
    """A :class:`porthole_consoleauth.memcached_store.Node`.

    ``now`` is its clock, moved by hand. ``before[command]`` is called ahead of each such command: that is where a
    test lets somebody else be quicker. With ``down`` every command fails. Without ``tells_ttl`` it is a memcached of
    before 1.6. ``commands`` lists (command, key).
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.down = False
        self.tells_ttl = True
        self.room = StoreRoom(used_bytes=0, limit_bytes=1, evictions=0, refusals=0, evicts=False)
        self.before: dict[str, Callable[[], None]] = {}
        self.commands: list[tuple[str, str]] = []
        self._items: dict[str, tuple[bytes, int, float]] = {}
        self._ids = itertools.count(1)
        self._lock = threading.RLock()

    def get(self, key: str) -> bytes | None:
        return self._value("get", key)[0]

    def get_ttl(self, key: str) -> int | None:
        with self._command("mg", key):
            if not self.tells_ttl:
                return None
            return 0 if self._read(key)[0] is None else int(self._items[key][2] - self.now)

    def gets(self, key: str) -> tuple[bytes | None, bytes | None]:
        return self._value("gets", key)

    def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        found = {key: self._value("get_many", key)[0] for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    def set(self, key: str, value: bytes, expire_s: int) -> bool:
        with self._command("set", key):
            return self._store(key, value, expire_s)

    def add(self, key: str, value: bytes, expire_s: int) -> bool:
        with self._command("add", key):
            return self._read(key)[0] is None and self._store(key, value, expire_s)

    def cas(self, key: str, value: bytes, cas_id: bytes, expire_s: int) -> bool:
        with self._command("cas", key):
            return self._read(key)[1] == cas_id and self._store(key, value, expire_s)

    def delete(self, key: str) -> bool:
        with self._command("delete", key):
            existed = self._read(key)[0] is not None
            self._items.pop(key, None)
            return existed

    def probe(self) -> None:
        with self._command("version", ""):
            return

    def read_room(self) -> StoreRoom:
        with self._command("stats", ""):
            return self.room

    def close(self) -> None:
        self._items.clear()

    def drop(self, key: str) -> None:
        """Evict an item."""
        del self._items[key]

    def living(self) -> list[str]:
        """Return the keys of the items that have not expired."""
        return [key for key in self._items if self._read(key)[0] is not None]

    def _value(self, command: str, key: str) -> tuple[bytes | None, bytes | None]:
        with self._command(command, key):
            return self._read(key)

    def _command(self, command: str, key: str) -> threading.RLock:
        if self.down:
            raise errors.TokenStoreUnavailable("down")
        if hook := self.before.get(command):
            hook()
        self.commands.append((command, key))
        return self._lock

    def _read(self, key: str) -> tuple[bytes | None, bytes | None]:
        value, cas_id, expires = self._items.get(key, (None, 0, 0.0))
        if value is None or expires <= self.now:
            return None, None
        return value, b"%d" % cas_id

    def _store(self, key: str, value: bytes, expire_s: int) -> bool:
        self._items[key] = (value, next(self._ids), self.now + expire_s)
        return True


def no_pause(_seconds: float) -> None:
    """Let the next try follow at once."""


def index_of(node: FakeNode, instance_uuid: str) -> list[str]:
    return token_store.parse_index(node.get(token_store.instance_key(instance_uuid)))

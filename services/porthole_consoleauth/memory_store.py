# SPDX-License-Identifier: Apache-2.0
"""The token store of ``porthole standalone``: one process's memory.

Why not for the daemon: each of two consoleauths would know half of the tokens, and a restart would lose all of them.
It has the same items and indexes as the store in memcached, by the same rules.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from porthole_common import errors
from porthole_common.diagnosis import StoreRoom
from porthole_common.model import TokenReason
from porthole_consoleauth import token_store
from porthole_consoleauth.token_store import StoredConsole

# Guards the process's memory: an item takes 0.7 KiB, so all of them some 35 MiB. An instance has 200 tokens at most, so
# 250 guests fit: as many as one host has, however many URLs its users ask for.
MAX_TOKENS = 50_000
# The expired are looked for when there are twice as many tokens as after the last time, and at least this many: a look
# at 50 000 takes some 20 ms, which not every new URL must cost.
_MIN_SWEPT = 256


class MemoryStore:
    """A :class:`porthole_consoleauth.token_store.TokenStore`; ``clock`` counts seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_tokens: int = MAX_TOKENS) -> None:
        self._clock = clock
        self._max_tokens = max_tokens
        self._lock = threading.Lock()
        self._items: dict[str, tuple[float, bytes]] = {}
        self._indexes: dict[str, bytes] = {}
        self._sweep_at = min(_MIN_SWEPT, max_tokens)

    def probe(self) -> dict[str, str]:
        """Return nothing: memory has no server."""
        return {}

    def measure(self, names: Iterable[str]) -> dict[str, StoreRoom]:
        """Return nothing either."""
        return {}

    def authorize(self, token: str, console: StoredConsole, ttl_s: int) -> None:
        """Keep ``console`` under ``token``; see the port."""
        token_hash = token_store.hash_token(token)
        index = token_store.instance_key(console.connect_info.instance_uuid)
        item = token_store.build_item(console)
        with self._lock:
            if len(self._items) >= self._sweep_at:
                self._drop_expired()
            if len(self._items) >= self._max_tokens:
                raise errors.TokenStoreUnavailable("it is full")
            self._items[token_hash] = (self._clock() + ttl_s, item)
            living = [other for other in self._read_index(index) if self._lives(other) and other != token_hash]
            kept, dropped = token_store.bound_index([*living, token_hash])
            self._indexes[index] = token_store.build_index(kept)
            for other in dropped:
                self._items.pop(other, None)

    def check(self, token: str) -> StoredConsole:
        """Return the console that ``token`` opens; see the port."""
        token_hash = token_store.hash_token(token)
        with self._lock:
            console = self._read(token_hash)
        token_store.check_uses(console)
        return console

    def spend(self, token: str) -> None:
        """Count the use; see the port."""
        token_hash = token_store.hash_token(token)
        with self._lock:
            spent = token_store.take_use(self._read(token_hash))
            if spent is not None:
                self._items[token_hash] = (self._items[token_hash][0], token_store.build_item(spent))

    def revoke_instance(self, instance_uuid: str, compute_host: str | None = None) -> int:
        """Revoke the instance's tokens; see the port."""
        index = token_store.instance_key(instance_uuid)
        with self._lock:
            hashes = self._read_index(index)
            dead = {token_hash for token_hash in hashes if self._is_of(token_hash, compute_host)}
            if len(dead) < len(hashes):
                self._indexes[index] = token_store.build_index([item for item in hashes if item not in dead])
            else:
                self._indexes.pop(index, None)
            count = sum(map(self._lives, dead))
            for token_hash in dead:
                self._items.pop(token_hash, None)
            return count

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._items.clear()
            self._indexes.clear()

    def _read(self, token_hash: str) -> StoredConsole:
        """Return the console of a token that is in the index of its instance.

        :raises TokenInvalid: when it is unknown, expired or revoked.
        """
        expires, item = self._items.get(token_hash, (0.0, None))
        remaining_s = expires - self._clock()
        if item is None or remaining_s <= 0:
            raise errors.TokenInvalid(TokenReason.UNKNOWN)
        console = token_store.parse_item(item)
        if token_hash not in self._read_index(token_store.instance_key(console.connect_info.instance_uuid)):
            raise errors.TokenInvalid(TokenReason.UNKNOWN)
        return replace(console, remaining_s=remaining_s)

    def _is_of(self, token_hash: str, compute_host: str | None) -> bool:
        if compute_host is None or token_hash not in self._items:
            return True
        return token_store.parse_item(self._items[token_hash][1]).connect_info.compute_host == compute_host

    def _read_index(self, index: str) -> list[str]:
        return token_store.parse_index(self._indexes.get(index))

    def _lives(self, token_hash: str) -> bool:
        expires, _item = self._items.get(token_hash, (0.0, b""))
        return expires > self._clock()

    def _drop_expired(self) -> None:
        now = self._clock()
        self._items = {key: item for key, item in self._items.items() if item[0] > now}
        self._indexes = {
            index: hashes
            for index, hashes in self._indexes.items()
            if any(token_hash in self._items for token_hash in token_store.parse_index(hashes))
        }
        self._sweep_at = min(max(_MIN_SWEPT, 2 * len(self._items)), self._max_tokens)

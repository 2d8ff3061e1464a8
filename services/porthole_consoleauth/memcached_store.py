# SPDX-License-Identifier: Apache-2.0
"""The token store in memcached, on one server or several.

Why memcached: every consoleauth sees every token, items expire by themselves, and compare-and-set makes the
index of an instance an authority that parallel writers cannot corrupt. Called by the endpoint through the port
:class:`porthole_consoleauth.token_store.TokenStore`.

The index of an instance and the items of its tokens are all on one server: that of the instance's slot, with which its
tokens begin (:func:`porthole_common.model.build_token`). So a server that is lost affects only its share of the
instances. No other server replaces a server that is down: when it came back, it would still have its old indexes, and
in them tokens that were revoked meanwhile. So an unreachable server means TokenStoreUnavailable, never "unknown token".

After a write that broke or timed out, its effect is not known; a frozen server may even execute it later. The order of
writes makes that harmless. The item is written first, and opens nothing without the index. The index is written then,
and changes only by compare-and-set. A token that becomes valid so late was given to no user.

memcached should run with ``-M``, so that a full server refuses new tokens and deletes none that is in use. An item
that opens nothing any more is therefore deleted, and does not keep its room until it expires. A full server has no room
for a shorter index either: then a revocation deletes the items, without which the index opens nothing.
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from porthole_common import errors
from porthole_common.diagnosis import StoreRoom
from porthole_common.log import get_logger
from porthole_common.model import TokenReason
from porthole_consoleauth import token_store
from porthole_consoleauth.memcached_node import build_ring
from porthole_consoleauth.token_store import (
    INDEX_MARGIN_S,
    StoredConsole,
    get_hash_slot,
    get_instance_slot,
    instance_key,
    parse_index,
    token_key,
)

LOG = get_logger(__name__)
# How long one change of an index may compete with others, in tries and in seconds: below the deadline of its RPC. With
# fifty writers at once each succeeds within a few dozen tries.
INDEX_ATTEMPTS = 100
INDEX_DEADLINE_S = 2.0
INDEX_PAUSE_S = 0.05
# Each time an index has grown by this number of tokens, the expired ones are removed from it.
PRUNE_EVERY = 16
# How long an index lives after a removal: as long as any token may ([consoleauth] token_ttl), so as its tokens.
LONGEST_INDEX_S = 86400 + INDEX_MARGIN_S


class Node(Protocol):
    """One memcached server. Every method raises TokenStoreUnavailable when it does not answer properly."""

    def get(self, key: str) -> bytes | None:
        """Return the value; None when there is none."""

    def get_ttl(self, key: str) -> int | None:
        """Return the seconds that the item has left, 0 without an item; None when the server cannot say."""

    def gets(self, key: str) -> tuple[bytes | None, bytes | None]:
        """Return the value and its compare-and-set id; two None when there is none."""

    def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the existing values by key."""

    def set(self, key: str, value: bytes, expire_s: int) -> bool:
        """Write; say whether it was stored."""

    def add(self, key: str, value: bytes, expire_s: int) -> bool:
        """Write unless there is a value; say whether it was stored."""

    def cas(self, key: str, value: bytes, cas_id: bytes, expire_s: int) -> bool:
        """Write if the value is still that of ``cas_id``; say whether it was stored."""

    def delete(self, key: str) -> bool:
        """Delete; say whether there was a value."""

    def probe(self) -> None:
        """Ask the server for its version."""

    def read_room(self) -> StoreRoom:
        """Return the server's memory."""

    def close(self) -> None:
        """Close the connections."""


class MemcachedStore:
    """A :class:`porthole_consoleauth.token_store.TokenStore` on named nodes.

    ``nodes`` is ``{"host:port": Node}``; every consoleauth must use the same names.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nodes = dict(nodes)
        self._choose = build_ring(self._nodes)
        self._pause = pause
        self._clock = clock

    def probe(self) -> dict[str, str]:
        """Send ``version`` to each server (see :meth:`TokenStore.probe`)."""
        refusals = dict.fromkeys(self._nodes, "")
        for name, node in self._nodes.items():
            try:
                node.probe()
            except errors.TokenStoreUnavailable as exc:
                refusals[name] = exc.reason
        return refusals

    def measure(self, names: Iterable[str]) -> dict[str, StoreRoom]:
        """Ask those servers for their statistics (see :meth:`TokenStore.measure`)."""
        rooms = {}
        for name in names:
            with contextlib.suppress(errors.TokenStoreUnavailable):
                rooms[name] = self._nodes[name].read_room()
        return rooms

    def authorize(self, token: str, console: StoredConsole, ttl_s: int) -> None:
        """Write the item, then the index, and delete the items that the index has no room for; see the port."""
        token_hash = token_store.hash_token(token)
        instance_uuid = console.connect_info.instance_uuid
        index = instance_key(instance_uuid)
        item = token_store.build_item(console)
        if not self._node(get_hash_slot(token_hash)).set(token_key(token_hash), item, ttl_s):
            raise errors.TokenStoreUnavailable("it did not take the token")

        dropped: list[str] = []

        def add(hashes: list[str]) -> list[str]:
            dropped.clear()
            if token_hash in hashes:
                return hashes
            # An index that was deleted since the last try was revoked: the new one starts empty.
            kept = self._living(hashes) if len(hashes) % PRUNE_EVERY == PRUNE_EVERY - 1 else hashes
            new, dropped[:] = token_store.bound_index([*kept, token_hash])
            return new

        try:
            self._change_index(self._node(get_instance_slot(instance_uuid)), index, add, ttl_s + INDEX_MARGIN_S)
        except errors.TokenStoreUnavailable:
            # No user gets this token, so its item would only take room.
            self._delete_items([token_hash])
            raise
        self._delete_items(dropped)

    def check(self, token: str) -> StoredConsole:
        """Read the item, then its index, then how long the item lives; see the port."""
        token_hash = token_store.hash_token(token)
        node, key = self._node(get_hash_slot(token_hash)), token_key(token_hash)
        console = self._read(token_hash, node.get(key))
        remaining_s = node.get_ttl(key)
        if remaining_s == 0:
            raise errors.TokenInvalid(TokenReason.UNKNOWN)
        token_store.check_uses(console)
        return replace(console, remaining_s=remaining_s)

    def spend(self, token: str) -> None:
        """Count the use in the item by compare-and-set; see the port."""
        token_hash = token_store.hash_token(token)
        node, key = self._node(get_hash_slot(token_hash)), token_key(token_hash)
        for _ in self._attempts("uses of one token"):
            item, cas_id = node.gets(key)
            console = self._read(token_hash, item)
            spent = token_store.take_use(console)
            if spent is None or cas_id is None:
                return
            expire_s = self._find_ttl(node, key, console)
            if node.cas(key, token_store.build_item(spent), cas_id, expire_s):
                return

    def revoke_instance(self, instance_uuid: str, compute_host: str | None = None) -> int:
        """Take tokens out of the index, and delete their items where the server answers; see the port."""
        index = instance_key(instance_uuid)
        node = self._node(get_instance_slot(instance_uuid))
        if compute_host is not None:
            return self._revoke_at(node, index, compute_host)
        hashes = parse_index(node.get(index))
        # This step revokes: without the index, no item opens anything.
        if not node.delete(index):
            return 0
        return self._delete_items(hashes)

    def close(self) -> None:
        """Close all connections."""
        for node in self._nodes.values():
            node.close()

    def _revoke_at(self, node: Node, index: str, compute_host: str) -> int:
        """Take the tokens for ``compute_host`` out of the index in one step; return how many existed."""
        dead: list[str] = []

        def remove(hashes: list[str]) -> list[str]:
            dead[:] = self._list_of(hashes, compute_host)
            return [token_hash for token_hash in hashes if token_hash not in dead]

        try:
            self._change_index(node, index, remove, LONGEST_INDEX_S)
        except errors.TokenStoreUnavailable:
            if not dead:
                raise
            # Where memcached is full, only a deletion needs no room. Whoever adds a token now is later than this call.
            return self._delete_items(dead, must_answer=True)
        return self._delete_items(dead)

    def _change_index(self, node: Node, index: str, change: Callable[[list[str]], list[str]], expire_s: int) -> None:
        """Replace the index by the result of ``change``, which is called again when another writer was quicker.

        :raises TokenStoreUnavailable: when other writers were quicker each time, or the server does not answer.
        """
        for _ in self._attempts("changes to one instance's tokens"):
            value, cas_id = node.gets(index)
            old = parse_index(value)
            new = change(old)
            if new == old:
                return
            text = token_store.build_index(new)
            if node.add(index, text, expire_s) if cas_id is None else node.cas(index, text, cas_id, expire_s):
                return

    def _attempts(self, writes: str) -> Iterator[None]:
        """Yield for each attempt of a compare-and-set; let the writer that was quicker go on, for longer each time.

        :raises TokenStoreUnavailable: when other writers were quicker each time; ``writes`` names what they do.
        """
        deadline = self._clock() + INDEX_DEADLINE_S
        for attempt in range(INDEX_ATTEMPTS):
            yield
            if self._clock() > deadline:
                break
            self._pause(random.uniform(0, min(INDEX_PAUSE_S, 0.001 * 2**attempt)))  # noqa: S311 (not a secret)
        raise errors.TokenStoreUnavailable(f"too many {writes} at once")

    def _read(self, token_hash: str, item: bytes | None) -> StoredConsole:
        """Return the console of an item, if the index of its instance has the token.

        :raises TokenInvalid: when there is no item, or the token is not in the index.
        """
        if item is None:
            raise errors.TokenInvalid(TokenReason.UNKNOWN)
        console = token_store.parse_item(item)
        instance_uuid = console.connect_info.instance_uuid
        index = self._node(get_instance_slot(instance_uuid)).get(instance_key(instance_uuid))
        if token_hash not in parse_index(index):
            raise errors.TokenInvalid(TokenReason.UNKNOWN)
        return console

    def _find_ttl(self, node: Node, key: str, console: StoredConsole) -> int:
        """Return the seconds that the item has left, at least 1; by this host's clock where the server cannot say.

        :raises TokenInvalid: when it has none.
        """
        remaining_s = node.get_ttl(key)
        if remaining_s == 0:
            raise errors.TokenInvalid(TokenReason.UNKNOWN)
        if remaining_s is not None:
            return remaining_s
        expires_at = console.connect_info.expires_at
        left_s = (expires_at - datetime.now(UTC)).total_seconds() if expires_at else 0.0
        return min(max(1, int(left_s)), LONGEST_INDEX_S)

    def _living(self, hashes: Sequence[str]) -> list[str]:
        """Return the hashes whose item exists, and those whose server does not answer."""
        gone: set[str] = set()
        for node, group in self._by_node(hashes):
            try:
                gone |= set(group) - {_hash_of(key) for key in node.get_many(list(map(token_key, group)))}
            except errors.TokenStoreUnavailable:
                continue
        return [token_hash for token_hash in hashes if token_hash not in gone]

    def _list_of(self, hashes: Sequence[str], compute_host: str) -> list[str]:
        """Return the hashes of tokens for ``compute_host``, and those of tokens whose host cannot be read."""
        others: set[str] = set()
        for node, group in self._by_node(hashes):
            try:
                items = node.get_many(list(map(token_key, group)))
            except errors.TokenStoreUnavailable:
                continue
            others |= {_hash_of(key) for key, item in items.items() if _is_elsewhere(item, compute_host)}
        return [token_hash for token_hash in hashes if token_hash not in others]

    def _delete_items(self, hashes: Sequence[str], must_answer: bool = False) -> int:
        """Delete the items; return how many existed, and count all those of a server that does not answer.

        :raises TokenStoreUnavailable: with ``must_answer``, when a server does not answer.
        """
        count = 0
        for node, group in self._by_node(hashes):
            try:
                count += sum(node.delete(token_key(token_hash)) for token_hash in group)
            except errors.TokenStoreUnavailable:
                if must_answer:
                    raise
                count += len(group)
        return count

    def _by_node(self, hashes: Sequence[str]) -> list[tuple[Node, list[str]]]:
        """Return the hashes by server: one server, except for tokens that do not begin with their instance's slot."""
        groups: dict[str, list[str]] = {}
        for token_hash in hashes:
            groups.setdefault(self._choose(get_hash_slot(token_hash)), []).append(token_hash)
        return [(self._nodes[name], group) for name, group in groups.items()]

    def _node(self, slot: str) -> Node:
        return self._nodes[self._choose(slot)]


def _hash_of(key: str) -> str:
    return key.removeprefix(token_key(""))


def _is_elsewhere(item: bytes, compute_host: str) -> bool:
    """Return whether an item is that of a console on another host; False for an item that is not Porthole's."""
    try:
        return token_store.parse_item(item).connect_info.compute_host != compute_host
    except errors.TokenInvalid:
        return False

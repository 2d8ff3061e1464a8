# SPDX-License-Identifier: Apache-2.0
"""The token store in memcached: the only module that imports pymemcache.

Why memcached: every consoleauth sees every token, items expire by themselves, and compare-and-set makes the
index of an instance an authority that parallel writers cannot corrupt. Called by the endpoint through the port
:class:`porthole_consoleauth.token_store.TokenStore`.

A key lives on exactly one of the servers (rendezvous hashing), and nowhere else when that one is down: a server
that comes back after others stood in for it would still hold the indexes it had, and with them tokens that were
revoked meanwhile. An unreachable server therefore means TokenStoreUnavailable, never "unknown token".

What a write that broke or timed out did is not known, and it may even be done later, when a frozen server goes
on. The order of writes makes that harmless: first the item, which opens nothing without the index, then the
index, which changes only by compare-and-set. A token that came to life so late is one that nobody was given.
"""

import logging
import queue
import random
import select
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from oslo_config import cfg, types
from oslo_utils import netutils
from pymemcache.client.base import Client
from pymemcache.client.rendezvous import RendezvousHash
from pymemcache.exceptions import MemcacheError, MemcacheUnexpectedCloseError

from porthole_common import errors
from porthole_common.model import TokenReason
from porthole_consoleauth import token_store
from porthole_consoleauth.token_store import StoredConsole, instance_key, parse_index, token_key

LOG = logging.getLogger(__name__)
OPTION = "[memcache] servers"
# How long one authorize may compete for an index with others, in tries and in seconds: below the deadline of the RPC
# that asked for it. With fifty writers at once each is through within a few dozen tries.
INDEX_ATTEMPTS = 100
INDEX_DEADLINE_S = 2.0
INDEX_PAUSE_S = 0.05
# Each time an index has grown by so many tokens, those that have expired leave it.
PRUNE_EVERY = 16


class Node(Protocol):
    """One memcached server. Every method raises TokenStoreUnavailable when it does not answer properly."""

    def get(self, key: str) -> bytes | None:
        """Return the value; None when there is none."""

    def gets(self, key: str) -> tuple[bytes | None, bytes | None]:
        """Return the value and its compare-and-set id; two None when there is none."""

    def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values there are."""

    def set(self, key: str, value: bytes, expire_s: int) -> bool:
        """Write; say whether it was stored."""

    def add(self, key: str, value: bytes, expire_s: int) -> bool:
        """Write unless there is a value; say whether it was stored."""

    def cas(self, key: str, value: bytes, cas_id: bytes, expire_s: int) -> bool:
        """Write if the value is still that of ``cas_id``; say whether it was stored."""

    def delete(self, key: str) -> bool:
        """Delete; say whether there was a value."""

    def probe(self) -> None:
        """Ask for anything."""

    def close(self) -> None:
        """Close the connections."""


class MemcachedNode:
    """The connections to one server: at most ``pool_size``, each used by one thread at a time.

    pymemcache's own PooledClient raises when all connections are taken, and hands out connections that the
    server has closed meanwhile; here a thread waits for one, and a closed one is opened again before it is used.
    """

    def __init__(self, host: str, port: int, conf: cfg.ConfigOpts) -> None:
        self._address = (host, port)
        self._connect_timeout_s: float = conf.connect_timeout
        self._timeout_s: float = conf.timeout
        self._free: queue.LifoQueue[Client] = queue.LifoQueue()
        for _ in range(conf.pool_size):
            self._free.put(Client(self._address, default_noreply=False))

    def get(self, key: str) -> bytes | None:
        """Return the value; None when there is none."""
        value: bytes | None = self._run("get", key)
        return value

    def gets(self, key: str) -> tuple[bytes | None, bytes | None]:
        """Return the value and its compare-and-set id."""
        pair: tuple[bytes | None, bytes | None] = self._run("gets", key)
        return pair

    def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values there are."""
        values: dict[str, bytes] = self._run("get_many", keys)
        return values

    def set(self, key: str, value: bytes, expire_s: int) -> bool:
        """Write; say whether it was stored."""
        return self._run("set", key, value, expire_s) is True

    def add(self, key: str, value: bytes, expire_s: int) -> bool:
        """Write unless there is a value; say whether it was stored."""
        return self._run("add", key, value, expire_s) is True

    def cas(self, key: str, value: bytes, cas_id: bytes, expire_s: int) -> bool:
        """Write if unchanged; say whether it was stored."""
        return self._run("cas", key, value, cas_id, expire_s) is True

    def delete(self, key: str) -> bool:
        """Delete; say whether there was a value."""
        return self._run("delete", key) is True

    def probe(self) -> None:
        """Ask for the version."""
        self._run("version")

    def close(self) -> None:
        """Close the connections that no thread uses."""
        while not self._free.empty():
            self._free.get_nowait().close()

    def _run(self, command: str, *arguments: Any) -> Any:
        try:
            client = self._free.get(timeout=self._timeout_s)
        except queue.Empty:
            raise self._unavailable("all connections are in use") from None
        try:
            return self._attempt(client, command, arguments)
        except TimeoutError as exc:
            raise self._unavailable("no answer in time") from exc
        except MemcacheError as exc:
            raise self._unavailable(f"it refused: {_describe(exc)}") from exc
        except OSError as exc:
            raise self._unavailable(exc.strerror or type(exc).__name__) from exc
        finally:
            self._free.put(client)

    def _attempt(self, client: Client, command: str, arguments: Sequence[Any]) -> Any:
        """Run the command, once more on a new connection when one that had been idle broke before the answer.

        The server may have carried out the first one. Each of Porthole's commands bears that: reads and set write
        or read the same again, delete finds nothing, and a lost add or cas shows when the index is read again.
        """
        if client.sock is not None and _is_stale(client.sock):
            client.close()
        if client.sock is not None:
            try:
                return getattr(client, command)(*arguments)
            except (ConnectionError, MemcacheUnexpectedCloseError):
                client.close()
        # Not left to pymemcache, which tries only the first address of a name that has two (localhost, often).
        client.sock = socket.create_connection(self._address, timeout=self._connect_timeout_s)
        client.sock.settimeout(self._timeout_s)
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return getattr(client, command)(*arguments)

    def _unavailable(self, reason: str) -> errors.TokenStoreUnavailable:
        LOG.warning("memcached at %s: %s", netutils.escape_ipv6(self._address[0]) + f":{self._address[1]}", reason)
        return errors.TokenStoreUnavailable(reason)


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
        self._ring = RendezvousHash(sorted(self._nodes))
        self._pause = pause
        self._clock = clock

    def probe(self) -> dict[str, str]:
        """Ask every server for something; see the port."""
        refusals = dict.fromkeys(self._nodes, "")
        for name, node in self._nodes.items():
            try:
                node.probe()
            except errors.TokenStoreUnavailable as exc:
                refusals[name] = exc.reason
        return refusals

    def authorize(self, token: str, console: StoredConsole, ttl_s: int) -> None:
        """Write the item, then the index; see the port."""
        token_hash = token_store.hash_token(token)
        index = instance_key(console.connect_info.instance_uuid)
        key = token_key(token_hash)
        if not self._node(key).set(key, token_store.build_item(console), ttl_s):
            raise errors.TokenStoreUnavailable("it did not take the token")
        self._add_to_index(index, token_hash, ttl_s + token_store.INDEX_MARGIN_S)

    def check(self, token: str) -> StoredConsole:
        """Read the item, then its index; see the port."""
        token_hash = token_store.hash_token(token)
        key = token_key(token_hash)
        item = self._node(key).get(key)
        if item is None:
            raise errors.TokenInvalid(TokenReason.UNKNOWN)
        console = token_store.parse_item(item)
        index = instance_key(console.connect_info.instance_uuid)
        if token_hash not in parse_index(self._node(index).get(index)):
            raise errors.TokenInvalid(TokenReason.UNKNOWN)
        return console

    def revoke_instance(self, instance_uuid: str) -> int:
        """Delete the index; the items go too, where their server answers; see the port."""
        index = instance_key(instance_uuid)
        node = self._node(index)
        hashes = parse_index(node.get(index))
        # The step that counts. Whatever is written into an item or read from one from here on opens nothing.
        if not node.delete(index):
            return 0
        return self._delete_items(hashes)

    def close(self) -> None:
        """Close all connections."""
        for node in self._nodes.values():
            node.close()

    def _add_to_index(self, index: str, token_hash: str, expire_s: int) -> None:
        node = self._node(index)
        deadline = self._clock() + INDEX_DEADLINE_S
        for attempt in range(INDEX_ATTEMPTS):
            value, cas_id = node.gets(index)
            hashes = parse_index(value)
            if token_hash in hashes:
                return
            if len(hashes) % PRUNE_EVERY == PRUNE_EVERY - 1:
                hashes = self._living(hashes)
            # An index that was deleted since the last try is a revocation: the new one starts from nothing.
            new = token_store.build_index(hashes, token_hash)
            stored = node.add(index, new, expire_s) if cas_id is None else node.cas(index, new, cas_id, expire_s)
            if stored:
                return
            if self._clock() > deadline:
                break
            self._pause(random.uniform(0, min(INDEX_PAUSE_S, 0.001 * 2**attempt)))  # noqa: S311 (not a secret)
        raise errors.TokenStoreUnavailable("too many changes to one instance's tokens at once")

    def _living(self, hashes: Sequence[str]) -> list[str]:
        """Return the hashes whose item exists, and those whose server does not say."""
        gone: set[str] = set()
        for node, keys in self._by_node(map(token_key, hashes)):
            try:
                gone |= set(keys) - node.get_many(keys).keys()
            except errors.TokenStoreUnavailable:
                continue
        return [token_hash for token_hash in hashes if token_key(token_hash) not in gone]

    def _delete_items(self, hashes: Sequence[str]) -> int:
        """Delete the items; return how many there were, counting all of a server that does not answer."""
        count = 0
        for node, keys in self._by_node(map(token_key, hashes)):
            try:
                count += sum(node.delete(key) for key in keys)
            except errors.TokenStoreUnavailable:
                count += len(keys)
        return count

    def _by_node(self, keys: Iterable[str]) -> list[tuple[Node, list[str]]]:
        groups: dict[str, list[str]] = {}
        for key in keys:
            groups.setdefault(self._ring.get_node(key), []).append(key)
        return [(self._nodes[name], group) for name, group in groups.items()]

    def _node(self, key: str) -> Node:
        return self._nodes[self._ring.get_node(key)]


def build_store(conf: cfg.ConfigOpts) -> MemcachedStore:
    """Build the store from the options of [memcache]; nothing is connected yet.

    :raises ConfigInvalid: when ``servers`` is empty, names one twice, or one is not host:port.
    """
    addresses = [parse_server(text) for text in conf.memcache.servers]
    if not addresses:
        raise errors.ConfigInvalid(OPTION, "at least one server is needed")
    if len(set(addresses)) != len(addresses):
        raise errors.ConfigInvalid(OPTION, "a server is listed twice")
    return MemcachedStore(
        {f"{netutils.escape_ipv6(host)}:{port}": MemcachedNode(host, port, conf.memcache) for host, port in addresses}
    )


def parse_server(text: str) -> tuple[str, int]:
    """Return (host, port) of ``host:port``, ``[IPv6]:port``.

    :raises ConfigInvalid: when it is neither.
    """
    try:
        host, port = netutils.parse_host_port(text)
        types.HostAddress()(host or "")
        if port is None or not 0 < port < 65536:
            raise ValueError("the port is missing or out of range")
    except ValueError as exc:
        raise errors.ConfigInvalid(OPTION, f"{text!r} is not host:port ({exc})") from None
    return host.lower(), port


def _is_stale(sock: socket.socket) -> bool:
    """Say whether an idle connection has something to read: its end, or an answer nobody waited for."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def _describe(exc: MemcacheError) -> str:
    text = exc.args[0] if exc.args else "it closed the connection"
    return text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)

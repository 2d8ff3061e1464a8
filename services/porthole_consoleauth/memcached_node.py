# SPDX-License-Identifier: Apache-2.0
"""One memcached server, over plain TCP or TLS: the only module that imports pymemcache.

Why not pymemcache's HashClient, which has several servers, pools and failover: it uses other servers for one that is
down, and when that one came back, its old data would revive tokens that were revoked meanwhile. Without failover it
answers "no such key" for a server that it has marked as dead. Here a server answers or is unavailable.
Called by :mod:`porthole_consoleauth.memcached_store`.
"""

import contextlib
import queue
import re
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from oslo_config import cfg
from oslo_utils import netutils
from pymemcache.client.base import Client
from pymemcache.client.rendezvous import RendezvousHash
from pymemcache.exceptions import MemcacheError, MemcacheUnexpectedCloseError, MemcacheUnknownCommandError

from porthole_common import errors
from porthole_common.diagnosis import StoreRoom
from porthole_common.log import get_logger
from porthole_common.private_parts import report_missing

LOG = get_logger(__name__)
Answer = TypeVar("Answer")
# The characters of user and password: no blank, which separates the two in memcached's login, and no end of line.
_WORD = re.compile(r"[!-~]+", re.ASCII)
_TTL = re.compile(rb"HD t([0-9]{1,9})")


def build_tls_context(conf: cfg.ConfigOpts) -> ssl.SSLContext | None:
    """Return the TLS context of the group [memcache], or None for plain TCP.

    The server's certificate and the name in it are always checked.

    :raises ConfigInvalid: when a file cannot be used.
    """
    if not conf.tls_enabled:
        return None
    try:
        context = ssl.create_default_context(cafile=conf.tls_cafile)
    except OSError as exc:
        raise errors.ConfigInvalid("[memcache] tls_cafile", exc.strerror or str(exc)) from exc
    if conf.tls_certfile:
        try:
            # Without one, OpenSSL would ask for a passphrase on the terminal.
            context.load_cert_chain(conf.tls_certfile, conf.tls_keyfile, password="")
        except OSError as exc:
            raise errors.ConfigInvalid("[memcache] tls_certfile, tls_keyfile", exc.strerror or str(exc)) from exc
    return context


def build_login(conf: cfg.ConfigOpts) -> bytes | None:
    """Return the value of the first command of a login (memcached(1) ``-Y``); None without a configured login.

    :raises ConfigInvalid: when user or password is missing, or has a character that memcached cannot take.
    """
    if not conf.username and not conf.password:
        return None
    if not conf.username or not conf.password:
        raise errors.ConfigInvalid("[memcache] username, password", "set both or neither")
    if not (_WORD.fullmatch(conf.username) and _WORD.fullmatch(conf.password)):
        raise errors.ConfigInvalid("[memcache] username, password", "memcached takes visible ASCII without blanks")
    return f"{conf.username} {conf.password}".encode()


def build_ring(names: Iterable[str]) -> Callable[[str], str]:
    """Return the function from a key to its server among ``names`` (rendezvous hashing).

    The order of ``names`` does not matter. Adding or removing a name moves no key between the other servers.
    """
    ring = RendezvousHash(sorted(names))
    choose: Callable[[str], str] = ring.get_node
    return choose


class MemcachedNode:
    """The connections to one server: at most ``pool_size``, each used by one thread at a time.

    pymemcache's own PooledClient raises when all connections are in use, and returns connections that the server has
    closed meanwhile. Here a thread waits for a connection, and a closed one is opened again before its use.
    """

    def __init__(self, host: str, port: int, conf: cfg.ConfigOpts, tls: ssl.SSLContext | None = None) -> None:
        """Prepare; ``conf`` is the group [memcache], and ``tls`` of :func:`build_tls_context`.

        :raises ConfigInvalid: when user or password is not valid.
        """
        self._address = (host, port)
        self._connect_timeout_s: float = conf.connect_timeout
        self._timeout_s: float = conf.timeout
        self._tls = tls
        self._login = build_login(conf)
        self._tells_ttl = True
        self._free: queue.LifoQueue[Client] = queue.LifoQueue()
        for _ in range(conf.pool_size):
            self._free.put(self._build_client())
        # pymemcache does not document the attribute.
        self._can_set_socket = hasattr(self._build_client(), "sock")
        if not self._can_set_socket:
            report_missing(
                "pymemcache", "Client.sock", "Only the first address of a server's name is tried, and a login is slow."
            )

    def _build_client(self) -> Client:
        return Client(
            self._address,
            connect_timeout=self._connect_timeout_s,
            timeout=self._timeout_s,
            no_delay=True,
            tls_context=self._tls,
            default_noreply=False,
        )

    def get(self, key: str) -> bytes | None:
        """Return the value; None when there is none."""
        value: bytes | None = self._run(lambda client: client.get(key))
        return value

    def get_ttl(self, key: str) -> int | None:
        """Return the seconds that the item has left by the server's clock, 0 without an item.

        None when the server cannot say: memcached can since 1.6 (protocol.txt, "Meta Get").
        """
        if not self._tells_ttl:
            return None
        ttl_s = self._run(lambda client: _read_ttl(client, key))
        # Asked once: the answer to an unknown command costs the connection.
        self._tells_ttl = ttl_s is not None
        return ttl_s

    def gets(self, key: str) -> tuple[bytes | None, bytes | None]:
        """Return the value and its compare-and-set id."""
        pair: tuple[bytes | None, bytes | None] = self._run(lambda client: client.gets(key))
        return pair

    def get_many(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the existing values by key."""
        values: dict[str, bytes] = self._run(lambda client: client.get_many(keys))
        return values

    def set(self, key: str, value: bytes, expire_s: int) -> bool:
        """Write; say whether it was stored."""
        return self._run(lambda client: client.set(key, value, expire_s)) is True

    def add(self, key: str, value: bytes, expire_s: int) -> bool:
        """Write unless there is a value; say whether it was stored."""
        return self._run(lambda client: client.add(key, value, expire_s)) is True

    def cas(self, key: str, value: bytes, cas_id: bytes, expire_s: int) -> bool:
        """Write if unchanged; say whether it was stored."""
        return self._run(lambda client: client.cas(key, value, cas_id, expire_s)) is True

    def delete(self, key: str) -> bool:
        """Delete; say whether there was a value."""
        return self._run(lambda client: client.delete(key)) is True

    def probe(self) -> None:
        """Ask for the version."""
        self._run(lambda client: client.version())

    def read_room(self) -> StoreRoom:
        """Return the server's memory, and what it does when it is full (protocol.txt, "General-purpose statistics")."""
        statistics = self._run(lambda client: client.stats())
        settings = self._run(lambda client: client.stats("settings"))
        return StoreRoom(
            used_bytes=int(statistics.get(b"bytes", 0)),
            limit_bytes=int(statistics.get(b"limit_maxbytes", 0)),
            evictions=int(statistics.get(b"evictions", 0)),
            refusals=int(statistics.get(b"store_no_memory", 0)),
            evicts=settings.get(b"evictions") != b"off",
        )

    def close(self) -> None:
        """Close the connections that no thread uses."""
        while not self._free.empty():
            self._free.get_nowait().close()

    def _run(self, command: Callable[[Client], Answer]) -> Answer:
        try:
            client = self._free.get(timeout=self._timeout_s)
        except queue.Empty:
            raise self._unavailable("all connections are in use") from None
        try:
            return self._attempt(client, command)
        except TimeoutError as exc:
            raise self._unavailable("no answer in time") from exc
        except MemcacheError as exc:
            raise self._unavailable(f"it refused: {_describe(exc)}") from exc
        except OSError as exc:
            raise self._unavailable(exc.strerror or type(exc).__name__) from exc
        finally:
            self._free.put(client)

    def _attempt(self, client: Client, command: Callable[[Client], Answer]) -> Answer:
        """Run the command, and again on a new connection when an idle connection broke before the answer.

        The server may have executed the first command. That is harmless for each of Porthole's commands: a read or a
        set is repeated, a delete finds nothing, and an add or cas that was lost shows at the next read of the index.
        """
        if not self._can_set_socket:
            return self._attempt_as_pymemcache(client, command)
        if client.sock is not None and _is_stale(client.sock):
            client.close()
        if client.sock is not None:
            try:
                return command(client)
            except (ConnectionError, ssl.SSLError, MemcacheUnexpectedCloseError):
                client.close()
        self._connect(client)
        return command(client)

    def _attempt_as_pymemcache(self, client: Client, command: Callable[[Client], Answer]) -> Answer:
        """Run the command on a connection that pymemcache makes by itself; a new one each time where a login is due."""
        if self._login is not None:
            client.close()
            client.set("login", self._login)
        return command(client)

    def _connect(self, client: Client) -> None:
        """Give ``client`` a new connection, over TLS and logged in where that is configured.

        Not left to pymemcache, which tries only the first address of a name that has two (localhost, often).
        """
        with contextlib.ExitStack() as stack:
            sock = socket.create_connection(self._address, timeout=self._connect_timeout_s)
            stack.callback(sock.close)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=self._address[0])
                stack.callback(sock.close)
            sock.settimeout(self._timeout_s)
            stack.pop_all()
        client.sock = sock
        if self._login is not None:
            # memcached(1) -Y: the first command is a "set" with user and password as its value, whatever its key.
            client.set("login", self._login)

    def _unavailable(self, reason: str) -> errors.TokenStoreUnavailable:
        address = f"{netutils.escape_ipv6(self._address[0])}:{self._address[1]}"
        LOG.warning("memcached not answering", address=address, reason=reason)
        return errors.TokenStoreUnavailable(reason)


def _read_ttl(client: Client, key: str) -> int | None:
    """Return what :meth:`MemcachedNode.get_ttl` does."""
    try:
        # "HD t599", or "EN" without an item.
        answer: bytes = client.raw_command(f"mg {key} t")
    except MemcacheUnknownCommandError:
        return None
    if answer == b"EN":
        return 0
    found = _TTL.fullmatch(answer)
    return int(found[1]) if found else None


def _is_stale(sock: socket.socket) -> bool:
    """Return whether an idle connection has something to read: its end, or an answer that came too late."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def _describe(exc: MemcacheError) -> str:
    text = exc.args[0] if exc.args else "it closed the connection"
    return text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)

# SPDX-License-Identifier: Apache-2.0
"""The token store: its port, and the rules every implementation keeps.

Why: a console token opens a screen, so a few rules decide which one, and they must be the same in memcached and in
memory. They are here, without I/O: how a token becomes a key, what is stored under the key, and what the index of an
instance is. A token is valid exactly when its item exists and its hash is in the index of its instance. Without the
index, all tokens of the instance are invalid. Called by the stores and the endpoint.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from porthole_common import errors
from porthole_common.diagnosis import StoreRoom
from porthole_common.log import get_logger
from porthole_common.model import ConnectInfo, TokenReason, get_slot, get_token_slot, is_uuid

LOG = get_logger(__name__)
# An index takes 70 bytes per token, so it stays far below memcached's 1 MiB for an item. With one more token the oldest
# one becomes invalid, so that a new URL always works.
MAX_TOKENS_PER_INSTANCE = 200
# The index is written after the item, and must not expire before it.
INDEX_MARGIN_S = 60
_SHA256_DIGITS = 64
# What no item holds, or holds beside connect_info.
_NOT_STORED = dict.fromkeys(("token", "user_id", "project_id", "remaining_s"))


@dataclass(frozen=True)
class StoredConsole:
    """The console that a token opens, and the user and project of the token.

    ``connect_info`` has no token, has ``expires_at``, and has only ``scheme://host[:port]`` of its access URL.
    ``remaining_s``: how many seconds the token has left by the store's own clock, None when the store cannot say.
    """

    connect_info: ConnectInfo
    user_id: str | None = None
    project_id: str | None = None
    remaining_s: float | None = field(default=None, compare=False)


class TokenStore(Protocol):
    """The store of tokens. Thread-safe; every method ends within seconds in any state of the store."""

    def probe(self) -> dict[str, str]:
        """Ask every server of the store; return ``{name: why it is not usable, or ""}``. Never raises."""

    def measure(self, names: Iterable[str]) -> dict[str, StoreRoom]:
        """Return the memory of those servers, without the ones that do not answer. Never raises."""

    def authorize(self, token: str, console: StoredConsole, ttl_s: int) -> None:
        """Make ``token`` open ``console`` for ``ttl_s`` seconds.

        The oldest tokens of an instance that has more than MAX_TOKENS_PER_INSTANCE are deleted.

        :raises TokenInvalid: when the token is not a canonical UUID.
        :raises TokenStoreUnavailable: when it is not certain that the store has the token.
        """

    def check(self, token: str) -> StoredConsole:
        """Return the console that ``token`` opens, with ``remaining_s``. Looking a token up takes none of its uses.

        :raises TokenInvalid: when it is malformed (the store is not asked), unknown, expired, revoked, or spent.
        :raises TokenStoreUnavailable: when the store did not answer.
        """

    def spend(self, token: str) -> None:
        """Take one of the token's uses, if they are limited: of many callers at once, as many succeed as there are.

        :raises TokenInvalid: as :meth:`check`.
        :raises TokenStoreUnavailable: when it is not certain that the use was taken.
        """

    def revoke_instance(self, instance_uuid: str, compute_host: str | None = None) -> int:
        """Revoke every token of the instance in one step, and return how many were valid.

        With ``compute_host`` only the tokens for that host: the instance may have moved, and have new ones elsewhere.

        :raises RequestInvalid: when ``instance_uuid`` is not a canonical UUID (the store is not asked).
        :raises TokenStoreUnavailable: when it is not certain that they are revoked.
        """

    def close(self) -> None:
        """Close the store."""


def hash_token(token: object) -> str:
    """Return the hash of a token: its slot and its SHA-256, in hexadecimal.

    It is the only form of a token that leaves this module.

    :raises TokenInvalid: when ``token`` is not a lower-case canonical UUID; so no other text becomes a key.
    """
    if not isinstance(token, str) or not is_uuid(token):
        raise errors.TokenInvalid(TokenReason.MALFORMED)
    return get_token_slot(token) + hashlib.sha256(token.encode("ascii")).hexdigest()


def get_hash_slot(token_hash: str) -> str:
    """Return the slot of the token with this hash."""
    return token_hash[:-_SHA256_DIGITS]


def get_instance_slot(instance_uuid: object) -> str:
    """Return the slot of an instance.

    :raises RequestInvalid: when ``instance_uuid`` is not a lower-case canonical UUID.
    """
    if not isinstance(instance_uuid, str) or not is_uuid(instance_uuid):
        raise errors.RequestInvalid("instance_uuid is not a canonical UUID")
    return get_slot(instance_uuid)


def token_key(token_hash: str) -> str:
    """Return the key of a token's item."""
    return f"porthole:token:{token_hash}"


def instance_key(instance_uuid: object) -> str:
    """Return the key of an instance's index.

    :raises RequestInvalid: when ``instance_uuid`` is not a lower-case canonical UUID.
    """
    if not isinstance(instance_uuid, str) or not is_uuid(instance_uuid):
        raise errors.RequestInvalid("instance_uuid is not a canonical UUID")
    return f"porthole:instance:{instance_uuid}"


def strip_secrets(connect_info: ConnectInfo) -> ConnectInfo:
    """Return ``connect_info`` as it may be stored: without the token, which the access URL contains too.

    :raises RequestInvalid: when the access URL has no scheme or host.
    """
    try:
        parts = urlsplit(connect_info.access_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise errors.RequestInvalid("access_url is not a URL") from None
    if not parts.scheme or not host:
        raise errors.RequestInvalid("access_url has no scheme or no host")
    name = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{name}" + (f":{port}" if port is not None else "")
    return replace(connect_info, token=None, access_url=origin)


def build_item(console: StoredConsole) -> bytes:
    """Return the item of a token: connect_info's keys without ``token``, and ``user_id``, ``project_id``, as JSON."""
    value = strip_secrets(console.connect_info).to_primitive()
    del value["token"]
    return _dump(value | {"user_id": console.user_id, "project_id": console.project_id})


def parse_item(item: bytes) -> StoredConsole:
    """Build what :func:`build_item` wrote.

    :raises TokenInvalid: when it is anything else; that is logged, since another program writes into the store.
    """
    try:
        value = json.loads(item)
        connect_info = ConnectInfo.from_primitive({**value, **_NOT_STORED})
        instance_key(connect_info.instance_uuid)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, errors.RequestInvalid) as exc:
        LOG.error("Foreign token item found in the store", error=type(exc).__name__)
        raise errors.TokenInvalid(TokenReason.UNKNOWN) from None
    return StoredConsole(connect_info, value.get("user_id"), value.get("project_id"))


def take_use(console: StoredConsole) -> StoredConsole | None:
    """Return ``console`` with one use less; None when it has any number of uses.

    :raises TokenInvalid: when no use is left.
    """
    uses = console.connect_info.uses
    if uses is None:
        return None
    check_uses(console)
    return replace(console, connect_info=replace(console.connect_info, uses=uses - 1))


def check_uses(console: StoredConsole) -> None:
    """Check that a use is left.

    :raises TokenInvalid: when none is.
    """
    if console.connect_info.uses is not None and console.connect_info.uses <= 0:
        raise errors.TokenInvalid(TokenReason.SPENT)


def bound_index(hashes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the hashes that an index keeps, and the oldest ones, for which it has no room.

    The items of the latter open nothing any more. Whoever writes the index deletes them: otherwise one instance could
    fill the store with them (O37).
    """
    return list(hashes[-MAX_TOKENS_PER_INSTANCE:]), list(hashes[:-MAX_TOKENS_PER_INSTANCE])


def build_index(hashes: Sequence[str], *newer: str) -> bytes:
    """Return an index of ``hashes``, oldest first, and the ``newer`` ones, as a JSON list of bounded length."""
    return _dump(bound_index([*hashes, *newer])[0])


def parse_index(index: bytes | None) -> list[str]:
    """Return the token hashes of an index, oldest first; none when there is no index, or it is not Porthole's."""
    if index is None:
        return []
    try:
        hashes = json.loads(index)
    except (ValueError, RecursionError):
        hashes = None
    if not isinstance(hashes, list) or not all(isinstance(item, str) for item in hashes):
        LOG.error("Foreign index found in the token store; the tokens of its instance are void")
        return []
    return hashes


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")

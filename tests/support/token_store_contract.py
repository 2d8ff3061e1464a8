# SPDX-License-Identifier: Apache-2.0
"""What every token store must do, as tests: run against memory, against a fake node and against a real memcached.

A test class derives from :class:`TokenStoreContract` and gives the fixture ``store``.
"""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from porthole_common import errors
from porthole_common.model import ConnectInfo, ConsoleType, TokenReason, build_token
from porthole_consoleauth.token_store import MAX_TOKENS_PER_INSTANCE, StoredConsole, TokenStore
from support.cases import naming

TTL_S = 300
JUNK_TOKENS: list[Any] = [
    "",
    " ",
    "a b",
    "x\r\nflush_all\r\n",
    "porthole:instance:7f3a5c1e-0b1d-4c2e-9f00-aabbccddeeff",
    "7F3A5C1E-0B1D-4C2E-9F00-AABBCCDDEEFF",
    "7f3a5c1e-0b1d-4c2e-9f00-aabbccddeeff\n",
    "../../etc/passwd",
    "\0",
    "x" * 10240,
    None,
    7,
    ["7f3a5c1e-0b1d-4c2e-9f00-aabbccddeeff"],
]


def new_uuid() -> str:
    return str(uuid.uuid4())


def build_console(instance_uuid: str, **changes: Any) -> StoredConsole:
    """Return a console of the instance, as the endpoint would store it but for the URL's token."""
    values: dict[str, Any] = {
        "instance_uuid": instance_uuid,
        "console_type": ConsoleType.NOVNC,
        "host": "192.0.2.1",
        "port": 5901,
        "access_url": "https://proxy.example.org:6080/console.html?path=%3Ftoken%3Dclear-token",
        "compute_host": "host1",
        "internal_access_path": "/access/path",
        "expires_at": datetime(2030, 1, 1, tzinfo=UTC),
        "token": "clear-token",
        **changes,
    }
    return StoredConsole(ConnectInfo(**values), user_id="user1", project_id="project1")


def is_valid(store: TokenStore, token: str) -> bool:
    """Say whether the store knows the token; what is not "unknown" is an error."""
    try:
        store.check(token)
    except errors.TokenInvalid as exc:
        if exc.reason != TokenReason.UNKNOWN:
            raise
        return False
    return True


class TokenStoreContract:
    """The tests; ``store`` is a fixture of the deriving class."""

    def test_a_token_opens_its_console(self, store: TokenStore) -> None:
        token, instance_uuid = new_uuid(), new_uuid()
        store.authorize(token, build_console(instance_uuid), TTL_S)
        stored = store.check(token)
        info = stored.connect_info
        assert (info.instance_uuid, info.console_type) == (instance_uuid, ConsoleType.NOVNC)
        assert (info.host, info.port, info.internal_access_path) == ("192.0.2.1", 5901, "/access/path")
        assert (info.compute_host, info.expires_at) == ("host1", datetime(2030, 1, 1, tzinfo=UTC))
        assert (stored.user_id, stored.project_id) == ("user1", "project1")

    def test_neither_token_nor_url_comes_back(self, store: TokenStore) -> None:
        token = new_uuid()
        store.authorize(token, build_console(new_uuid()), TTL_S)
        info = store.check(token).connect_info
        assert info.token is None
        assert info.access_url == "https://proxy.example.org:6080"

    def test_a_token_opens_any_number_of_times(self, store: TokenStore) -> None:
        token = new_uuid()
        store.authorize(token, build_console(new_uuid()), TTL_S)
        assert store.check(token) == store.check(token)

    def test_a_token_opens_as_often_as_it_may(self, store: TokenStore) -> None:
        instance_uuid = new_uuid()
        token = build_token(instance_uuid)
        store.authorize(token, build_console(instance_uuid, uses=2), TTL_S)
        for left in (2, 1):
            assert store.check(token).connect_info.uses == left
            store.spend(token)
        for call in (store.check, store.spend):
            with pytest.raises(errors.TokenInvalid) as caught:
                call(token)
            assert caught.value.reason == TokenReason.SPENT
        assert store.revoke_instance(instance_uuid) == 1
        assert not is_valid(store, token)

    def test_any_number_of_uses(self, store: TokenStore) -> None:
        instance_uuid = new_uuid()
        token = build_token(instance_uuid)
        store.authorize(token, build_console(instance_uuid), TTL_S)
        for _ in range(5):
            store.spend(token)
        assert is_valid(store, token)

    def test_spending_what_is_not_there(self, store: TokenStore) -> None:
        for token in (new_uuid(), "junk"):
            with pytest.raises(errors.TokenInvalid) as caught:
                store.spend(token)
            assert caught.value.reason != TokenReason.SPENT

    def test_of_many_at_once_as_many_get_in_as_may(self, store: TokenStore) -> None:
        instance_uuid = new_uuid()
        token = build_token(instance_uuid)
        store.authorize(token, build_console(instance_uuid, uses=3), TTL_S)

        def spend(_number: int) -> str:
            try:
                store.spend(token)
            except errors.TokenInvalid as exc:
                return exc.reason
            return ""

        with ThreadPoolExecutor(16) as pool:
            reasons = list(pool.map(spend, range(200)))
        assert sorted(set(reasons)) == ["", TokenReason.SPENT]
        assert reasons.count("") == 3

    def test_an_unknown_token(self, store: TokenStore) -> None:
        assert not is_valid(store, new_uuid())

    def test_a_junk_token(self, store: TokenStore) -> None:
        for token in JUNK_TOKENS:
            with naming(token):
                with pytest.raises(errors.TokenInvalid) as caught:
                    store.check(token)
                assert caught.value.reason == TokenReason.MALFORMED
                with pytest.raises(errors.TokenInvalid):
                    store.authorize(token, build_console(new_uuid()), TTL_S)

    def test_a_junk_instance(self, store: TokenStore) -> None:
        for instance_uuid in JUNK_TOKENS:
            with naming(instance_uuid):
                with pytest.raises(errors.RequestInvalid):
                    store.revoke_instance(instance_uuid)
                with pytest.raises(errors.RequestInvalid):
                    store.authorize(new_uuid(), build_console(instance_uuid), TTL_S)

    def test_an_instance_as_token(self, store: TokenStore) -> None:
        instance_uuid = new_uuid()
        store.authorize(new_uuid(), build_console(instance_uuid), TTL_S)
        assert not is_valid(store, instance_uuid)

    def test_revocation_kills_every_token_of_the_instance(self, store: TokenStore) -> None:
        instance_uuid = new_uuid()
        tokens = [new_uuid() for _ in range(3)]
        for token in tokens:
            store.authorize(token, build_console(instance_uuid), TTL_S)
        assert store.revoke_instance(instance_uuid) == 3
        assert not any(is_valid(store, token) for token in tokens)

    def test_revocation_leaves_other_instances(self, store: TokenStore) -> None:
        token, revoked = new_uuid(), new_uuid()
        store.authorize(token, build_console(new_uuid()), TTL_S)
        store.authorize(new_uuid(), build_console(revoked), TTL_S)
        store.revoke_instance(revoked)
        assert is_valid(store, token)

    def test_revocation_for_one_host_leaves_the_tokens_for_others(self, store: TokenStore) -> None:
        """An instance that moved: the host it left may say so when there are consoles on the next one already."""
        instance_uuid = new_uuid()
        old, new, old_too = (build_token(instance_uuid) for _ in range(3))
        for token, host in ((old, "host1"), (new, "host2"), (old_too, "host1")):
            store.authorize(token, build_console(instance_uuid, compute_host=host), TTL_S)
        assert store.revoke_instance(instance_uuid, "host1") == 2
        assert [is_valid(store, token) for token in (old, new, old_too)] == [False, True, False]
        assert store.revoke_instance(instance_uuid, "host1") == 0
        assert store.revoke_instance(instance_uuid, "host3") == 0
        assert is_valid(store, new)
        assert store.revoke_instance(instance_uuid, "host2") == 1
        assert not is_valid(store, new)

    def test_a_token_after_a_revocation_for_one_host(self, store: TokenStore) -> None:
        instance_uuid = new_uuid()
        old, back = build_token(instance_uuid), build_token(instance_uuid)
        store.authorize(old, build_console(instance_uuid), TTL_S)
        store.revoke_instance(instance_uuid, "host1")
        store.authorize(back, build_console(instance_uuid), TTL_S)
        assert [is_valid(store, token) for token in (old, back)] == [False, True]

    def test_revocation_of_nothing(self, store: TokenStore) -> None:
        assert store.revoke_instance(new_uuid()) == 0

    def test_revocation_twice(self, store: TokenStore) -> None:
        instance_uuid = new_uuid()
        store.authorize(new_uuid(), build_console(instance_uuid), TTL_S)
        assert (store.revoke_instance(instance_uuid), store.revoke_instance(instance_uuid)) == (1, 0)

    def test_a_token_after_a_revocation(self, store: TokenStore) -> None:
        instance_uuid, old, new = new_uuid(), new_uuid(), new_uuid()
        store.authorize(old, build_console(instance_uuid), TTL_S)
        store.revoke_instance(instance_uuid)
        store.authorize(new, build_console(instance_uuid), TTL_S)
        assert is_valid(store, new)
        assert not is_valid(store, old)

    def test_the_same_token_twice(self, store: TokenStore) -> None:
        token, instance_uuid = new_uuid(), new_uuid()
        for _ in range(2):
            store.authorize(token, build_console(instance_uuid), TTL_S)
        assert is_valid(store, token)
        assert store.revoke_instance(instance_uuid) == 1

    def test_too_many_tokens_of_one_instance(self, store: TokenStore) -> None:
        instance_uuid = new_uuid()
        tokens = [new_uuid() for _ in range(MAX_TOKENS_PER_INSTANCE + 2)]
        for token in tokens:
            store.authorize(token, build_console(instance_uuid), TTL_S)
        assert [is_valid(store, token) for token in tokens] == [False] * 2 + [True] * MAX_TOKENS_PER_INSTANCE

    def test_a_token_says_how_long_it_lives(self, store: TokenStore) -> None:
        """By the store's own clock, whatever ``expires_at`` says."""
        token = new_uuid()
        store.authorize(token, build_console(new_uuid(), expires_at=datetime(2000, 1, 1, tzinfo=UTC)), TTL_S)
        remaining_s = store.check(token).remaining_s
        assert remaining_s is not None
        # Fifty threads on two cores, and a clock of whole seconds.
        assert TTL_S - 30 < remaining_s <= TTL_S

    def test_an_access_url_that_is_none(self, store: TokenStore) -> None:
        for url in ["", "no url", "//host/x", "http:///x", "http://host:port/", "http://[::1/"]:
            with naming(url), pytest.raises(errors.RequestInvalid):
                store.authorize(new_uuid(), build_console(new_uuid(), access_url=url), TTL_S)

    @pytest.mark.parametrize("compute_host", [None, "host1"])
    def test_fifty_at_once_and_a_revocation(self, store: TokenStore, compute_host: str | None) -> None:
        """Whatever was authorized before the revocation began is dead after it; what came later lives."""
        instance_uuid = new_uuid()
        authorized: list[str] = []
        start = threading.Barrier(51)

        def authorize_some() -> None:
            start.wait(30)
            for _ in range(3):
                token = new_uuid()
                store.authorize(token, build_console(instance_uuid), TTL_S)
                authorized.append(token)

        with ThreadPoolExecutor(50) as pool:
            futures = [pool.submit(authorize_some) for _ in range(50)]
            start.wait(30)
            while len(authorized) < 20 and not all(future.done() for future in futures):
                pass
            earlier = list(authorized)
            store.revoke_instance(instance_uuid, compute_host)
            assert not any(is_valid(store, token) for token in earlier)
        for future in futures:
            future.result(60)
        assert len(authorized) == 150
        assert not any(is_valid(store, token) for token in earlier)
        store.revoke_instance(instance_uuid)
        assert not any(is_valid(store, token) for token in authorized)

# SPDX-License-Identifier: Apache-2.0
import pytest

from porthole_common import errors
from porthole_consoleauth.memory_store import MAX_TOKENS, MemoryStore
from porthole_consoleauth.token_store import MAX_TOKENS_PER_INSTANCE
from support.token_store_contract import TTL_S, TokenStoreContract, build_console, is_valid, new_uuid


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock, max_tokens=1000)


class TestMemoryStore(TokenStoreContract):
    pass


def test_a_token_lives_its_time_and_no_longer(store: MemoryStore, clock: Clock) -> None:
    token = new_uuid()
    store.authorize(token, build_console(new_uuid()), TTL_S)
    clock.now += TTL_S - 0.1
    assert is_valid(store, token)
    clock.now += 0.1
    assert not is_valid(store, token)


def test_revocation_does_not_count_the_expired(store: MemoryStore, clock: Clock) -> None:
    instance_uuid = new_uuid()
    store.authorize(new_uuid(), build_console(instance_uuid), 10)
    store.authorize(new_uuid(), build_console(instance_uuid), 100)
    clock.now += 50
    assert store.revoke_instance(instance_uuid) == 1


def test_a_full_store_says_so_and_takes_tokens_again_when_some_have_expired(clock: Clock) -> None:
    store = MemoryStore(clock, max_tokens=2)
    for _ in range(2):
        store.authorize(new_uuid(), build_console(new_uuid()), TTL_S)
    with pytest.raises(errors.TokenStoreUnavailable):
        store.authorize(new_uuid(), build_console(new_uuid()), TTL_S)
    clock.now += TTL_S
    store.authorize(new_uuid(), build_console(new_uuid()), TTL_S)


def test_one_instance_does_not_fill_the_store(clock: Clock) -> None:
    """What falls out of its index is deleted."""
    store, other, instance_uuid = MemoryStore(clock, MAX_TOKENS_PER_INSTANCE + 2), new_uuid(), new_uuid()
    store.authorize(other, build_console(new_uuid()), TTL_S)
    for _ in range(2 * MAX_TOKENS_PER_INSTANCE):
        store.authorize(new_uuid(), build_console(instance_uuid), TTL_S)
    assert is_valid(store, other)
    assert store.revoke_instance(instance_uuid) == MAX_TOKENS_PER_INSTANCE


def test_the_guests_of_one_host_do_not_fill_the_store() -> None:
    """However many URLs their users ask for: two users with 600 a minute filled it, and all got 503."""
    assert MAX_TOKENS >= 250 * MAX_TOKENS_PER_INSTANCE


def test_what_has_expired_or_is_revoked_takes_no_memory(clock: Clock) -> None:
    store = MemoryStore(clock)
    sizes = []
    for _ in range(5000):
        store.authorize(new_uuid(), build_console(new_uuid()), TTL_S)
        clock.now += TTL_S / 10
        sizes.append(max(len(store._items), len(store._indexes)))
    assert max(sizes) <= 256
    store.close()
    for _ in range(1000):
        instance_uuid = new_uuid()
        store.authorize(new_uuid(), build_console(instance_uuid), TTL_S)
        assert store.revoke_instance(instance_uuid) == 1
    assert not store._items
    assert not store._indexes


def test_the_expired_do_not_push_out_the_living(store: MemoryStore, clock: Clock) -> None:
    """Tokens of one instance that were to live for a second leave the older ones of an hour in their places."""
    instance_uuid, token = new_uuid(), new_uuid()
    store.authorize(token, build_console(instance_uuid), 3600)
    for _ in range(2 * MAX_TOKENS_PER_INSTANCE):
        store.authorize(new_uuid(), build_console(instance_uuid), 1)
        clock.now += 1
    assert is_valid(store, token)


def test_closing_forgets(store: MemoryStore) -> None:
    token = new_uuid()
    store.authorize(token, build_console(new_uuid()), TTL_S)
    store.close()
    assert not is_valid(store, token)

# SPDX-License-Identifier: Apache-2.0
"""The rules of the token store on one memcached: indexes, other writers at the same time, and faults."""

from collections.abc import Callable

import pytest

from porthole_common import errors
from porthole_common.model import build_token
from porthole_consoleauth import memcached_store, token_store
from porthole_consoleauth.memcached_store import MemcachedStore
from support.cases import naming
from support.fake_memcached import FakeNode, index_of, no_pause
from support.token_store_contract import TTL_S, TokenStoreContract, build_console, is_valid, new_uuid


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def store(node: FakeNode) -> MemcachedStore:
    return MemcachedStore({"only:1": node}, pause=no_pause)


class TestMemcachedStore(TokenStoreContract):
    pass


def item_key(token: str) -> str:
    return token_store.token_key(token_store.hash_token(token))


def test_keys_hold_hashes_alone(store: MemcachedStore, node: FakeNode) -> None:
    token, instance_uuid = new_uuid(), new_uuid()
    store.authorize(token, build_console(instance_uuid), TTL_S)
    assert set(node.living()) == {item_key(token), f"porthole:instance:{instance_uuid}"}
    assert not any(token.encode() in (node.get(key) or b"") for key in node.living())


def test_a_token_lives_its_time_and_no_longer(store: MemcachedStore, node: FakeNode) -> None:
    token = new_uuid()
    store.authorize(token, build_console(new_uuid()), TTL_S)
    node.now += TTL_S - 1
    assert is_valid(store, token)
    node.now += 1
    assert not is_valid(store, token)


def test_the_index_outlives_its_newest_token(store: MemcachedStore, node: FakeNode) -> None:
    instance_uuid, token = new_uuid(), new_uuid()
    store.authorize(new_uuid(), build_console(instance_uuid), TTL_S)
    node.now += TTL_S - 1
    store.authorize(token, build_console(instance_uuid), TTL_S)
    node.now += TTL_S - 1
    assert is_valid(store, token)
    node.now += TTL_S
    assert node.living() == []


def test_the_item_is_written_before_the_index(store: MemcachedStore, node: FakeNode) -> None:
    store.authorize(new_uuid(), build_console(new_uuid()), TTL_S)
    assert [command for command, _ in node.commands] == ["set", "gets", "add"]


def test_an_item_without_its_index_opens_nothing(store: MemcachedStore, node: FakeNode) -> None:
    """The index is the authority (O5)."""
    token, instance_uuid = new_uuid(), new_uuid()
    store.authorize(token, build_console(instance_uuid), TTL_S)
    node.drop(token_store.instance_key(instance_uuid))
    assert not is_valid(store, token)


def test_an_index_without_the_item_opens_nothing(store: MemcachedStore, node: FakeNode) -> None:
    token = new_uuid()
    store.authorize(token, build_console(new_uuid()), TTL_S)
    node.drop(item_key(token))
    assert not is_valid(store, token)


def once(node: FakeNode, command: str, act: Callable[[], object]) -> None:
    """Let ``act`` be quicker than the next ``command``."""

    def hook() -> None:
        del node.before[command]
        act()

    node.before[command] = hook


def rewrite(node: FakeNode, key: str) -> None:
    """Change an index so that nobody's compare-and-set succeeds."""
    node.set(key, token_store.build_index([], "x"), TTL_S)


def test_another_authorize_between_read_and_first_write(store: MemcachedStore, node: FakeNode) -> None:
    instance_uuid, mine, other = new_uuid(), new_uuid(), new_uuid()
    once(node, "add", lambda: store.authorize(other, build_console(instance_uuid), TTL_S))
    store.authorize(mine, build_console(instance_uuid), TTL_S)
    assert is_valid(store, mine)
    assert is_valid(store, other)


def test_another_authorize_between_read_and_later_write(store: MemcachedStore, node: FakeNode) -> None:
    """Compare-and-set: neither of the two is lost (O5)."""
    instance_uuid, mine, other = new_uuid(), new_uuid(), new_uuid()
    store.authorize(new_uuid(), build_console(instance_uuid), TTL_S)
    once(node, "cas", lambda: store.authorize(other, build_console(instance_uuid), TTL_S))
    store.authorize(mine, build_console(instance_uuid), TTL_S)
    assert len(index_of(node, instance_uuid)) == 3
    assert is_valid(store, mine)
    assert is_valid(store, other)


def test_a_revocation_between_read_and_write_is_not_undone(store: MemcachedStore, node: FakeNode) -> None:
    """Compare-and-set: what was revoked stays so (O5)."""
    instance_uuid, earlier, mine = new_uuid(), new_uuid(), new_uuid()
    store.authorize(earlier, build_console(instance_uuid), TTL_S)
    once(node, "cas", lambda: store.revoke_instance(instance_uuid))
    store.authorize(mine, build_console(instance_uuid), TTL_S)
    assert not is_valid(store, earlier)
    assert index_of(node, instance_uuid) == [token_store.hash_token(mine)]


def test_a_revocation_and_an_authorize_between_read_and_write(store: MemcachedStore, node: FakeNode) -> None:
    instance_uuid, earlier, other, mine = new_uuid(), new_uuid(), new_uuid(), new_uuid()

    def act() -> None:
        store.revoke_instance(instance_uuid)
        store.authorize(other, build_console(instance_uuid), TTL_S)

    store.authorize(earlier, build_console(instance_uuid), TTL_S)
    once(node, "cas", act)
    store.authorize(mine, build_console(instance_uuid), TTL_S)
    assert index_of(node, instance_uuid) == [token_store.hash_token(other), token_store.hash_token(mine)]


def test_a_revocation_kills_a_token_whose_item_it_did_not_see(store: MemcachedStore, node: FakeNode) -> None:
    """Items are deleted as a courtesy: what counts is the index."""
    instance_uuid, late = new_uuid(), new_uuid()
    store.authorize(new_uuid(), build_console(instance_uuid), TTL_S)
    once(node, "delete", lambda: store.authorize(late, build_console(instance_uuid), TTL_S))
    store.revoke_instance(instance_uuid)
    assert node.get(item_key(late)) is not None
    assert not is_valid(store, late)


def test_an_index_that_never_stands_still(node: FakeNode) -> None:
    store = MemcachedStore({"only:1": node}, pause=no_pause)
    instance_uuid, token = new_uuid(), new_uuid()
    key = token_store.instance_key(instance_uuid)
    node.set(key, token_store.build_index([], "x"), TTL_S)
    node.before["cas"] = lambda: rewrite(node, key)
    with pytest.raises(errors.TokenStoreUnavailable):
        store.authorize(token, build_console(instance_uuid), TTL_S)
    assert sum(command == "cas" for command, _ in node.commands) == memcached_store.INDEX_ATTEMPTS
    assert not is_valid(store, token)


def test_the_competition_for_an_index_ends_in_time(node: FakeNode) -> None:
    clock = Clock()
    store = MemcachedStore({"only:1": node}, pause=no_pause, clock=clock)

    def lose_slowly() -> None:
        clock.now += 1
        node.set(key, token_store.build_index([], "x"), TTL_S)

    instance_uuid = new_uuid()
    key = token_store.instance_key(instance_uuid)
    node.set(key, token_store.build_index([], "x"), TTL_S)
    node.before["cas"] = lose_slowly
    with pytest.raises(errors.TokenStoreUnavailable):
        store.authorize(new_uuid(), build_console(instance_uuid), TTL_S)
    assert clock.now <= memcached_store.INDEX_DEADLINE_S + 1


def test_the_tries_are_apart(node: FakeNode) -> None:
    pauses: list[float] = []
    store = MemcachedStore({"only:1": node}, pause=pauses.append)
    instance_uuid = new_uuid()
    key = token_store.instance_key(instance_uuid)
    node.set(key, token_store.build_index([], "x"), TTL_S)
    node.before["cas"] = lambda: rewrite(node, key)
    with pytest.raises(errors.TokenStoreUnavailable):
        store.authorize(new_uuid(), build_console(instance_uuid), TTL_S)
    assert all(0 <= pause <= memcached_store.INDEX_PAUSE_S for pause in pauses)
    assert len(set(pauses)) > 1


def test_expired_tokens_leave_the_index_as_it_grows(store: MemcachedStore, node: FakeNode) -> None:
    instance_uuid, living = new_uuid(), new_uuid()
    for _ in range(memcached_store.PRUNE_EVERY - 2):
        store.authorize(new_uuid(), build_console(instance_uuid), 10)
    store.authorize(living, build_console(instance_uuid), TTL_S)
    node.now += 20
    store.authorize(new_uuid(), build_console(instance_uuid), TTL_S)
    assert len(index_of(node, instance_uuid)) == 2
    assert is_valid(store, living)


def items_of(node: FakeNode) -> list[str]:
    return [key for key in node.living() if key.startswith("porthole:token:")]


def test_what_falls_out_of_an_index_is_deleted(store: MemcachedStore, node: FakeNode) -> None:
    """One instance has so many items at most, whatever its tenant asks for; each call deletes one at most."""
    instance_uuid, other = new_uuid(), new_uuid()
    store.authorize(other, build_console(new_uuid()), TTL_S)
    tokens = [build_token(instance_uuid) for _ in range(3 * token_store.MAX_TOKENS_PER_INSTANCE)]
    for token in tokens:
        node.commands.clear()
        store.authorize(token, build_console(instance_uuid), TTL_S)
        assert sum(command == "delete" for command, _ in node.commands) <= 1
    kept = tokens[-token_store.MAX_TOKENS_PER_INSTANCE :]
    assert set(items_of(node)) == {item_key(token) for token in [*kept, other]}
    assert all(is_valid(store, token) for token in [*kept, other])


def test_a_lost_race_for_a_full_index_deletes_no_valid_token(store: MemcachedStore, node: FakeNode) -> None:
    instance_uuid, mine, other = new_uuid(), new_uuid(), new_uuid()
    tokens = [build_token(instance_uuid) for _ in range(token_store.MAX_TOKENS_PER_INSTANCE)]
    for token in tokens:
        store.authorize(token, build_console(instance_uuid), TTL_S)
    once(node, "cas", lambda: store.revoke_instance(instance_uuid))
    store.authorize(mine, build_console(instance_uuid), TTL_S)
    store.authorize(other, build_console(instance_uuid), TTL_S)
    assert is_valid(store, mine)
    assert is_valid(store, other)
    assert len(items_of(node)) == 2


def test_a_token_without_an_index_leaves_no_item() -> None:
    """A full memcached may have room for items and none for indexes: refused users must not fill it."""

    class FullForIndexes(FakeNode):
        def add(self, key: str, value: bytes, expire_s: int) -> bool:
            raise errors.TokenStoreUnavailable("out of memory")

    node = FullForIndexes()
    store = MemcachedStore({"only:1": node}, pause=no_pause)
    for _ in range(5):
        with pytest.raises(errors.TokenStoreUnavailable):
            store.authorize(new_uuid(), build_console(new_uuid()), TTL_S)
    assert node.living() == []


def test_a_full_store_takes_a_revocation_for_one_host(store: MemcachedStore, node: FakeNode) -> None:
    """memcached -M refuses the shorter index too, since it stores it before it drops the longer one."""
    instance_uuid = new_uuid()
    old, new = build_token(instance_uuid), build_token(instance_uuid)
    store.authorize(old, build_console(instance_uuid), TTL_S)
    store.authorize(new, build_console(instance_uuid, compute_host="host2"), TTL_S)

    def refuse() -> None:
        raise errors.TokenStoreUnavailable("out of memory")

    node.before["cas"] = refuse
    assert store.revoke_instance(instance_uuid, "host1") == 1
    assert [is_valid(store, token) for token in (old, new)] == [False, True]
    node.before["delete"] = refuse
    with pytest.raises(errors.TokenStoreUnavailable):
        store.revoke_instance(instance_uuid, "host2")
    assert is_valid(store, new)


def test_a_memcached_that_cannot_say_how_long_an_item_lives(store: MemcachedStore, node: FakeNode) -> None:
    node.tells_ttl = False
    token = new_uuid()
    store.authorize(token, build_console(new_uuid()), TTL_S)
    assert store.check(token).remaining_s is None


def test_a_token_that_expires_while_it_is_checked(store: MemcachedStore, node: FakeNode) -> None:
    token = new_uuid()
    store.authorize(token, build_console(new_uuid()), TTL_S)
    once(node, "mg", lambda: setattr(node, "now", node.now + TTL_S))
    assert not is_valid(store, token)


def test_garbage_instead_of_an_index_is_replaced(store: MemcachedStore, node: FakeNode) -> None:
    instance_uuid, token = new_uuid(), new_uuid()
    node.set(token_store.instance_key(instance_uuid), b"garbage", TTL_S)
    store.authorize(token, build_console(instance_uuid), TTL_S)
    assert is_valid(store, token)


def test_garbage_instead_of_an_item_is_unknown(store: MemcachedStore, node: FakeNode) -> None:
    token = new_uuid()
    node.set(item_key(token), b"garbage", TTL_S)
    assert not is_valid(store, token)


def test_a_fault_at_any_step_of_authorize_is_said() -> None:
    def fail() -> None:
        raise errors.TokenStoreUnavailable("x")

    for command in ["set", "gets", "add", "cas"]:
        with naming(command):
            node = FakeNode()
            store = MemcachedStore({"only:1": node}, pause=no_pause)
            instance_uuid, token = new_uuid(), new_uuid()
            if command == "cas":
                store.authorize(new_uuid(), build_console(instance_uuid), TTL_S)
            node.before[command] = fail
            with pytest.raises(errors.TokenStoreUnavailable):
                store.authorize(token, build_console(instance_uuid), TTL_S)
            assert not is_valid(store, token)


def test_a_store_that_is_down_is_never_an_unknown_token(store: MemcachedStore, node: FakeNode) -> None:
    """Or a user would throw away a good link (O4)."""
    token, instance_uuid = new_uuid(), new_uuid()
    store.authorize(token, build_console(instance_uuid), TTL_S)
    node.down = True
    with pytest.raises(errors.TokenStoreUnavailable):
        store.check(token)
    with pytest.raises(errors.TokenStoreUnavailable):
        store.check(new_uuid())
    with pytest.raises(errors.TokenStoreUnavailable):
        store.revoke_instance(instance_uuid)
    node.down = False
    assert is_valid(store, token)


def test_a_write_that_was_not_stored_is_no_success(node: FakeNode) -> None:
    """Each of them is checked (O4)."""

    class Refusing(FakeNode):
        def set(self, key: str, value: bytes, expire_s: int) -> bool:
            return False

    with pytest.raises(errors.TokenStoreUnavailable):
        MemcachedStore({"only:1": Refusing()}).authorize(new_uuid(), build_console(new_uuid()), TTL_S)


def test_an_authorize_in_the_midst_of_a_revocation_for_one_host(store: MemcachedStore, node: FakeNode) -> None:
    instance_uuid = new_uuid()
    early, late, new = (build_token(instance_uuid) for _ in range(3))
    store.authorize(early, build_console(instance_uuid), TTL_S)

    def authorize_others() -> None:
        store.authorize(late, build_console(instance_uuid), TTL_S)
        store.authorize(new, build_console(instance_uuid, compute_host="host2"), TTL_S)

    once(node, "cas", authorize_others)
    assert store.revoke_instance(instance_uuid, "host1") == 2
    assert [is_valid(store, token) for token in (early, late, new)] == [False, False, True]


def test_a_token_of_which_nobody_says_for_which_host_it_is_dies(store: MemcachedStore, node: FakeNode) -> None:
    instance_uuid = new_uuid()
    lost, garbled = build_token(instance_uuid), build_token(instance_uuid)
    for token in (lost, garbled):
        store.authorize(token, build_console(instance_uuid, compute_host="host2"), TTL_S)
    node.drop(item_key(lost))
    node.set(item_key(garbled), b"garbage", TTL_S)
    store.revoke_instance(instance_uuid, "host1")
    assert index_of(node, instance_uuid) == []

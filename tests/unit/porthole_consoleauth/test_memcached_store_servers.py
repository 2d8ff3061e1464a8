# SPDX-License-Identifier: Apache-2.0
"""The token store on several memcached servers, and the option that names the servers."""

import pytest
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.model import build_token
from porthole_consoleauth.memcached_servers import build_store, parse_server
from porthole_consoleauth.memcached_store import MemcachedStore
from support.cases import naming
from support.fake_memcached import FakeNode, index_of, no_pause
from support.token_store_contract import TTL_S, TokenStoreContract, build_console, is_valid, new_uuid


@pytest.fixture
def three() -> dict[str, FakeNode]:
    return {f"host{number}:1": FakeNode() for number in range(3)}


class TestMemcachedStoreOnThreeServers(TokenStoreContract):
    @pytest.fixture
    def store(self) -> MemcachedStore:
        return MemcachedStore({f"host{number}:1": FakeNode() for number in range(3)}, pause=no_pause)


def test_the_memory_of_the_servers_that_answer(three: dict[str, FakeNode]) -> None:
    three["host1:1"].down = True
    store = MemcachedStore(three)
    assert store.measure(["host0:1", "host1:1"]) == {"host0:1": three["host0:1"].room}


def authorize_many(store: MemcachedStore, count: int) -> dict[str, str]:
    """Return ``{token: instance}`` of so many instances, with a token as compute makes it for each."""
    tokens = {}
    for instance_uuid in (new_uuid() for _ in range(count)):
        token = build_token(instance_uuid)
        store.authorize(token, build_console(instance_uuid), TTL_S)
        tokens[token] = instance_uuid
    return tokens


def test_keys_spread_over_the_servers_and_stay_there(three: dict[str, FakeNode]) -> None:
    tokens = authorize_many(MemcachedStore(three), 30)
    assert all(node.living() for node in three.values())
    shuffled = MemcachedStore(dict(reversed(three.items())))
    assert all(shuffled.revoke_instance(instance_uuid) == 1 for instance_uuid in tokens.values())


def test_instances_spread_evenly(three: dict[str, FakeNode]) -> None:
    """In keys: two of each instance, and all that one server of three has is about a third."""
    authorize_many(MemcachedStore(three), 900)
    assert all(2 * 240 < len(node.living()) < 2 * 360 for node in three.values())


def test_all_of_an_instance_lives_on_one_server(three: dict[str, FakeNode]) -> None:
    """So whoever loses one server loses its share of the instances, and of the others neither tokens nor indexes."""
    store = MemcachedStore(three)
    instance_uuid = new_uuid()
    for _ in range(30):
        store.authorize(build_token(instance_uuid), build_console(instance_uuid), TTL_S)
    assert sorted(len(node.living()) for node in three.values()) == [0, 0, 31]


def test_the_loss_of_a_server_costs_its_share_and_no_more(three: dict[str, FakeNode]) -> None:
    """What it has is unavailable, never unknown; the tokens of all others open, new ones are issued, old ones die."""
    store = MemcachedStore(three)
    tokens = authorize_many(store, 60)
    lost = three["host0:1"]
    shared = {token: instance for token, instance in tokens.items() if index_of(lost, instance)}
    lost.down = True
    for token, instance_uuid in tokens.items():
        if token in shared:
            with pytest.raises(errors.TokenStoreUnavailable):
                store.check(token)
            with pytest.raises(errors.TokenStoreUnavailable):
                store.revoke_instance(instance_uuid)
        else:
            store.authorize(build_token(instance_uuid), build_console(instance_uuid), TTL_S)
            assert is_valid(store, token)
            assert store.revoke_instance(instance_uuid) == 2
    assert 5 < len(shared) < 35


def test_a_server_that_comes_back_revives_nothing(three: dict[str, FakeNode]) -> None:
    """Without its memory what it had is unknown; with it, what was revoked meanwhile was never said to be."""
    store = MemcachedStore(three)
    tokens = authorize_many(store, 30)
    down = three["host0:1"]
    down.down = True
    unsaid = []
    for token, instance_uuid in tokens.items():
        try:
            store.revoke_instance(instance_uuid)
        except errors.TokenStoreUnavailable:
            unsaid.append(token)
    down.down = False
    assert unsaid
    # The caller repeats what it was not confirmed.
    assert [token for token in tokens if is_valid(store, token)] == unsaid
    assert all(store.revoke_instance(tokens[token]) == 1 for token in unsaid)
    assert not any(is_valid(store, token) for token in tokens)
    down.close()
    assert not any(is_valid(store, token) for token in tokens)


def test_a_token_that_bears_another_slot(three: dict[str, FakeNode]) -> None:
    """A compute of before slots makes those: item and index are on two servers, and all rules hold."""
    store = MemcachedStore(three, pause=no_pause)
    instance_uuid, tokens = new_uuid(), [new_uuid() for _ in range(40)]
    for token in tokens:
        store.authorize(token, build_console(instance_uuid), TTL_S)
    assert all(node.living() for node in three.values())
    assert all(is_valid(store, token) for token in tokens)
    assert store.revoke_instance(instance_uuid, "host2") == 0
    assert store.revoke_instance(instance_uuid, "host1") == 40
    assert not any(is_valid(store, token) for token in tokens)


def test_pruning_does_not_need_every_server(three: dict[str, FakeNode]) -> None:
    store = MemcachedStore(three, pause=no_pause)
    instance_uuid, tokens = new_uuid(), [new_uuid() for _ in range(60)]
    for token in tokens[:10]:
        store.authorize(token, build_console(instance_uuid), TTL_S)
    down = next(node for node in three.values() if not index_of(node, instance_uuid))
    down.down = True
    refused = 0
    for token in tokens[10:]:
        try:
            store.authorize(token, build_console(instance_uuid), TTL_S)
        except errors.TokenStoreUnavailable:
            refused += 1
    down.down = False
    assert 0 < refused < 50
    assert sum(is_valid(store, token) for token in tokens) == 60 - refused


def test_probe_says_of_each_server_whether_it_answers(three: dict[str, FakeNode]) -> None:
    three["host1:1"].down = True
    refusals = MemcachedStore(three).probe()
    assert refusals.pop("host1:1")
    assert refusals == {"host0:1": "", "host2:1": ""}


def test_a_server_is_host_and_port() -> None:
    cases = [
        ("127.0.0.1:11211", ("127.0.0.1", 11211)),
        ("[::1]:11211", ("::1", 11211)),
        ("Cache.Example.org:1", ("cache.example.org", 1)),
    ]
    for text, address in cases:
        with naming(text, address):
            assert parse_server(text) == address


def test_anything_else_names_the_option() -> None:
    cases = ["", "host", "::1", "[::1]", "host:", ":11211", "host:x", "host:0", "host:65536", "a b:1", "unix:/x", "/x"]
    for text in cases:
        with naming(text), pytest.raises(errors.ConfigInvalid, match=r"\[memcache\] servers"):
            parse_server(text)


def build_conf(**overrides: object) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "porthole-test", [], default_config_files=[])
    for name, value in overrides.items():
        conf.set_override(name, value, group="memcache")
    return conf


def test_a_bad_list_of_servers_names_the_option() -> None:
    for servers in [[], ["a:1", "a:1"], ["a:1", "A:1"], ["a:1", "b"]]:
        with naming(servers), pytest.raises(errors.ConfigInvalid, match=r"\[memcache\] servers"):
            build_store(build_conf(servers=servers))


def test_building_the_store_connects_to_nothing() -> None:
    build_store(build_conf(servers=["192.0.2.1:11211", "[2001:db8::1]:11211"])).close()

# SPDX-License-Identifier: Apache-2.0
"""The contract of the token store on real memcached servers."""

from collections.abc import Iterator

import pytest
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_consoleauth.memcached_store import MemcachedStore, build_store
from support.memcached import Memcached
from support.token_store_contract import TokenStoreContract


def connect(*servers: Memcached) -> MemcachedStore:
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "porthole-test", [], default_config_files=[])
    conf.set_override("servers", [server.address for server in servers], group="memcache")
    # Fifty threads on two cores that others use too.
    conf.set_override("timeout", 10.0, group="memcache")
    return build_store(conf)


class TestOneServer(TokenStoreContract):
    @pytest.fixture
    def store(self, memcached: Memcached) -> Iterator[MemcachedStore]:
        store = connect(memcached)
        yield store
        store.close()


class TestTwoServers(TokenStoreContract):
    @pytest.fixture
    def store(self, memcached: Memcached, own_memcached: Memcached) -> Iterator[MemcachedStore]:
        store = connect(memcached, own_memcached)
        yield store
        store.close()

# SPDX-License-Identifier: Apache-2.0
"""One tenant asks for as many URLs as it can get: the store has room for the others, and their URLs open.

The daemons, the broker and memcached are real; memcached is a small one, so that it can be filled.
"""

import base64
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest
import yaml
from oslo_config import cfg

from porthole_cli.doctor.stores import NEARLY_FULL
from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.model import build_token
from porthole_consoleauth.memcached_servers import build_store
from porthole_consoleauth.memcached_store import MemcachedStore
from porthole_consoleauth.token_store import MAX_TOKENS_PER_INSTANCE
from support.console import refusal, token_of
from support.consoleauth import Caller, context, new_uuid, start
from support.daemons import Answer, Porthole
from support.memcached import Memcached
from support.processes import wait_until
from support.token_store_contract import TTL_S, build_console, is_valid
from support.vnc_servers import EchoVnc

PER_MINUTE = 30
# Each of a tenant's instances gets a few URLs: no index is full.
URLS_PER_INSTANCE = 10
CLIENTS = 8


@pytest.fixture
def small_memcached() -> Iterator[Memcached]:
    """With the least memory that memcached takes."""
    with Memcached(["-m", "2"]) as store:
        yield store


@pytest.fixture
def store(small_memcached: Memcached) -> Iterator[MemcachedStore]:
    """Another consoleauth's way to the store, without the bus: a tenant's many requests take seconds so."""
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "porthole-test", [], default_config_files=[])
    conf.set_override("servers", [small_memcached.address], group="memcache")
    conf.set_override("timeout", 10.0, group="memcache")
    store = build_store(conf)
    yield store
    store.close()


def mint(store: MemcachedStore, count: int, instance_uuid: str) -> list[str]:
    """Have ``count`` tokens of the instance authorized by several clients at once."""
    tokens = [build_token(instance_uuid) for _ in range(count)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda token: store.authorize(token, build_console(instance_uuid), TTL_S), tokens))
    return tokens


def test_the_items_of_an_instance_are_bounded(
    make_porthole: Callable[..., Porthole], caller: Caller, small_memcached: Memcached, store: MemcachedStore
) -> None:
    start(make_porthole, memcached=small_memcached)
    others, instance_uuid = [caller.authorize() for _ in range(5)], new_uuid()
    before = small_memcached.stats()["curr_items"]
    tokens = mint(store, 3 * MAX_TOKENS_PER_INSTANCE, instance_uuid)
    tokens.append(caller.authorize(instance_uuid))
    assert small_memcached.stats()["curr_items"] == before + MAX_TOKENS_PER_INSTANCE + 1
    assert all(caller.is_valid(token) for token in [*others, tokens[-1]])
    assert sum(is_valid(store, token) for token in tokens) == MAX_TOKENS_PER_INSTANCE
    assert caller.api.delete_tokens_for_instance(context(), instance_uuid) == MAX_TOKENS_PER_INSTANCE
    assert small_memcached.stats()["curr_items"] == before


def mint_until_full(store: MemcachedStore) -> int:
    """Have tokens authorized, by several clients at once, until the store refuses; return how many there were."""

    def mint_some(_client: int) -> int:
        instance_uuid = new_uuid()
        for count in range(10_000):
            if count % URLS_PER_INSTANCE == 0:
                instance_uuid = new_uuid()
            try:
                store.authorize(build_token(instance_uuid), build_console(instance_uuid), TTL_S)
            except errors.TokenStoreUnavailable:
                return count
        raise AssertionError("the store is never full")

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(mint_some, range(CLIENTS)))


def test_a_full_store_keeps_every_url_and_takes_every_revocation(
    make_porthole: Callable[..., Porthole],
    caller: Caller,
    small_memcached: Memcached,
    store: MemcachedStore,
    report: Callable[[str], None],
) -> None:
    """Full is 503 for a new URL, and no URL is lost; what is revoked is revoked although nothing can be written."""
    porthole = start(make_porthole, memcached=small_memcached)
    others = [caller.authorize() for _ in range(10)]
    moved, stopped = new_uuid(), new_uuid()
    left = [caller.authorize(moved) for _ in range(3)]
    # So many that the index without the others is no small item.
    arrived = [caller.authorize(moved, compute_host="host2") for _ in range(10)]
    ended = [caller.authorize(stopped) for _ in range(3)]
    count = mint_until_full(store)
    small_memcached.fill()
    statistics = small_memcached.stats()
    report(f"{count} tokens of one tenant fill 2 MiB; evictions: {statistics['evictions']}")
    with pytest.raises(errors.TokenStoreUnavailable):
        caller.authorize()
    assert statistics["evictions"] == 0
    # What the doctor asks.
    room = caller.api.describe_store(context(), porthole.host).rooms[small_memcached.address]
    assert (room.evicts, room.evictions, room.refusals > 0) == (False, 0, True)
    assert room.used_bytes > NEARLY_FULL * room.limit_bytes
    assert all(caller.is_valid(token) for token in [*others, *left, *arrived, *ended])
    assert caller.api.delete_tokens_for_instance(context(), moved, "host1") == len(left)
    assert caller.api.delete_tokens_for_instance(context(), stopped) == len(ended)
    assert not any(caller.is_valid(token) for token in [*left, *ended])
    assert all(caller.is_valid(token) for token in [*others, *arrived])
    small_memcached.command("flush_all")
    assert caller.works()


class Cloud:
    """The four daemons, and users with a password and an instance each; ``root`` is an administrator."""

    def __init__(self, porthole: Porthole, instances: Mapping[str, str]) -> None:
        self.porthole = porthole
        self._instances = instances

    def ask(self, user: str, owner: str | None = None) -> Answer:
        """Ask for a console of the user's instance, or of that of ``owner``."""
        body = json.dumps({"os-getVNCConsole": {"type": "novnc"}}).encode()
        return self._send(user, f"/v2.1/servers/{self._instances[owner or user]}/action", body)

    def knows(self, user: str) -> bool:
        return self._send(user, f"/v2.1/servers/{self._instances[user]}").status == 200

    def _send(self, user: str, path: str, body: bytes | None = None) -> Answer:
        credentials = base64.b64encode(f"{user}:{user}".encode()).decode()
        return self.porthole.send(path, body, {"Authorization": f"Basic {credentials}"})


@pytest.fixture
def echo() -> Iterator[EchoVnc]:
    server = EchoVnc()
    yield server
    server.stop()


@pytest.fixture
def cloud(make_porthole: Callable[..., Porthole], small_memcached: Memcached, tmp_path: Path, echo: EchoVnc) -> Cloud:
    users = tmp_path / "htpasswd"
    users.write_text(
        "".join(
            f"{name}:{bcrypt.hashpw(name.encode(), bcrypt.gensalt(4)).decode()}\n" for name in ("rita", "bert", "root")
        ),
        encoding="ascii",
    )
    instances = {name: str(uuid.uuid4()) for name in ("rita", "bert")}
    path = tmp_path / "instances.yaml"
    entries = [
        {
            "uuid": uuid_,
            "name": f"{name}-1",
            "host": "127.0.0.1",
            "port": echo.port,
            "project_id": name,
            "user_id": name,
        }
        for name, uuid_ in instances.items()
    ]
    path.write_text(yaml.safe_dump({"instances": entries}), encoding="utf-8")
    api = {
        "auth_strategy": "http_basic",
        "http_basic_auth_user_file": users,
        "admin_users": "root",
        "max_consoles_per_minute": PER_MINUTE,
    }
    cloud = Cloud(make_porthole(memcached=small_memcached, instances_file=path, options={"api": api}), instances)
    wait_until(lambda: all(cloud.knows(name) for name in instances), 30, "the api to know the instances")
    return cloud


def test_a_user_who_asks_for_too_many_urls_waits_and_the_others_do_not(cloud: Cloud) -> None:
    earlier = cloud.ask("bert")
    assert earlier.status == 200
    answers = [cloud.ask("rita") for _ in range(2 * PER_MINUTE)]
    given = [answer.status for answer in answers].count(200)
    # Some may come back while the others are asked for.
    assert PER_MINUTE <= given < 2 * PER_MINUTE
    refused = next(answer for answer in answers if answer.status != 200)
    assert refused.status == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60 / PER_MINUTE
    fault = json.loads(refused.body)["overLimit"]
    assert fault["code"] == 429
    assert "[api] max_consoles_per_minute" in fault["message"]
    # Another user, an administrator, and the URL from before.
    assert cloud.ask("bert").status == 200
    assert [cloud.ask("root", "rita").status for _ in range(PER_MINUTE + 5)] == [200] * (PER_MINUTE + 5)
    token = token_of(json.loads(earlier.body)["console"]["url"])
    assert refusal(cloud.porthole.novnc_port, token) == 101
    wait_until(lambda: cloud.ask("rita").status == 200, 30, "the user to be let in again")

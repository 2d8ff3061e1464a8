# SPDX-License-Identifier: Apache-2.0
"""porthole-consoleauth as a process, with a real RabbitMQ and a real memcached, called over RPC."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from porthole_common import errors, notifications
from porthole_common.model import ConnectInfo, ConsoleType, TokenReason
from porthole_consoleauth.token_store import hash_token, token_key
from support.consoleauth import OPTIONS, RPC_TIMEOUT_S, Caller, context, new_uuid, start
from support.daemons import Porthole
from support.memcached import Memcached
from support.processes import wait_until
from support.rabbitmq import RabbitMQ
from support.token_store_contract import JUNK_TOKENS


def test_the_life_of_a_token(make_porthole: Callable[..., Porthole], caller: Caller) -> None:
    porthole = start(make_porthole)
    info = ConnectInfo(
        instance_uuid=new_uuid(),
        console_type=ConsoleType.XVPVNC,
        host="2001:db8::1",
        port=5999,
        access_url="https://proxy:6081/console?token=x",
        compute_host="host1",
        internal_access_path="/some/path",
        token=new_uuid(),
    )
    assert info.token
    before = datetime.now(UTC)
    expires_at = caller.api.authorize_console(context(), info).expires_at
    # token_ttl, and at most as long as the call may take.
    assert 599 < (expires_at - before).total_seconds() < 600 + RPC_TIMEOUT_S
    found = caller.api.check_token(context(), info.token)
    assert (found.target, found.instance_uuid, found.console_type) == (
        info.target,
        info.instance_uuid,
        info.console_type,
    )
    assert (found.internal_access_path, found.compute_host) == ("/some/path", "host1")
    assert (found.expires_at, found.token, found.access_url) == (expires_at, None, "https://proxy:6081")
    assert caller.api.delete_tokens_for_instance(context(), info.instance_uuid) == 1
    assert not caller.is_valid(info.token)
    assert info.token not in porthole.logs()


def test_the_clear_token_is_nowhere_in_the_store(
    make_porthole: Callable[..., Porthole], caller: Caller, own_memcached: Memcached
) -> None:
    start(make_porthole, memcached=own_memcached)
    token = caller.authorize()
    dump = own_memcached.command("lru_crawler metadump all")
    keys = [line.split()[0].removeprefix("key=") for line in dump.splitlines() if line.startswith("key=")]
    assert len(keys) == 2
    content = dump + "".join(own_memcached.command(f"get {key.replace('%3A', ':')}") for key in keys)
    assert "192.0.2.1" in content
    assert token not in content


def test_a_token_expires(make_porthole: Callable[..., Porthole], caller: Caller) -> None:
    start(make_porthole, options={**OPTIONS, "consoleauth": {"token_ttl": 2}})
    token = caller.authorize()
    assert caller.is_valid(token)
    wait_until(lambda: not caller.is_valid(token), 30, "the token's end")


def test_a_revocation_reaches_subscribers(
    make_porthole: Callable[..., Porthole], caller: Caller, rabbitmq: RabbitMQ
) -> None:
    start(make_porthole)
    heard: list[notifications.Revocation] = []
    server = caller.rpc.get_server(
        notifications.REVOCATIONS_TOPIC, "test-proxy", [notifications.RevocationEndpoint(heard.append)]
    )
    server.start()
    instance_uuid = new_uuid()
    caller.authorize(instance_uuid)
    caller.api.delete_tokens_for_instance(context(), instance_uuid)
    wait_until(lambda: heard == [notifications.Revocation(instance_uuid)], 30, "the revocation")
    server.stop()


def test_junk_tokens_never_reach_memcached(
    make_porthole: Callable[..., Porthole], caller: Caller, own_memcached: Memcached
) -> None:
    """Counted by memcached itself (S19)."""
    start(make_porthole, memcached=own_memcached)
    caller.authorize()
    names = ("cmd_get", "cmd_set", "cmd_touch", "cmd_flush")
    before = own_memcached.stats()
    for token in JUNK_TOKENS:
        with pytest.raises(errors.TokenInvalid) as caught:
            caller.api.check_token(context(), token)
        assert caught.value.reason == TokenReason.MALFORMED
    after = own_memcached.stats()
    assert {name: after[name] for name in names} == {name: before[name] for name in names}


def test_an_instance_as_token_opens_nothing(make_porthole: Callable[..., Porthole], caller: Caller) -> None:
    """Though both are UUIDs (S19)."""
    start(make_porthole)
    instance_uuid = new_uuid()
    caller.authorize(instance_uuid)
    assert not caller.is_valid(instance_uuid)


def test_fifty_authorizes_and_a_revocation(make_porthole: Callable[..., Porthole], caller: Caller) -> None:
    """O5: no token that was given out before the revocation began passes after it."""
    porthole = start(make_porthole)
    porthole.add("consoleauth", "consoleauth2", {"DEFAULT": {"host": "host-b"}})
    porthole.start_daemon("consoleauth2")
    instance_uuid = new_uuid()
    tokens: list[str] = []
    enough = threading.Event()

    def authorize(_number: int) -> None:
        tokens.append(caller.authorize(instance_uuid))
        if len(tokens) == 25:
            enough.set()

    with ThreadPoolExecutor(50) as pool:
        done = [pool.submit(authorize, number) for number in range(50)]
        assert enough.wait(30)
        earlier = list(tokens)
        caller.api.delete_tokens_for_instance(context(), instance_uuid)
        assert not any(caller.is_valid(token) for token in earlier)
    for future in done:
        future.result(60)
    assert len(tokens) == 50
    assert not any(caller.is_valid(token) for token in earlier)
    caller.api.delete_tokens_for_instance(context(), instance_uuid)
    assert not any(caller.is_valid(token) for token in tokens)


def test_two_consoleauths_are_one(make_porthole: Callable[..., Porthole], caller: Caller) -> None:
    """O3: 200 of 200 tokens work whoever answers; then one dies, then both restart."""
    porthole = start(make_porthole)
    second = porthole.add("consoleauth", "consoleauth2", {"DEFAULT": {"host": "host-b"}})
    porthole.start_daemon("consoleauth2")
    tokens = [caller.authorize() for _ in range(200)]
    assert all(caller.is_valid(token) for token in tokens)
    assert all("Console token authorized" in process.log() for process in (porthole.consoleauth, second))
    second.kill()
    # What was on its way to the dead one may be lost with it; what the broker knows of its end goes to the other.
    wait_until(caller.works, 30, "the one that is left")
    assert all(caller.is_valid(token) for token in tokens)
    porthole.consoleauth.stop()
    porthole.start_daemon("consoleauth2")
    porthole.start_daemon("consoleauth")
    assert all(caller.is_valid(token) for token in tokens)


def test_garbage_in_the_store(make_porthole: Callable[..., Porthole], caller: Caller, own_memcached: Memcached) -> None:
    porthole = start(make_porthole, memcached=own_memcached)
    token = new_uuid()
    key = token_key(hash_token(token))
    assert own_memcached.command(f"set {key} 0 60 4\r\njunk") == "STORED\r\n"
    assert not caller.is_valid(token)
    assert "Foreign token item found in the store" in porthole.consoleauth.log()


@pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "localhost"), ("::1", "[::1]")])
def test_a_server_by_name_and_by_ipv6(
    make_porthole: Callable[..., Porthole], caller: Caller, host: str, name: str
) -> None:
    with Memcached(host=host) as store:
        options = {**OPTIONS, "memcache": {"servers": f"{name}:{store.port}"}}
        start(make_porthole, memcached=store, options=options)
        assert caller.works()


def test_calls_make_no_new_connections(
    make_porthole: Callable[..., Porthole],
    own_rabbitmq: RabbitMQ,
    make_caller: Callable[[RabbitMQ], Caller],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """200 of them, 20 at a time (O2)."""
    porthole = start(make_porthole, rabbitmq=own_rabbitmq)
    caller = make_caller(own_rabbitmq)
    assert caller.works()
    before = own_rabbitmq.connection_count()
    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(lambda _: caller.works(), range(200)))
    # A connection that broke and stands again counts twice for a moment.
    wait_until(lambda: own_rabbitmq.connection_count() == before, 30, f"{before} connections to the broker")
    # Threads that take turns at the one connection are in order, and no reason to warn.
    assert "Connection pool limit exceeded" not in porthole.logs() + caplog.text


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("DEFAULT", "transport_url", "fake://"),
        ("DEFAULT", "transport_url", "nonsense://guest:secret@host/"),
        ("memcache", "servers", "no-port"),
        ("memcache", "servers", "a:1,a:1"),
        ("consoleauth", "token_ttl", "0"),
    ],
)
def test_a_bad_option_is_named_at_the_start(
    make_porthole: Callable[..., Porthole], group: str, name: str, value: str
) -> None:
    porthole = start(make_porthole, daemons=[], options={group: {name: value}})
    porthole.consoleauth.start()
    assert porthole.consoleauth.wait(30) == 78
    assert name in porthole.consoleauth.log()
    assert "Traceback" not in porthole.consoleauth.log()
    assert "secret" not in porthole.consoleauth.log()

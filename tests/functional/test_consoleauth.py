# SPDX-License-Identifier: Apache-2.0
"""porthole-consoleauth as a process, with a real RabbitMQ and a real memcached, called over RPC."""

import functools
import gc
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from oslo_config import cfg

from porthole_common import errors, notifications
from porthole_common.context import RequestContext
from porthole_common.model import ConnectInfo, ConsoleType, TokenReason, build_token
from porthole_common.rpc import Rpc
from porthole_consoleauth.rpcapi import ConsoleAuthAPI
from porthole_consoleauth.token_store import hash_token, token_key
from support.bus import parse_global_conf
from support.daemons import Porthole
from support.deadlines import MACHINE_SLACK_S
from support.memcached import Memcached
from support.processes import wait_until
from support.rabbitmq import RabbitMQ
from support.token_store_contract import JUNK_TOKENS

# py-amqp leaves the socket of a connection that broke to the garbage collector, which would warn of it in the middle of
# some other test: it is made to do so here, where it is expected.
pytestmark = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

RPC_TIMEOUT_S = 4
OPTIONS = {"rpc": {"call_timeout": RPC_TIMEOUT_S}, "memcache": {"timeout": 0.5, "connect_timeout": 0.5}}


def context() -> RequestContext:
    return RequestContext(user_id="user1", project_id="project1", overwrite=False)


def new_uuid() -> str:
    return str(uuid.uuid4())


class Caller:
    """Another service's side of the RPC: one Rpc, as each process has one."""

    def __init__(self, broker: RabbitMQ) -> None:
        self.rpc = Rpc(cfg.CONF, RPC_TIMEOUT_S, transport_url=broker.transport_url)
        self.api = ConsoleAuthAPI(self.rpc)

    def authorize(self, instance_uuid: str | None = None, **changes: Any) -> str:
        """Have a new token authorized and return it."""
        instance_uuid = instance_uuid or new_uuid()
        values: dict[str, Any] = {
            "instance_uuid": instance_uuid,
            "console_type": ConsoleType.NOVNC,
            "host": "192.0.2.1",
            "port": 5901,
            "access_url": "http://proxy:6080/console.html",
            "compute_host": "host1",
            "token": build_token(instance_uuid),
            **changes,
        }
        self.api.authorize_console(context(), ConnectInfo(**values))
        return str(values["token"])

    def is_valid(self, token: str) -> bool:
        """Say whether the token opens something; whatever is not "unknown" is raised."""
        try:
            self.api.check_token(context(), token)
        except errors.TokenInvalid as exc:
            if exc.reason != TokenReason.UNKNOWN:
                raise
            return False
        return True

    def works(self) -> bool:
        """Say whether a token can be had and used now."""
        try:
            return self.is_valid(self.authorize())
        except errors.Unavailable:
            return False


@pytest.fixture
def collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def make_caller() -> Iterator[Callable[[RabbitMQ], Caller]]:
    made: list[Caller] = []
    parse_global_conf()

    def make(broker: RabbitMQ) -> Caller:
        made.append(Caller(broker))
        return made[-1]

    yield make
    for caller in made:
        caller.rpc.close()
    cfg.CONF.reset()


@pytest.fixture
def caller(rabbitmq: RabbitMQ, make_caller: Callable[[RabbitMQ], Caller]) -> Caller:
    return make_caller(rabbitmq)


def start(make_porthole: Callable[..., Porthole], **arguments: Any) -> Porthole:
    return make_porthole(**{"daemons": ["consoleauth"], "options": OPTIONS, **arguments})


def timed(call: Callable[[], object]) -> tuple[float, Exception | None]:
    """Return how long ``call`` took, in seconds, and the Porthole error that it raised."""
    begin = time.monotonic()
    try:
        call()
    except errors.PortholeError as exc:
        return time.monotonic() - begin, exc
    return time.monotonic() - begin, None


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
    expires_at = caller.api.authorize_console(context(), info)
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


def assert_store_unavailable(caller: Caller, token: str) -> None:
    """Each method says in time that the store is unavailable, and never that a token is unknown."""
    for call in (
        caller.authorize,
        lambda: caller.api.check_token(context(), token),
        lambda: caller.api.check_token(context(), new_uuid()),
        lambda: caller.api.delete_tokens_for_instance(context(), new_uuid()),
    ):
        # Had it not come in time, the error would be RpcUnavailable.
        error = timed(call)[1]
        assert isinstance(error, errors.TokenStoreUnavailable), error


def test_memcached_stops_and_comes_back(
    make_porthole: Callable[..., Porthole], caller: Caller, own_memcached: Memcached
) -> None:
    """Unavailable is not unknown (O4)."""
    start(make_porthole, memcached=own_memcached)
    token = caller.authorize()
    own_memcached.stop()
    assert_store_unavailable(caller, token)
    own_memcached.start()
    # Not one request is lost to a connection that died with the old memcached.
    assert all(caller.is_valid(caller.authorize()) for _ in range(20))
    assert not caller.is_valid(token)


def test_memcached_restarts_between_two_requests(
    make_porthole: Callable[..., Porthole], caller: Caller, own_memcached: Memcached
) -> None:
    start(make_porthole, memcached=own_memcached)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: caller.authorize(), range(64)))
    own_memcached.restart()
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: caller.is_valid(caller.authorize()), range(64)))


def test_memcached_hangs_and_goes_on(
    make_porthole: Callable[..., Porthole], caller: Caller, own_memcached: Memcached
) -> None:
    """Slow is not gone (O4)."""
    start(make_porthole, memcached=own_memcached)
    instance_uuid = new_uuid()
    token = caller.authorize(instance_uuid)
    own_memcached.pause()
    try:
        assert_store_unavailable(caller, token)
    finally:
        own_memcached.resume()
    assert caller.is_valid(token)
    assert caller.works()
    assert caller.api.delete_tokens_for_instance(context(), instance_uuid) == 1


def test_memcached_absent_at_the_start(
    make_porthole: Callable[..., Porthole], caller: Caller, own_memcached: Memcached
) -> None:
    own_memcached.stop()
    porthole = start(make_porthole, memcached=own_memcached)
    assert own_memcached.address in porthole.consoleauth.log()
    assert_store_unavailable(caller, new_uuid())
    own_memcached.start()
    assert caller.works()


def test_memcached_that_is_full(make_porthole: Callable[..., Porthole], caller: Caller) -> None:
    """With -M memcached refuses to store rather than forget: no URL for the new token, and the old one lives (O4)."""
    with Memcached(["-m", "2", "-M"]) as store:
        start(make_porthole, memcached=store)
        token = caller.authorize()
        store.fill()
        assert isinstance(timed(caller.authorize)[1], errors.TokenStoreUnavailable)
        assert caller.is_valid(token)
        store.command("flush_all")
        assert caller.works()


def test_memcached_that_forgets(make_porthole: Callable[..., Porthole], caller: Caller) -> None:
    """A token that was evicted is unknown, and a new one works at once (O4)."""
    with Memcached(["-m", "2"]) as store:
        start(make_porthole, memcached=store)
        token = caller.authorize()
        store.fill()
        assert store.stats()["evictions"] > 0
        assert not caller.is_valid(token)
        assert caller.works()


def test_garbage_in_the_store(make_porthole: Callable[..., Porthole], caller: Caller, own_memcached: Memcached) -> None:
    porthole = start(make_porthole, memcached=own_memcached)
    token = new_uuid()
    key = token_key(hash_token(token))
    assert own_memcached.command(f"set {key} 0 60 4\r\njunk") == "STORED\r\n"
    assert not caller.is_valid(token)
    assert "Foreign token item found in the store" in porthole.consoleauth.log()


@pytest.mark.parametrize("loss", ["stopped", "frozen"])
def test_the_loss_of_one_server_of_two_costs_its_instances_alone(
    make_porthole: Callable[..., Porthole], caller: Caller, loss: str
) -> None:
    """Theirs are unavailable, never unknown; the others' tokens are issued, open and die as if nothing were."""
    with Memcached() as first, Memcached() as second:
        start(make_porthole, memcached=[first, second])
        tokens = {new_uuid(): "" for _ in range(24)}
        for instance_uuid in tokens:
            tokens[instance_uuid] = caller.authorize(instance_uuid)
        shares = [store.stats()["curr_items"] // 2 for store in (first, second)]
        assert sum(shares) == 24
        assert min(shares) > 2
        second.stop() if loss == "stopped" else second.pause()
        lost = []
        for instance_uuid, token in tokens.items():
            error = timed(functools.partial(caller.api.check_token, context(), token))[1]
            if error is not None:
                assert isinstance(error, errors.TokenStoreUnavailable)
                lost.append(instance_uuid)
                continue
            assert caller.is_valid(caller.authorize(instance_uuid))
            assert caller.api.delete_tokens_for_instance(context(), instance_uuid) == 2
            assert not caller.is_valid(token)
        assert len(lost) == shares[1]
        second.start() if loss == "stopped" else second.resume()
        # A server that was restarted is empty; one that was frozen has what it had. Neither revives what is dead.
        assert {i for i, token in tokens.items() if caller.is_valid(token)} == set(lost if loss == "frozen" else [])
        assert all(caller.is_valid(caller.authorize(instance_uuid)) for instance_uuid in tokens)


@pytest.mark.parametrize(("host", "name"), [("127.0.0.1", "localhost"), ("::1", "[::1]")])
def test_a_server_by_name_and_by_ipv6(
    make_porthole: Callable[..., Porthole], caller: Caller, host: str, name: str
) -> None:
    with Memcached(host=host) as store:
        options = {**OPTIONS, "memcache": {"servers": f"{name}:{store.port}"}}
        start(make_porthole, memcached=store, options=options)
        assert caller.works()


def test_the_broker_restarts(
    make_porthole: Callable[..., Porthole], own_rabbitmq: RabbitMQ, make_caller: Callable[[RabbitMQ], Caller]
) -> None:
    porthole = start(make_porthole, rabbitmq=own_rabbitmq)
    caller = make_caller(own_rabbitmq)
    token = caller.authorize()
    own_rabbitmq.restart()
    wait_until(caller.works, 60, "consoleauth back on the bus", porthole.consoleauth.log)
    assert caller.is_valid(token)
    assert porthole.consoleauth.running


def assert_rpc_unavailable(caller: Caller) -> None:
    for call in (
        lambda: caller.api.check_token(context(), new_uuid()),
        lambda: notifications.RevocationPublisher(caller.rpc).publish(context(), notifications.Revocation(new_uuid())),
    ):
        seconds, error = timed(call)
        assert isinstance(error, errors.RpcUnavailable), error
        assert seconds < RPC_TIMEOUT_S + MACHINE_SLACK_S


@pytest.mark.parametrize("state", ["stopped", "frozen"])
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "unconnected"])
def test_a_call_ends_at_its_deadline_whatever_the_broker_does(
    make_porthole: Callable[..., Porthole],
    own_rabbitmq: RabbitMQ,
    make_caller: Callable[[RabbitMQ], Caller],
    state: str,
    connected: bool,
) -> None:
    """Never at oslo.messaging's 60 s (O11)."""
    porthole = start(make_porthole, rabbitmq=own_rabbitmq)
    caller = make_caller(own_rabbitmq)
    if connected:
        assert caller.works()
    if state == "stopped":
        own_rabbitmq.stop()
    else:
        own_rabbitmq.pause()
    try:
        assert_rpc_unavailable(caller)
        threads = threading.active_count()
        with ThreadPoolExecutor(20) as pool:
            ends = list(pool.map(lambda _: timed(caller.authorize), range(20)))
        assert all(
            isinstance(error, errors.RpcUnavailable) and seconds < RPC_TIMEOUT_S + MACHINE_SLACK_S
            for seconds, error in ends
        )
        assert threading.active_count() <= threads + 20
    finally:
        if state == "stopped":
            own_rabbitmq.start()
        else:
            own_rabbitmq.resume()
    wait_until(caller.works, 60, "calls get through again", porthole.consoleauth.log)


def test_a_call_while_nobody_serves(rabbitmq: RabbitMQ, caller: Caller) -> None:
    seconds, error = timed(lambda: caller.api.check_token(context(), new_uuid()))
    assert isinstance(error, errors.RpcUnavailable)
    assert seconds < RPC_TIMEOUT_S + MACHINE_SLACK_S


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


@pytest.mark.parametrize("state", ["running", "stopped", "frozen", "never there"])
def test_sigterm_ends_the_daemon_whatever_the_broker_does(
    make_porthole: Callable[..., Porthole], own_rabbitmq: RabbitMQ, state: str
) -> None:
    if state == "never there":
        own_rabbitmq.stop()
        porthole = start(make_porthole, rabbitmq=own_rabbitmq, daemons=[])
        porthole.consoleauth.start()
        porthole.consoleauth.wait_for_line("Message broker unusable")
    else:
        porthole = start(make_porthole, rabbitmq=own_rabbitmq)
    if state == "stopped":
        own_rabbitmq.stop()
    elif state == "frozen":
        own_rabbitmq.pause()
    try:
        porthole.consoleauth.signal(signal.SIGTERM)
        assert porthole.consoleauth.wait(15) == 0
    finally:
        own_rabbitmq.resume()


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

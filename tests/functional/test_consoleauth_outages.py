# SPDX-License-Identifier: Apache-2.0
"""porthole-consoleauth while memcached or the broker is stopped, hangs, is full or restarts."""

import functools
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from porthole_common import errors, notifications
from support.consoleauth import RPC_TIMEOUT_S, Caller, context, new_uuid, start
from support.daemons import Porthole
from support.deadlines import MACHINE_SLACK_S
from support.memcached import Memcached
from support.processes import wait_until
from support.rabbitmq import RabbitMQ

# py-amqp leaves the socket of a connection that broke to the garbage collector, which would warn of it in the middle of
# some other test: it is made to do so here, where it is expected.
pytestmark = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


def timed(call: Callable[[], object]) -> tuple[float, Exception | None]:
    """Return how long ``call`` took, in seconds, and the Porthole error that it raised."""
    begin = time.monotonic()
    try:
        call()
    except errors.PortholeError as exc:
        return time.monotonic() - begin, exc
    return time.monotonic() - begin, None


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
    with Memcached(["-m", "2"]) as store:
        start(make_porthole, memcached=store)
        token = caller.authorize()
        store.fill()
        assert isinstance(timed(caller.authorize)[1], errors.TokenStoreUnavailable)
        assert caller.is_valid(token)
        store.command("flush_all")
        assert caller.works()


def test_memcached_that_forgets(make_porthole: Callable[..., Porthole], caller: Caller) -> None:
    """A token that was evicted is unknown, and a new one works at once (O4)."""
    with Memcached(["-m", "2"], evicts=True) as store:
        porthole = start(make_porthole, memcached=store)
        token = caller.authorize()
        store.fill()
        assert store.stats()["evictions"] > 0
        room = caller.api.describe_store(context(), porthole.host).rooms[store.address]
        assert (room.evicts, room.evictions > 0) == (True, True)
        assert not caller.is_valid(token)
        assert caller.works()


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

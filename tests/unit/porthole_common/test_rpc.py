# SPDX-License-Identifier: Apache-2.0
import contextlib
import inspect
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from oslo_config import cfg
from oslo_context import context as oslo_context

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.deadline import Deadline
from porthole_common.rpc import (
    Rpc,
    RpcClient,
    RpcTarget,
    expected_exceptions,
)
from porthole_common.rpc_client import GRACE_S
from porthole_common.thread_pool import ThreadPool
from support.bus import across_the_wire, fake_bus
from support.scrapes import Growth

TOPIC = "test-topic"
BRANCHES = {"PortholeError", "NotFound", "Refused", "Conflict", "Unavailable", "ProtocolError"}
LEAVES = [
    value
    for name, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, errors.PortholeError) and name not in BRANCHES
]


def build(leaf: type[errors.PortholeError]) -> errors.PortholeError:
    return leaf(*[7 if field.type is int else f"{field.name}-1" for field in fields(leaf)])


class Endpoint:
    """A far side that says what it saw, and raises what it is given."""

    target = RpcTarget(version="1.3")

    def __init__(self) -> None:
        self.published: list[str] = []
        self.arrived = threading.Event()
        self.release = threading.Event()

    def echo(self, context: RequestContext, text: str) -> dict[str, Any]:
        return {"text": text, "user_id": context.user_id, "request_id": context.request_id}

    @expected_exceptions(errors.PortholeError)
    def refuse(self, context: RequestContext, name: str) -> None:
        raise build(getattr(errors, name))

    def fail(self, context: RequestContext) -> None:
        raise ValueError("a programming error")

    def hang(self, context: RequestContext) -> None:
        self.release.wait(30)

    def note(self, context: RequestContext, text: str) -> None:
        self.published.append(text)
        self.arrived.set()


# For the module: a server on fake:// takes a second to stop.
@pytest.fixture(scope="module")
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture(scope="module")
def rpc(endpoint: Endpoint) -> Iterator[Rpc]:
    with fake_bus() as bus:
        server = bus.get_server(TOPIC, "host1", [endpoint])
        server.start()
        yield bus
        endpoint.release.set()
        server.stop()


@pytest.fixture(scope="module")
def impatient(rpc: Rpc) -> Iterator[Rpc]:
    """Another process's way to the same topics, with a short deadline."""
    with fake_bus(timeout_s=0.05) as bus:
        yield bus


@pytest.fixture
def client(rpc: Rpc) -> RpcClient:
    return rpc.get_client(TOPIC, "1.0")


def context() -> RequestContext:
    return RequestContext(user_id="u1", overwrite=False)


def test_call_carries_arguments_context_and_result(client: RpcClient) -> None:
    asker = context()
    answer = client.call(asker, "echo", text="x")
    assert answer == {"text": "x", "user_id": "u1", "request_id": asker.request_id}


def test_call_of_one_server(client: RpcClient) -> None:
    assert client.call(context(), "echo", server="host1", text="x")["text"] == "x"


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_error_of_the_tree_crosses(client: RpcClient, leaf: type[errors.PortholeError]) -> None:
    sent = build(leaf)
    with pytest.raises(leaf) as caught:
        client.call(context(), "refuse", name=leaf.__name__)
    assert type(caught.value) is leaf
    assert caught.value.values() == sent.values()


def test_text_of_a_remote_error_has_no_traceback(client: RpcClient) -> None:
    with pytest.raises(errors.InstanceNotFound) as caught:
        client.call(context(), "refuse", name="InstanceNotFound")
    assert str(caught.value) == "Instance instance_uuid-1 could not be found."
    assert "refuse" not in "".join(traceback.format_exception_only(caught.value))


class OsloClient:
    """Stands in for oslo.messaging's client on RabbitMQ: what it raises came across the wire."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def call(self, context: RequestContext, method: str, **arguments: Any) -> None:
        raise across_the_wire(self._error)


def call_that_raises(error: Exception) -> Exception:
    workers = ThreadPool("test", 1)
    with pytest.raises(errors.PortholeError) as caught:
        RpcClient(OsloClient(error), TOPIC, workers, 10).call(context(), "m")
    workers.close()
    return caught.value


class NotingClient:
    """Stands in for oslo.messaging's client: notes whose request its thread serves, as its log lines would say."""

    def __init__(self) -> None:
        self.seen: list[oslo_context.RequestContext | None] = []

    def call(self, context: RequestContext, method: str) -> None:
        self.seen.append(oslo_context.get_current())
        if method == "fail":
            raise TimeoutError


def test_what_a_library_logs_of_a_call_is_of_its_request(caplog: pytest.LogCaptureFixture) -> None:
    asker, library, workers = context(), NotingClient(), ThreadPool("test", 1)
    asker.resource_uuid = "i-1"
    client = RpcClient(library, TOPIC, workers, 10)
    client.call(asker, "m")
    with pytest.raises(errors.RpcUnavailable):
        client.call(asker, "fail")
    assert library.seen == [asker, asker]
    assert workers.run(oslo_context.get_current, Deadline(10)) is None
    workers.close()
    (record,) = caplog.records
    assert record.getMessage() == f"RPC not answered instance=i-1 topic={TOPIC} method=fail error=TimeoutError"
    assert vars(record)["context"] is asker


def test_calls_of_a_sequence_are_made_in_one_thread_which_serves_their_request(rpc: Rpc) -> None:
    asker, library = context(), NotingClient()
    client = RpcClient(library, TOPIC, ThreadPool("unused", 0), 10)

    def work(deadline: Deadline) -> str:
        client.call(asker, "first", deadline=deadline)
        client.call(asker, "second", deadline=deadline)
        return threading.current_thread().name

    assert rpc.run(asker, work, calls=2) != threading.current_thread().name
    assert library.seen == [asker, asker]


def test_an_error_of_a_sequence_is_the_callers(rpc: Rpc, client: RpcClient) -> None:
    asker = context()
    with pytest.raises(errors.InstanceNotFound):
        rpc.run(
            asker, lambda deadline: client.call(asker, "refuse", deadline=deadline, name="InstanceNotFound"), calls=1
        )


class StuckClient:
    """Stands in for oslo.messaging's client while the broker is away."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def call(self, context: RequestContext, method: str) -> None:
        self.release.wait(30)


def test_a_call_whose_request_was_given_up_is_unavailable_whatever_it_returned(rpc: Rpc) -> None:
    """No further step begins: the client has been answered."""
    asker, deadline = context(), Deadline()
    library = NotingClient()
    client = RpcClient(library, TOPIC, ThreadPool("unused", 0), 10)
    deadline.give_up()
    for method in ("m", "fail"):
        with pytest.raises(errors.RpcUnavailable) as caught:
            client.call(asker, method, deadline=deadline)
        assert (caught.value.topic, caught.value.method) == (TOPIC, method)


def test_a_call_tells_the_deadline_what_the_request_waits_for() -> None:
    asker, deadline, seen = context(), Deadline(), []

    class Library:
        def call(self, context: RequestContext, method: str) -> None:
            seen.append((deadline.due_at - time.monotonic(), deadline.waits_for))

    RpcClient(Library(), TOPIC, ThreadPool("unused", 0), 10).call(asker, "m", deadline=deadline)
    ((left_s, late),) = seen
    assert 5 < left_s <= 10 + GRACE_S
    assert isinstance(late, errors.RpcUnavailable)
    assert (late.topic, late.method) == (TOPIC, "m")


def test_a_sequence_that_is_stuck_in_a_call_leaves_its_caller_at_the_deadline_of_that(rpc: Rpc) -> None:
    asker, stuck = context(), StuckClient()
    client = RpcClient(stuck, TOPIC, ThreadPool("unused", 0), 0.05)
    begun = time.monotonic()
    with pytest.raises(errors.RpcUnavailable):
        rpc.run(asker, lambda deadline: client.call(asker, "m", deadline=deadline), calls=2)
    assert 0.05 + GRACE_S <= time.monotonic() - begun < 10
    stuck.release.set()


def test_a_sequence_that_is_stuck_leaves_its_caller_at_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    asker, stuck = context(), StuckClient()
    client = RpcClient(stuck, TOPIC, ThreadPool("unused", 0), 30)
    with fake_bus(timeout_s=0.05) as impatient:
        begun = time.monotonic()
        with pytest.raises(errors.RpcUnavailable) as caught:
            impatient.run(asker, lambda deadline: client.call(asker, "m", deadline=deadline), calls=2)
        assert 2 * 0.05 + GRACE_S <= time.monotonic() - begun < 10
        stuck.release.set()
    assert (caught.value.topic, caught.value.method) == (TOPIC, "m")
    (record,) = [record for record in caplog.records if record.getMessage().startswith("RPC not answered")]
    assert record.getMessage() == f"RPC not answered topic={TOPIC} method=m error=DeadlinePassed"
    assert vars(record)["context"] is asker


@pytest.mark.parametrize("leaf", LEAVES)
def test_what_the_wire_did_to_an_error_is_undone(leaf: type[errors.PortholeError]) -> None:
    sent = build(leaf)
    received = call_that_raises(sent)
    assert type(received) is leaf
    assert str(received) == str(sent)


@pytest.mark.parametrize("error", [ValueError("x"), LookupError("x")])
def test_a_builtin_error_of_the_far_side_is_a_remote_failure(error: Exception) -> None:
    assert isinstance(call_that_raises(error), errors.RemoteFailure)


def test_an_error_outside_the_tree_is_a_remote_failure(client: RpcClient) -> None:
    with pytest.raises(errors.RemoteFailure) as caught:
        client.call(context(), "fail")
    assert caught.value.values() == (TOPIC, "fail")


def test_an_unknown_method_is_a_remote_failure(client: RpcClient) -> None:
    with pytest.raises(errors.RemoteFailure):
        client.call(context(), "nonsense")


def test_a_version_the_server_lacks_is_a_remote_failure(rpc: Rpc) -> None:
    with pytest.raises(errors.RemoteFailure):
        rpc.get_client(TOPIC, "1.4").call(context(), "echo", text="x")


def test_nobody_answers(impatient: Rpc) -> None:
    """Within the deadline that the caller gave (O11)."""
    began = time.monotonic()
    with pytest.raises(errors.RpcUnavailable) as caught:
        impatient.get_client("nobody", "1.0").call(context(), "echo", text="x")
    assert caught.value.values() == ("nobody", "echo")
    assert time.monotonic() - began < 10


def test_a_server_that_hangs(impatient: Rpc) -> None:
    """Nor is that one waited for any longer (O11)."""
    began = time.monotonic()
    with pytest.raises(errors.RpcUnavailable) as caught:
        impatient.get_client(TOPIC, "1.0").call(context(), "hang")
    assert caught.value.values() == (TOPIC, "hang")
    assert time.monotonic() - began < 10


def test_publish_reaches_a_server(client: RpcClient, endpoint: Endpoint) -> None:
    client.publish(context(), "note", text="x")
    assert endpoint.arrived.wait(10)
    assert endpoint.published == ["x"]


def test_one_client_per_topic_and_version(rpc: Rpc) -> None:
    assert rpc.get_client(TOPIC, "1.0") is rpc.get_client(TOPIC, "1.0")
    assert rpc.get_client(TOPIC, "1.0") is not rpc.get_client(TOPIC, "1.1")


def test_a_server_that_never_started_stops_at_once(rpc: Rpc, endpoint: Endpoint) -> None:
    rpc.get_server("other", "host1", [endpoint]).stop()


def test_one_thread_keeps_the_order_of_messages_and_is_no_more() -> None:
    published: list[str] = []
    handlers: set[int] = set()
    all_there = threading.Event()

    class Slow:
        target = RpcTarget(version="1.0")

        def note(self, context: RequestContext, text: str) -> None:
            handlers.add(threading.get_ident())
            # The first one would be overtaken by all others.
            time.sleep(0 if published else 0.1)
            published.append(text)
            if len(published) == 10:
                all_there.set()

    with fake_bus() as bus:
        server = bus.get_server("one-thread", "host1", [Slow()], threads=1)
        server.start()
        for number in range(10):
            bus.get_client("one-thread", "1.0").publish(context(), "note", text=str(number))
        assert all_there.wait(10)
        server.stop()
    assert published == [str(number) for number in range(10)]
    assert len(handlers) == 1


@pytest.mark.parametrize(
    ("level", "allowed"), [(None, ["1.0", "1.9", "1.10"]), ("1.9", ["1.0", "1.9"]), ("1.0", ["1.0"])]
)
def test_upgrade_levels_say_what_may_be_sent_to_one_topic(rpc: Rpc, level: str | None, allowed: list[str]) -> None:
    """Versions are numbers: 1.10 is above 1.9."""
    cfg.CONF.set_override("revocations", level, "upgrade_levels")
    try:
        versions = ("1.0", "1.9", "1.10")
        assert [version for version in versions if rpc.may_send("porthole.revocations", version)] == allowed
        assert all(rpc.may_send(topic, "1.10") for topic in ("consoleauth", "compute", TOPIC))
    finally:
        cfg.CONF.clear_override("revocations", "upgrade_levels")


def test_a_caller_that_logs_a_failed_call_itself_has_the_only_line(rpc: Rpc, caplog: pytest.LogCaptureFixture) -> None:
    client = rpc.get_client(TOPIC, "1.0")
    for method in ("fail", "nonsense"):
        with pytest.raises(errors.RemoteFailure):
            client.call(context(), method, log_failures=False)
    nobody = Rpc.get_client(rpc, "nobody-consumes-here", "1.0")
    nobody._timeout_s = 0.1
    with pytest.raises(errors.RpcUnavailable):
        nobody.call(context(), "m", log_failures=False)
    assert not [record for record in caplog.records if record.name.startswith("porthole_common.rpc_client")]


def test_an_answer_is_timed_and_a_failure_is_counted(client: RpcClient, impatient: Rpc) -> None:
    for method, name, cause in (("echo", "", ""), ("refuse", "TokenInvalid", ""), ("fail", "", "remote")):
        answers = Growth("porthole_rpc_call_seconds_count", topic=TOPIC, method=method)
        failures = Growth("porthole_rpc_failures_total", topic=TOPIC, method=method, cause=cause or "remote")
        arguments = {"text": "x"} if method == "echo" else {"name": name} if name else {}
        with contextlib.suppress(errors.PortholeError):
            client.call(context(), method, **arguments)
        assert (answers.grown, failures.grown) == ((0, 1) if cause else (1, 0)), method
    late = Growth("porthole_rpc_failures_total", topic=TOPIC, method="hang", cause="timeout")
    answers = Growth("porthole_rpc_call_seconds_count", topic=TOPIC, method="hang")
    with pytest.raises(errors.RpcUnavailable):
        impatient.get_client(TOPIC, "1.0").call(context(), "hang")
    assert (late.grown, answers.grown) == (1, 0)


def test_a_late_call_of_a_request_is_counted_once(impatient: Rpc) -> None:
    late = Growth("porthole_rpc_failures_total", method="hang")
    with pytest.raises(errors.RpcUnavailable):
        impatient.run(
            context(), lambda deadline: impatient.get_client(TOPIC, "1.0").call(context(), "hang", deadline=deadline), 1
        )
    assert late.grown == 1


def test_without_a_log_line_a_failure_is_counted_too(impatient: Rpc) -> None:
    late = Growth("porthole_rpc_failures_total", method="hang", cause="timeout")
    with pytest.raises(errors.RpcUnavailable):
        impatient.get_client(TOPIC, "1.0").call(context(), "hang", log_failures=False)
    assert late.grown == 1


def test_a_handler_is_timed_whatever_it_ends_in(client: RpcClient) -> None:
    handled = Growth("porthole_rpc_handler_seconds_count", method="refuse")
    with pytest.raises(errors.TokenInvalid):
        client.call(context(), "refuse", name="TokenInvalid")
    assert handled.grown == 1

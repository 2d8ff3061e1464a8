# SPDX-License-Identifier: Apache-2.0
import inspect
import itertools

import amqp.exceptions  # type: ignore[import-untyped]
import pytest

from porthole_common import errors
from porthole_common.broker import Broker, Cause, Trouble
from porthole_common.broker_watch import BrokerWatch
from porthole_common.rpc_server import RpcServer, expected_exceptions
from porthole_common.thread_pool import ThreadPool
from support.messaging_fakes import FakeServer


def test_expected_exceptions_keeps_signature_and_docstring() -> None:
    @expected_exceptions(errors.PortholeError)
    def method(context: object, name: str) -> None:
        """Say something."""

    assert list(inspect.signature(method).parameters) == ["context", "name"]
    assert method.__doc__ == "Say something."


@pytest.mark.parametrize("error", [None, OSError("no broker")])
def test_a_server_that_stops_has_the_broker_send_nothing_more_first(error: Exception | None) -> None:
    """Else what arrives meanwhile is acknowledged and dropped."""
    fake = FakeServer(error)
    workers = ThreadPool("test", 1)
    server = RpcServer(lambda: fake, workers, BrokerWatch([]))
    server.start()
    server.stop()
    workers.close()
    assert fake.events == ["cancel 7", "stop consuming", "stop", "wait"]


class RefusedServer(FakeServer):
    """oslo.messaging's server while the broker refuses the password."""

    def start(self, override_pool_size: int | None) -> None:
        raise amqp.exceptions.AccessRefused("ACCESS_REFUSED - Login was refused")


def test_a_server_that_a_broker_refuses_is_made_anew_until_the_process_leaves_the_bus() -> None:
    made: list[FakeServer] = []
    troubles = itertools.cycle([Trouble(Cause.CREDENTIALS, "The password is wrong.", "Correct it."), None])
    broker = Broker("192.0.2.10", 5672, "porthole", "secret", "/", None)
    workers, watch = ThreadPool("test", 1), BrokerWatch([broker], (), lambda _: next(troubles), look_s=0.01)

    def make(refusals: int) -> FakeServer:
        if len(made) == refusals + 1:
            watch.close()
        made.append(RefusedServer() if len(made) != refusals else FakeServer())
        return made[-1]

    RpcServer(lambda: make(2), workers, watch).start()
    assert [type(server) for server in made] == [RefusedServer, RefusedServer, FakeServer]
    with pytest.raises(errors.RpcUnavailable):
        RpcServer(lambda: make(2), workers, watch).start()
    assert len(made) == 4
    workers.close()

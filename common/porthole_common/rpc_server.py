# SPDX-License-Identifier: Apache-2.0
"""The serving side of the bus: a server joins when a broker lets it in, and leaves without losing a message.

Made by :mod:`porthole_common.rpc`; endpoints mark the errors that are answers with :func:`expected_exceptions`.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from porthole_common import errors, metrics, pools
from porthole_common.broker_watch import BrokerWatch
from porthole_common.deadline import Deadline
from porthole_common.log import get_logger
from porthole_common.messaging import BROKER_ERRORS, oslo_messaging
from porthole_common.oslo_messaging_patches import Consumers
from porthole_common.thread_pool import ThreadPool

LOG = get_logger(__name__)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
# How long a server may take to finish its work. An idle consumer of oslo.messaging notices the order to stop only
# after a few seconds.
STOP_TIMEOUT_S = 5.0
# The handlers that run, in oslo.messaging's threads.
_HANDLERS = pools.Work("rpc-handler")
# How long a server that could not join the bus waits before it tries again; less when a broker recovers sooner.
RETRY_MIN_S = 3.0
RETRY_MAX_S = 60.0


def expected_exceptions(
    *classes: type[Exception],
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Mark the errors of an endpoint's method that are answers: they cross the wire and leave no trace in the log.

    This is oslo.messaging's decorator of the same name, but it keeps the method's signature and docstring. It also
    measures the method.
    """

    def decorate(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        answer = oslo_messaging.expected_exceptions(*classes)(method)
        seconds = metrics.RPC_HANDLER_SECONDS.labels(method.__name__)

        @functools.wraps(method)
        def measured(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            with _HANDLERS.counted(), seconds.time():
                return cast(Result, answer(*args, **kwargs))

        return measured

    return decorate


class RpcServer:
    """Serves the endpoints of one topic from oslo.messaging's thread pool."""

    def __init__(
        self, make_server: Callable[[], Any], workers: ThreadPool, watch: BrokerWatch, threads: int | None = None
    ) -> None:
        """``make_server`` returns a new server of oslo.messaging: a server that failed to start cannot start again."""
        self._make_server = make_server
        self._server: Any = None
        self._workers = workers
        self._watch = watch
        self._threads = threads
        # Known while the server is started.
        self._consumers: Consumers | None = None
        self.is_stopped = False

    def start(self) -> None:
        """Consume messages. Returns when the queues are declared, so it waits for a broker that lets this process in.

        :raises RpcUnavailable: when :meth:`Rpc.close` is called before that.
        """
        pause_s = RETRY_MIN_S
        while True:
            self._server = self._make_server()
            recoveries = self._watch.recoveries
            try:
                self._server.start(override_pool_size=self._threads)
            except BROKER_ERRORS as exc:
                # A refused password may be accepted tomorrow: the log has the refusal, and the server tries again.
                self._watch.report(exc)
                if self._watch.wait_for_recovery(recoveries, pause_s):
                    raise errors.RpcUnavailable("the message bus", "subscribe") from exc
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            else:
                self._consumers = Consumers(self._server)
                self._watch.begin_probing()
                return

    def get_subscription(self) -> object | None:
        """Return a new object after each new subscription to the topic, and None while there is none."""
        consumers = self._consumers
        return None if consumers is None else consumers.get_subscription()

    def stop(self) -> None:
        """Take no further message, and wait for those under way; a few seconds at most."""
        self.is_stopped = True
        if self._consumers is None:
            return
        stop = functools.partial(self._stop, self._consumers)
        self._consumers = None
        stop_in_time(self._workers, stop, "server", STOP_TIMEOUT_S)

    def _stop(self, consumers: Consumers) -> None:
        consumers.cancel()
        self._server.stop()
        self._server.wait()


def stop_in_time(workers: ThreadPool, stop: Callable[[], None], what: str, timeout_s: float) -> None:
    """Run ``stop``, and wait for ``timeout_s`` at most; log when it takes longer or fails."""
    try:
        workers.run(stop, Deadline(timeout_s))
    except BROKER_ERRORS as exc:
        # Without a broker no connection can be closed in order; they end with the process.
        LOG.info("RPC connection not closed in order", part=what, error=type(exc).__name__)

# SPDX-License-Identifier: Apache-2.0
"""One call, and one message to every server of a topic: with a deadline, and with foreign errors mapped once.

Why apart from :mod:`porthole_common.rpc`, which makes one client for each topic and version: here is everything that
happens to a call between a service's ``rpcapi.py`` and oslo.messaging.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

from porthole_common import errors, metrics
from porthole_common.broker_watch import BrokerWatch
from porthole_common.context import RequestContext, serving
from porthole_common.deadline import Deadline, DeadlinePassed
from porthole_common.log import get_logger
from porthole_common.messaging import BROKER_ERRORS, oslo_messaging
from porthole_common.thread_pool import ThreadPool

LOG = get_logger(__name__)
# Porthole waits this much longer than oslo.messaging, whose error says more.
GRACE_S = 0.5


def log_unanswered(context: RequestContext, topic: str, method: str, exc: Exception) -> errors.RpcUnavailable:
    """Log that nothing answered in time, by the line that operators look for, and return what to raise."""
    _count_unanswered(topic, method, exc)
    LOG.warning(
        "RPC not answered",
        context=context,
        instance=context.resource_uuid,
        topic=topic,
        method=method,
        error=type(exc).__name__,
    )
    return errors.RpcUnavailable(topic, method)


def _count_unanswered(topic: str, method: str, exc: Exception) -> None:
    cause = "timeout" if isinstance(exc, oslo_messaging.MessagingTimeout | DeadlinePassed) else "broker"
    metrics.RPC_FAILURES.labels(topic, method, cause).inc()


class RpcClient:
    """Calls the methods of one topic. Thread-safe; makes no connection of its own."""

    def __init__(
        self, client: Any, topic: str, threads: ThreadPool, timeout_s: float, watch: BrokerWatch | None = None
    ) -> None:
        """``watch`` is told of each call that found no broker."""
        self._client = client
        self._watch = watch
        self._topic = topic
        self._threads = threads
        self._timeout_s = timeout_s

    def call(
        self,
        context: RequestContext,
        method: str,
        *,
        server: str | None = None,
        deadline: Deadline | None = None,
        log_failures: bool = True,
        **arguments: Any,
    ) -> Any:
        """Call ``method`` and return its result; ``server`` names one host, None any of the topic's servers.

        With a ``deadline`` the caller's thread makes the call. Another thread watches the deadline, and gives up a late
        call. Without one a thread of the pool makes the call, and the caller returns in time by itself.
        Without ``log_failures`` the caller logs a call that fails, once for many perhaps.

        :raises PortholeError: what the far side raised, rebuilt from its fields.
        :raises RpcUnavailable: when nothing answered within the deadline, or there is no broker.
        :raises RemoteFailure: when the far side met an error outside Porthole's tree.
        """
        client = self._client.prepare(server=server) if server else self._client
        seconds = metrics.RPC_CALL_SECONDS.labels(self._topic, method)
        begun_at_s = time.monotonic()
        try:
            result = self._run(context, method, functools.partial(client.call, context, method, **arguments), deadline)
        except errors.PortholeError as exc:
            if deadline is None or not deadline.given_up:
                seconds.observe(time.monotonic() - begun_at_s)
            raise exc.local() from None
        except BROKER_ERRORS as exc:
            raise self._map(exc, context, method, log_failures) from exc
        except Exception as exc:
            # A ValueError of the far side is rebuilt as one here, and is no more the caller's than a RemoteError.
            metrics.RPC_FAILURES.labels(self._topic, method, "remote").inc()
            if log_failures:
                self._log_failure(type(exc).__name__, context, method)
            raise errors.RemoteFailure(self._topic, method) from exc
        seconds.observe(time.monotonic() - begun_at_s)
        return result

    def publish(self, context: RequestContext, method: str, **arguments: Any) -> None:
        """Send ``method`` to every server of the topic and wait for no answer.

        :raises RpcUnavailable: when there is no broker to take it.
        """
        client = self._client.prepare(fanout=True)
        try:
            self._run(context, method, functools.partial(client.cast, context, method, **arguments))
        except BROKER_ERRORS as exc:
            raise self._map(exc, context, method) from exc

    def _run(
        self, context: RequestContext, method: str, work: Callable[[], Any], deadline: Deadline | None = None
    ) -> Any:
        timeout_s = self._timeout_s + GRACE_S
        if deadline is not None:
            unavailable = errors.RpcUnavailable(self._topic, method)
            with deadline.step(timeout_s, unavailable):
                try:
                    return work()
                finally:
                    # The thread that gave the work up has logged it and answered. No further step must begin.
                    if deadline.given_up:
                        raise unavailable from None

        def serve() -> Any:
            # oslo.messaging's own lines bear the request's id too.
            with serving(context):
                return work()

        return self._threads.run(serve, Deadline(timeout_s))

    def _map(
        self, exc: Exception, context: RequestContext, method: str, log_failures: bool = True
    ) -> errors.PortholeError:
        if isinstance(exc, oslo_messaging.RemoteError | oslo_messaging.RPCDispatcherError):
            metrics.RPC_FAILURES.labels(self._topic, method, "remote").inc()
            if log_failures:
                self._log_failure(getattr(exc, "exc_type", type(exc).__name__), context, method)
            return errors.RemoteFailure(self._topic, method)
        if self._watch is not None and not isinstance(exc, oslo_messaging.MessagingTimeout | DeadlinePassed):
            self._watch.report(exc)
        if not log_failures:
            _count_unanswered(self._topic, method, exc)
            return errors.RpcUnavailable(self._topic, method)
        return log_unanswered(context, self._topic, method, exc)

    def _log_failure(self, error: str, context: RequestContext, method: str) -> None:
        LOG.error(
            "RPC failed on the far side",
            context=context,
            instance=context.resource_uuid,
            topic=self._topic,
            method=method,
            error=error,
        )

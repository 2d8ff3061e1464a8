# SPDX-License-Identifier: Apache-2.0
"""The port to oslo.messaging: the only module that imports it.

Why: one transport and one client per process and peer, a deadline on every call, and foreign errors mapped
once. Called by each service's ``rpcapi.py`` (clients), ``main.py`` (servers) and by ``published.py``.

A process has few connections to the broker, whatever it does: one for each server, one for the answers to its
calls, one to send with. While the broker is away or frozen, calls end at their deadline with RpcUnavailable,
and work again by themselves when it is back.

oslo.messaging pulls in oslo.service, which would choose eventlet unless told otherwise before its import.
"""

# ruff: noqa: E402
import os
import warnings

# futurist, which oslo.messaging uses, imports eventlet where it is installed; its notice is not for operators.
warnings.filterwarnings("ignore", message=r"(?s).*Eventlet is deprecated")
# And without its own resolver, which nobody here uses: a fifth of a second of every start, and 17 MiB of each daemon.
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

from oslo_service import backend

backend.init_backend(backend.BackendType.THREADING)

import functools
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast

import amqp  # type: ignore[import-untyped]
import kombu.exceptions
import oslo_messaging
from oslo_config import cfg
from oslo_messaging import Target
from oslo_messaging import opts as oslo_messaging_opts
from oslo_messaging._drivers import amqpdriver
from oslo_messaging.rpc.dispatcher import DefaultRPCAccessPolicy
from oslo_utils import strutils

from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.broker import Broker
from porthole_common.broker_watch import BrokerWatch
from porthole_common.conf import upgrade_levels
from porthole_common.context import RequestContext, serving
from porthole_common.deadline import Deadline, DeadlinePassed
from porthole_common.log import get_logger
from porthole_common.thread_pool import EAGER, ThreadPool
from porthole_common.transport_url import find_fault

__all__ = ["Broker", "Rpc", "RpcClient", "RpcServer", "Target", "expected_exceptions", "list_brokers", "log_unanswered"]

LOG = get_logger(__name__)
# One connection to send with is meant so; oslo.messaging warns each time a thread waits for it. oslo.log names the
# loggers of oslo_x "oslo.x".
logging.getLogger("oslo.messaging._drivers.pool").setLevel(logging.ERROR)
# It warns of a transport that is not known, which ends the start with an error of its own.
logging.getLogger("stevedore.named").setLevel(logging.ERROR)
_URL_FORM = "rabbit://USER:PASSWORD@HOST:5672/VHOST"
_NO_URL = f"it is no transport URL; write {_URL_FORM}"
# What a broker in trouble raises through oslo.messaging: some of it unmapped.
BROKER_ERRORS = (
    oslo_messaging.MessagingException,
    kombu.exceptions.KombuError,
    amqp.AMQPError,
    OSError,
    DeadlinePassed,
)
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
# A send that finds no broker is tried this often again before the caller is told: long enough to step over
# a connection that died idle in the pool, short enough for the caller's deadline.
SEND_RETRIES = 1
# Topic and method in the log line of a sequence that is late before its first call.
_NO_CALL = ("the message bus", "anything")
# Calls under way at once in one process; each may hold a thread for as long as the broker is away.
MAX_CALLS = 128
# The deadline of a call is oslo.messaging's first, since it says more; this much later it is ours.
GRACE_S = 0.5
# How long a server may take to finish its work, and the transport to take leave of the broker. An idle consumer of
# oslo.messaging looks up only every few seconds.
STOP_TIMEOUT_S = 5.0
CANCEL_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 2.0
# RabbitMQ's manual calls 5 to 20 s the best range.
HEARTBEAT_S = 10
# How soon after a message oslo.messaging looks up again, when no other comes; then after twice as long, and so on.
LOOK_UP_S = 0.1
# The topic of the message that shows whether the broker takes messages. Nobody consumes from it.
PROBE_TOPIC = "porthole.probe"
# Until a server that could not join the bus tries again, unless a broker is found to be usable sooner.
RETRY_MIN_S = 3.0
RETRY_MAX_S = 60.0


def expected_exceptions(
    *classes: type[Exception],
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Mark the errors of an endpoint's method that are answers: they cross the wire and leave no trace in the log.

    oslo.messaging's decorator of this name, which keeps neither the method's signature nor its docstring.
    """

    def decorate(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        wrapped = oslo_messaging.expected_exceptions(*classes)(method)
        return cast(Callable[Arguments, Result], functools.wraps(method)(wrapped))

    return decorate


def log_unanswered(context: RequestContext, topic: str, method: str, exc: Exception) -> errors.RpcUnavailable:
    """Log that nothing answered in time, by the line that operators look for, and return what to raise."""
    LOG.warning(
        "RPC not answered",
        context=context,
        instance=context.resource_uuid,
        topic=topic,
        method=method,
        error=type(exc).__name__,
    )
    return errors.RpcUnavailable(topic, method)


class ContextSerializer(oslo_messaging.NoOpSerializer):  # type: ignore[misc]
    """Carries the RequestContext; arguments and results are primitives already."""

    def serialize_context(self, context: RequestContext) -> dict[str, Any]:
        """Return the context as a dictionary."""
        return context.to_message()

    def deserialize_context(self, context: dict[str, Any]) -> RequestContext:
        """Return the context, and make it the current one of this thread, for the log lines."""
        return RequestContext.from_dict(context)


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
        **arguments: Any,
    ) -> Any:
        """Call ``method`` and return its result; ``server`` names one host, None any of the topic's servers.

        With a ``deadline`` the call is made in the caller's thread: whoever waits for that thread looks at the deadline
        and gives the work up when the call is late. Without one the call is made in a thread of the pool, and the
        caller returns in time by itself.

        :raises PortholeError: what the far side raised, rebuilt from its fields.
        :raises RpcUnavailable: when nothing answered within the deadline, or there is no broker.
        :raises RemoteFailure: when the far side met an error outside Porthole's tree.
        """
        client = self._client.prepare(server=server) if server else self._client
        try:
            return self._run(context, method, functools.partial(client.call, context, method, **arguments), deadline)
        except errors.PortholeError as exc:
            raise exc.local() from None
        except BROKER_ERRORS as exc:
            raise self._map(exc, context, method) from exc
        except Exception as exc:
            # A ValueError of the far side is rebuilt as one here, and is no more the caller's than a RemoteError.
            self._log_failure(type(exc).__name__, context, method)
            raise errors.RemoteFailure(self._topic, method) from exc

    def publish(self, context: RequestContext, method: str, **arguments: Any) -> None:
        """Send ``method`` to every server of the topic and wait for nobody.

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
                    # Whoever gave the work up has logged it and answered; no further step must begin.
                    if deadline.given_up:
                        raise unavailable from None

        def serve() -> Any:
            # oslo.messaging's own lines bear the request's id too.
            with serving(context):
                return work()

        return self._threads.run(serve, Deadline(timeout_s))

    def _map(self, exc: Exception, context: RequestContext, method: str) -> errors.PortholeError:
        if isinstance(exc, oslo_messaging.RemoteError | oslo_messaging.RPCDispatcherError):
            self._log_failure(getattr(exc, "exc_type", type(exc).__name__), context, method)
            return errors.RemoteFailure(self._topic, method)
        if self._watch is not None and not isinstance(exc, oslo_messaging.MessagingTimeout | DeadlinePassed):
            self._watch.report(exc)
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


class RpcServer:
    """Serves the endpoints of one topic from oslo.messaging's thread pool."""

    def __init__(
        self, make_server: Callable[[], Any], workers: ThreadPool, watch: BrokerWatch, threads: int | None = None
    ) -> None:
        """``make_server`` returns a new server of oslo.messaging: one whose start has failed is not started again."""
        self._make_server = make_server
        self._server: Any = None
        self._workers = workers
        self._watch = watch
        self._threads = threads
        self._started = False

    def start(self) -> None:
        """Consume; returns once the queues stand, so not before there is a broker that lets this process in.

        :raises RpcUnavailable: when the process leaves the bus before that.
        """
        pause_s = RETRY_MIN_S
        while True:
            self._server = self._make_server()
            recoveries = self._watch.recoveries
            try:
                self._server.start(override_pool_size=self._threads)
            except BROKER_ERRORS as exc:
                # A password that is refused may be taken tomorrow: the operator is told, and it is tried again.
                self._watch.report(exc)
                if self._watch.wait_for_recovery(recoveries, pause_s):
                    raise errors.RpcUnavailable("the message bus", "subscribe") from exc
                pause_s = min(2 * pause_s, RETRY_MAX_S)
            else:
                self._started = True
                self._watch.begin_probing()
                return

    def stop(self) -> None:
        """Take no further message, and wait for those under way; a few seconds at most."""
        if not self._started:
            return
        self._started = False
        _stop_in_time(self._workers, self._stop, "server", STOP_TIMEOUT_S)

    def _stop(self) -> None:
        _cancel_consumers(self._server)
        self._server.stop()
        self._server.wait()


class Rpc:
    """One process's way to the bus: one transport, and one client per topic."""

    def __init__(self, conf: cfg.ConfigOpts, timeout_s: float, transport_url: str | None = None) -> None:
        """Prepare the transport; the first connection is made by the first call or server.

        ``timeout_s`` is the deadline of every call of this process, in seconds. ``transport_url`` stands in for
        the option of that name, for a process whose bus is not for the operator to choose.

        :raises ConfigInvalid: when the transport URL is none, or of a transport that is not installed; when TLS would
            check nothing.
        """
        self._timeout_s = timeout_s
        _let_consumers_rest()
        _offer_each_reply()
        _set_defaults(conf, timeout_s)
        _check_tls(conf)
        if transport_url is None:
            _check_url(conf)
        try:
            self._transport = oslo_messaging.get_rpc_transport(
                conf, url=transport_url, allowed_remote_exmods=[errors.__name__]
            )
        except oslo_messaging.DriverLoadFailure as exc:
            words = f'the transport "{exc.driver}" is not known; write {_URL_FORM}'
            raise errors.ConfigInvalid("[DEFAULT] transport_url", words) from None
        except ImportError as exc:
            words = f'a Python package is missing for its transport ("{exc.name}"); write {_URL_FORM}'
            raise errors.ConfigInvalid("[DEFAULT] transport_url", words) from None
        except (oslo_messaging.InvalidTransportURL, ValueError):
            # Its text would show the URL, and with it the broker's password.
            raise errors.ConfigInvalid("[DEFAULT] transport_url", _NO_URL) from None
        if transport_url is None and (conf.transport_url or "").startswith("fake:"):
            raise errors.ConfigInvalid("[DEFAULT] transport_url", "fake:// reaches no other process")
        watched = _find_watched(conf) if transport_url is None else []
        self._watch = BrokerWatch(watched, BROKER_ERRORS, probe=self._probe)
        # A conf that is not a daemon's may know oslo.messaging's options alone.
        upgrade_levels.register_opts(conf)
        self._levels = conf.upgrade_levels
        self._serializer = ContextSerializer()
        self._workers = ThreadPool("rpc", MAX_CALLS)
        self._sequences = ThreadPool("rpc-sequence", MAX_CALLS, EAGER)
        self._clients: dict[tuple[str, str], RpcClient] = {}
        self._lock = threading.Lock()

    def get_client(self, topic: str, version: str) -> RpcClient:
        """Return the process's client for ``topic`` at ``version`` ("major.minor" the endpoint must offer)."""
        with self._lock:
            if (topic, version) not in self._clients:
                client = oslo_messaging.get_rpc_client(
                    self._transport,
                    Target(topic=topic, version=version),
                    timeout=self._timeout_s,
                    retry=SEND_RETRIES,
                    serializer=self._serializer,
                )
                self._clients[topic, version] = RpcClient(client, topic, self._workers, self._timeout_s, self._watch)
            return self._clients[topic, version]

    def run(self, context: RequestContext, work: Callable[[Deadline], Result], calls: int) -> Result:
        """Return what ``work(deadline)`` returns, or raise what it raises.

        The work makes ``calls`` calls one after the other, and hands its deadline to each of them. All calls are made
        in one thread of the pool: each call by itself would be handed to a thread and back.

        :raises RpcUnavailable: when one call, or all together, take longer than their deadlines. The call that is
            under way may come to its end; no further call is made.
        """
        deadline = Deadline(calls * self._timeout_s + GRACE_S)

        def serve() -> Result:
            with serving(context):
                return work(deadline)

        try:
            return self._sequences.run(serve, deadline)
        except DeadlinePassed as exc:
            late = deadline.waits_for
            topic, method = (late.topic, late.method) if isinstance(late, errors.RpcUnavailable) else _NO_CALL
            raise log_unanswered(context, topic, method, exc) from exc

    def may_send(self, topic: str, version: str) -> bool:
        """Say whether ``[upgrade_levels]`` lets messages of ``version`` go to ``topic``: there may be older daemons."""
        name = topic.removeprefix("porthole.")
        if name not in self._levels or self._levels[name] is None:
            return True
        return _parse_version(version) <= _parse_version(self._levels[name])

    def get_server(self, topic: str, server: str, endpoints: Sequence[object], threads: int | None = None) -> RpcServer:
        """Return a server of ``topic`` under the name ``server``: not started yet.

        ``threads`` handle its messages, one of them in the order in which they arrive; None is as many as ``[DEFAULT]
        executor_thread_pool_size``, of which each message starts another until there are so many.
        """
        make_server = functools.partial(
            oslo_messaging.get_rpc_server,
            self._transport,
            Target(topic=topic, server=server),
            list(endpoints),
            serializer=self._serializer,
            access_policy=DefaultRPCAccessPolicy,
        )
        return RpcServer(make_server, self._workers, self._watch, threads)

    def close(self) -> None:
        """Close the transport and its connections; a few seconds at most."""
        self._watch.close()
        _stop_in_time(self._workers, self._transport.cleanup, "transport", CLOSE_TIMEOUT_S)
        self._workers.close()
        self._sequences.close()

    def _probe(self) -> None:
        """Send a message that reaches nobody, over the connection that all messages are sent with."""
        target = Target(topic=PROBE_TOPIC, fanout=True)
        client = oslo_messaging.get_rpc_client(self._transport, target, retry=SEND_RETRIES, serializer=self._serializer)
        try:
            client.cast(RequestContext(overwrite=False), "probe")
        except BROKER_ERRORS as exc:
            self._watch.report(exc)


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _cancel_consumers(server: Any) -> None:
    """Have the broker send ``server`` nothing more; what it had sent will be answered.

    Without this a message that arrives between the order to stop and the end of the connection, which may be a second
    later, is acknowledged and dropped: oslo.messaging deletes its fanout queue when it no longer looks at what comes
    in. Whoever sent it waits for his deadline, although another server stands ready. There is no public way; an
    oslo.messaging that is made differently inside stops as it always has.
    """
    listener = getattr(server.listener, "_poll_style_listener", None)
    operations = getattr(listener, "_message_operations_handler", None)
    connection = getattr(listener, "conn", None)
    consumers = getattr(connection, "_consumers", None)
    if operations is None or connection is None or consumers is None:
        return
    done = threading.Event()

    def cancel() -> None:
        try:
            for consumer, tag in list(consumers.items()):
                consumer.cancel(tag)
        except BROKER_ERRORS as exc:
            LOG.debug("RPC consumers could not be cancelled", error=type(exc).__name__)
        finally:
            done.set()

    # In the thread that reads from this connection, which nobody else may use; and soon, since it may be waiting.
    operations.do(cancel)
    connection.stop_consuming()
    done.wait(CANCEL_TIMEOUT_S)


def _let_consumers_rest() -> None:
    """Have oslo.messaging wait for the next message for :data:`LOOK_UP_S` at first, and not for a millisecond.

    It looks up after 1, 2, 4, ... ms for acknowledgements that another thread wants sent. RPC has none since they are
    sent where a message is taken (bug 1695746), so each message paid for two or three looks at nothing: a twentieth of
    what a console takes of the processor. There is no option for it; an oslo.messaging that is made differently inside
    looks up as it always has.
    """
    if hasattr(amqpdriver, "ACK_REQUEUE_EVERY_SECONDS_MIN"):
        amqpdriver.ACK_REQUEUE_EVERY_SECONDS_MIN = LOOK_UP_S


def _offer_each_reply() -> None:
    """Have oslo.messaging try to send each reply, and not take a queue that was missing once for gone for a minute.

    A broker that was away for longer than a call is back before all its clients are. Replies that waited for it are
    given up then, rightly, where the caller's queue is not there again; but every other reply to that caller was
    dropped too, for 60 s, which one of two consoleauths did to a proxy: half of what it asked had no answer. There is
    no option for it; an oslo.messaging that is made differently inside drops them as it always has.
    """
    cache = getattr(amqpdriver, "ObsoleteReplyQueuesCache", None)
    if cache is not None:
        cache.TTL = 0


def list_brokers(conf: cfg.ConfigOpts) -> list[Broker]:
    """Return the brokers that the processes of this configuration connect to, in its order.

    :raises ConfigInvalid: when the transport URL is none, or not RabbitMQ's.
    """
    _set_defaults(conf, 1)
    return _parse_brokers(conf)


def _find_watched(conf: cfg.ConfigOpts) -> list[Broker]:
    try:
        return _parse_brokers(conf)
    except errors.ConfigInvalid:
        # Another transport of oslo.messaging's, whose lines are left alone.
        return []


def _check_url(conf: cfg.ConfigOpts) -> None:
    fault = find_fault(conf.transport_url)
    if fault:
        raise errors.ConfigInvalid("[DEFAULT] transport_url", fault)


def _parse_brokers(conf: cfg.ConfigOpts) -> list[Broker]:
    _check_url(conf)
    try:
        url = oslo_messaging.TransportURL.parse(conf)
    except (oslo_messaging.InvalidTransportURL, ValueError):
        # Its text would show the URL, and with it the broker's password.
        raise errors.ConfigInvalid("[DEFAULT] transport_url", _NO_URL) from None
    if url.transport not in {"rabbit", "kombu", "rabbitmq"}:
        raise errors.ConfigInvalid("[DEFAULT] transport_url", f"{url.transport}:// is not RabbitMQ's")
    options = conf.oslo_messaging_rabbit
    # As oslo.messaging takes them: a parameter of the URL wins over the option.
    tls: dict[str, str | None] | None = None
    if strutils.bool_from_string(url.query.get("ssl", options.ssl)):
        files = {"ca": "ssl_ca_file", "cert": "ssl_cert_file", "key": "ssl_key_file"}
        tls = {name: url.query.get(option, options[option]) or None for name, option in files.items()}
    # What oslo.messaging fills in for what the URL leaves open.
    hosts = url.hosts or [oslo_messaging.TransportHost()]
    return [
        Broker(
            host=host.hostname or "localhost",
            port=host.port or 5672,
            user=host.username or "guest",
            password=host.password or "guest",
            virtual_host=url.virtual_host or "/",
            tls=tls,
        )
        for host in hosts
    ]


def _stop_in_time(workers: ThreadPool, stop: Callable[[], None], what: str, timeout_s: float) -> None:
    try:
        workers.run(stop, Deadline(timeout_s))
    except BROKER_ERRORS as exc:
        # With the broker away there is nobody to take leave of; the process that ends takes its connections with it.
        LOG.info("RPC ends without an orderly goodbye", part=what, error=type(exc).__name__)


def _set_defaults(conf: cfg.ConfigOpts, timeout_s: float) -> None:
    """Give oslo.messaging's options the defaults that suit Porthole; a configuration file still wins."""
    rabbit = "oslo_messaging_rabbit"
    for group, options in oslo_messaging_opts.list_opts():
        if group in {None, rabbit}:
            conf.register_opts(options, group=group)
            porthole_conf.check_options(conf, group or "DEFAULT", options)
    # Two connections per console were what made Nova's slow to open: one, shared, is never a new one.
    conf.set_default("rpc_conn_pool_size", 1, group=rabbit)
    conf.set_default("conn_pool_min_size", 1, group=rabbit)
    # A peer that is frozen or cut off is found out in seconds, not in a minute: the broker gives its messages to the
    # next one, and nobody waits for TCP, which after a cut of half a minute tries again half a minute later.
    conf.set_default("heartbeat_timeout_threshold", HEARTBEAT_S, group=rabbit)
    # Back within seconds of the broker, not half a minute later.
    conf.set_default("rabbit_interval_max", 3, group=rabbit)
    # An answer is not offered for longer than its caller waits.
    conf.set_default("kombu_missing_consumer_retry_timeout", int(timeout_s), group=rabbit)


def _check_tls(conf: cfg.ConfigOpts) -> None:
    """Refuse TLS that looks at nobody's certificate, which is what oslo.messaging makes of ``ssl`` alone.

    :raises ConfigInvalid: when no authority is named.
    """
    if conf.oslo_messaging_rabbit.ssl and not conf.oslo_messaging_rabbit.ssl_ca_file:
        raise errors.ConfigInvalid("[oslo_messaging_rabbit] ssl_ca_file", "without it any broker would be trusted")

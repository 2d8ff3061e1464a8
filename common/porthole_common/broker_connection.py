# SPDX-License-Identifier: Apache-2.0
"""One connection to a broker, made as the daemons make theirs: the only module that imports kombu for that.

Called by :mod:`porthole_common.broker`. It uses two parts of py-amqp that the library does not document: the socket of
a connection, to limit the wait for each answer, and ``collect()``, which drops a connection without a word.
"""

import contextlib
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import amqp  # type: ignore[import-untyped]
import amqp.exceptions  # type: ignore[import-untyped]
import kombu.exceptions
from kombu.connection import Connection

from porthole_common.broker_trouble import STEP_TIMEOUT_S, Broker, PortProtocol
from porthole_common.private_parts import report_missing

# AMQP 0-9-1 section 4.2.2: the first bytes of a client, which a broker answers with a frame.
_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
# The first bytes of a server's answer to plain text where it speaks TLS (RFC 8446 section 5.1): an alert.
_TLS_ALERT = b"\x15\x03"
# The errors of a connection that fails.
FAILURES = (amqp.exceptions.AMQPError, kombu.exceptions.KombuError, OSError)


class Blocked(Exception):
    """The broker has stopped reading from this connection (RabbitMQ's connection.blocked)."""


class Unblocked(Exception):
    """The broker reads from this connection again (RabbitMQ's connection.unblocked)."""


def connect(broker: Broker) -> Any:
    """Return py-amqp's connection. It raises Blocked and Unblocked where the broker says so."""

    def fail_blocked(_reason: str) -> None:
        raise Blocked

    def fail_unblocked() -> None:
        raise Unblocked

    connection: Any = Connection(  # type: ignore[no-untyped-call, unused-ignore]
        hostname=broker.host,
        port=broker.port,
        userid=broker.user,
        password=broker.password,
        virtual_host=broker.virtual_host,
        ssl=_kombu_tls(broker),
        transport="pyamqp",
        connect_timeout=STEP_TIMEOUT_S,
        transport_options={"on_blocked": fail_blocked, "on_unblocked": fail_unblocked},
    )
    try:
        return connection.connect()
    except FAILURES:
        # A connection that broke cannot be closed in order.
        with contextlib.suppress(*FAILURES):
            connection.release()
        raise


def limit_waits(session: Any) -> None:
    """Have each answer of the broker arrive within :data:`STEP_TIMEOUT_S`, or fail."""
    sock = getattr(session, "sock", None)
    if sock is None:
        effect = "The examination of a broker that hangs waits until the broker ends the connection."
        report_missing("amqp", "Connection.sock", effect)
        return
    sock.settimeout(STEP_TIMEOUT_S)


def drop_connection(session: Any) -> None:
    """End a connection that cannot be closed in order, since the broker may not answer."""
    if not hasattr(session, "collect"):
        report_missing("amqp", "Connection.collect", "A broken connection to a broker is closed some time later.")
        return
    session.collect()


def check_tls(sock: socket.socket, broker: Broker) -> None:
    """Do a TLS handshake with the configured files.

    :raises OSError: when it fails (:class:`ssl.SSLError`), or when a file cannot be read.
    """
    files = broker.tls or {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if files["ca"]:
        context.load_verify_locations(files["ca"])
    else:
        # As oslo.messaging does without an authority.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if files["cert"]:
        context.load_cert_chain(files["cert"], files["key"])
    with context.wrap_socket(sock, server_hostname=broker.host):
        return


def _kombu_tls(broker: Broker) -> Any:
    if broker.tls is None:
        return False
    names = {"ca": "ca_certs", "cert": "certfile", "key": "keyfile"}
    parameters: dict[str, Any] = {names[name]: path for name, path in broker.tls.items() if path}
    if broker.tls["ca"]:
        return parameters | {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": broker.host}
    return parameters | {"cert_reqs": ssl.CERT_NONE}


def find_protocol(broker: Broker) -> PortProtocol:
    """Return the protocol of a port that is not the expected broker.

    With TLS configured the answer is OTHER. Otherwise the port is tried with plain AMQP, and then with TLS.
    """
    if broker.tls is not None:
        return PortProtocol.OTHER
    try:
        with socket.create_connection((broker.host, broker.port), STEP_TIMEOUT_S) as sock:
            # A web server waits for the end of a line before it answers.
            sock.sendall(_AMQP_HEADER + b"\r\n\r\n")
            answer = sock.recv(len(_TLS_ALERT))
    except OSError:
        answer = b""
    if answer and answer != _TLS_ALERT:
        return PortProtocol.OTHER
    return PortProtocol.TLS if _speaks_tls(broker) else PortProtocol.NONE


def _speaks_tls(broker: Broker) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((broker.host, broker.port), STEP_TIMEOUT_S) as sock,
            context.wrap_socket(sock, server_hostname=broker.host),
        ):
            return True
    except ssl.SSLError as exc:
        # A server that asks for a client certificate speaks TLS all the same.
        return "ALERT" in (exc.reason or "")
    except OSError:
        return False


def use_queue(session: Any, publishes: bool) -> None:
    """Declare a queue of the broker's naming, send it a message if ``publishes``, and delete it.

    The daemons need the same permissions. RabbitMQ blocks a connection at its first message, so the answer to the
    deletion proves that it is not blocked.
    """
    channel = session.channel()
    name = channel.queue_declare(exclusive=True, auto_delete=True).queue
    if publishes:
        channel.basic_publish(amqp.Message(b""), routing_key=name)
    channel.queue_delete(name)


def count_consumers(session: Any, queues: Mapping[str, str]) -> dict[str, int]:
    """Return how many consumers each queue has; 0 for a queue that was never declared (AMQP 0-9-1, queue.declare)."""
    counts = dict.fromkeys(queues.values(), 0)
    for name, key in queues.items():
        channel = session.channel()
        try:
            counts[key] = channel.queue_declare(queue=name, passive=True).consumer_count
            channel.close()
        except amqp.exceptions.NotFound:
            # The broker has closed the channel with that answer.
            continue
    return counts

# SPDX-License-Identifier: Apache-2.0
"""The port to the brokers: one connection to each, step by step, so that the step that fails names the cause.

Why not through oslo.messaging: it tries for ever and says "connection failed" to an address, a password, a virtual host
and a certificate alike. A broker is reached in this order: its name resolves, its port takes a connection, TLS stands
where it is asked for, the user is let in, the virtual host is open to the user, a queue may be declared, a
message is taken.

:mod:`porthole_common.broker_watch` asks here when a daemon's connection fails, and ``porthole doctor`` in any case: so
a log line and a finding have the same words. The one module that imports kombu for a connection of its own.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

import amqp  # type: ignore[import-untyped]
import amqp.exceptions  # type: ignore[import-untyped]
import kombu.exceptions
from kombu.connection import Connection

STEP_TIMEOUT_S = 3.0
# How long a broker that has blocked a connection may take to say that it reads again, at each look.
_UNBLOCKED_S = 0.1
# OpenSSL's reasons when one side speaks TLS and the other one plain text.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING", "HTTP_REQUEST")
# AMQP 0-9-1 section 4.2.2: the first bytes of a client, which a broker answers with a frame.
_AMQP_HEADER = b"AMQP\x00\x00\x09\x01"
# The first bytes of a server's answer to plain text where it speaks TLS (RFC 8446 section 5.1): an alert.
_TLS_ALERT = b"\x15\x03"
OPTION = "[DEFAULT] transport_url"
_ADMIN = "on the broker's host"


class Speech(Enum):
    """What a port speaks: nothing within the deadline, TLS, or another protocol."""

    NONE = 0
    TLS = 1
    OTHER = 2


class Cause(StrEnum):
    """Which step fails."""

    ADDRESS = "address"
    TLS = "tls"
    PROTOCOL = "protocol"
    CREDENTIALS = "credentials"
    VHOST = "vhost"
    PERMISSIONS = "permissions"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class Broker:
    """One broker as ``transport_url`` and [oslo_messaging_rabbit] describe it.

    ``tls`` is None without TLS, else OpenSSL's files: ``{ca, cert, key}``, each a path or None.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    virtual_host: str
    tls: dict[str, str | None] | None = field(hash=False)

    def __str__(self) -> str:
        """Return host:port as an operator writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True)
class Trouble:
    """Why a broker cannot be used. ``problem`` names the fault, ``mend`` the remedy; neither contains a password."""

    cause: Cause
    problem: str
    mend: str


@dataclass(frozen=True)
class Met:
    """The result of one examination: ``trouble`` is None when the daemons can use the broker.

    ``consumers``: how many processes consume from a queue, by the queue's name.
    """

    trouble: Trouble | None = None
    consumers: Mapping[str, int] = field(default_factory=dict)


class _Blocked(Exception):
    """The broker reads no more from this connection (RabbitMQ's connection.blocked)."""


class _Unblocked(Exception):
    """The broker reads from this connection again (RabbitMQ's connection.unblocked)."""


# What a connection to a broker fails with.
_FAILURES = (amqp.exceptions.AMQPError, kombu.exceptions.KombuError, OSError)


class BlockedConnections:
    """The connections that brokers have blocked, at most one for each broker. For one thread.

    Why they are kept: RabbitMQ does not notice the end of a connection that it has blocked. An examination every few
    seconds would leave one more behind each time, at a broker that is short of memory.
    """

    def __init__(self) -> None:
        self._sessions: dict[Broker, Any] = {}

    def keep(self, broker: Broker, session: Any) -> None:
        """Take over ``session``, a connection that ``broker`` has blocked."""
        self._sessions[broker] = session

    def check_blocked(self, broker: Broker) -> bool:
        """Return True while ``broker`` still blocks the connection that was kept; False without one."""
        session = self._sessions.get(broker)
        if session is None:
            return False
        try:
            while True:
                session.drain_events(timeout=_UNBLOCKED_S)
        except TimeoutError:
            return True
        except (_Unblocked, *_FAILURES):
            self.drop(broker)
            return False

    def drop(self, broker: Broker) -> None:
        """Close the connection that was kept, if there is one."""
        session = self._sessions.pop(broker, None)
        if session is not None:
            session.collect()

    def close(self) -> None:
        """Close all of them."""
        for broker in list(self._sessions):
            self.drop(broker)


def examine_broker(broker: Broker, queues: Mapping[str, str], blocked: BlockedConnections | None = None) -> Met:
    """Connect to ``broker`` as the daemons do, and count the consumers of ``queues`` (name: key of the count).

    ``blocked`` keeps a connection that the broker blocks; who examines repeatedly hands in the same one each time.
    """
    kept = BlockedConnections() if blocked is None else blocked
    try:
        met = _examine(broker, queues, kept)
    finally:
        if blocked is None:
            kept.close()
    if met.trouble is not None and met.trouble.cause is not Cause.BLOCKED:
        kept.drop(broker)
    return met


def _examine(broker: Broker, queues: Mapping[str, str], kept: BlockedConnections) -> Met:
    try:
        with socket.create_connection((broker.host, broker.port), STEP_TIMEOUT_S) as sock:
            if broker.tls is not None:
                _shake_hands(sock, broker)
    except (ssl.SSLError, ssl.CertificateError, FileNotFoundError, PermissionError) as exc:
        return Met(judge_tls(broker, exc))
    except OSError as exc:
        return Met(judge_address(broker, exc))
    session: Any = None
    try:
        session = _connect(broker)
        session.sock.settimeout(STEP_TIMEOUT_S)
        counts = _count_consumers(session, queues)
        is_blocked = kept.check_blocked(broker)
        _use_queue(session, publishes=not is_blocked)
        session.close()
        return Met(judge_blocked(broker) if is_blocked else None, counts)
    except _Blocked:
        kept.keep(broker, session)
        return Met(judge_blocked(broker))
    except _FAILURES as exc:
        if session is not None:
            # It cannot be closed in order: the broker may not answer.
            session.collect()
        return Met(judge_amqp(broker, exc, lambda: _find_speech(broker)))


def _connect(broker: Broker) -> Any:
    """Return py-amqp's connection. It raises _Blocked and _Unblocked where the broker says so."""

    def fail_blocked(_reason: str) -> None:
        raise _Blocked

    def fail_unblocked() -> None:
        raise _Unblocked

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
    except _FAILURES:
        # A connection that broke cannot be closed in order.
        with contextlib.suppress(*_FAILURES):
            connection.release()
        raise


def judge_address(broker: Broker, exc: OSError) -> Trouble:
    """Return the trouble behind a connection that failed or stayed silent."""
    if isinstance(exc, socket.gaierror):
        problem = f'The broker\'s name "{broker.host}" does not resolve here.'
        mend = f"Correct the host in {OPTION}, or add the name to DNS or /etc/hosts of every host of Porthole's."
    elif isinstance(exc, TimeoutError):
        problem = f"The broker at {broker} did not answer within {STEP_TIMEOUT_S:g} s."
        mend = (
            f"See whether its host is up and lets port {broker.port} through from here (a firewall drops silently), "
            "and whether RabbitMQ hangs: rabbitmqctl status."
        )
    else:
        problem = f"Nothing takes connections at {broker}: {exc.strerror or type(exc).__name__}."
        mend = (
            f"Start RabbitMQ {_ADMIN} (systemctl start rabbitmq-server), or correct host and port in {OPTION}. A "
            "RabbitMQ that listens on loopback alone answers its own host only: rabbitmq-diagnostics listeners."
        )
    return Trouble(Cause.ADDRESS, problem, mend)


def judge_tls(broker: Broker, exc: Exception) -> Trouble:
    """Return the trouble behind a TLS handshake that failed."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        problem = f"The certificate of the broker at {broker} is not accepted: {exc.verify_message}."
        mend = (
            "Put the authority that signed it into [oslo_messaging_rabbit] ssl_ca_file, and name the broker in "
            f"{OPTION} as its certificate does."
        )
    elif isinstance(exc, FileNotFoundError | PermissionError):
        problem = f"A file for TLS to the broker cannot be read: {exc.filename or broker.tls}: {exc.strerror}."
        mend = "Correct ssl_ca_file, ssl_cert_file and ssl_key_file in [oslo_messaging_rabbit], or their permissions."
    elif isinstance(exc, ssl.SSLError) and exc.reason in _NO_TLS:
        problem = f"TLS is configured, but the broker at {broker} does not speak TLS at this port."
        mend = (
            f"Give {OPTION} the port of RabbitMQ's TLS listener (5671, as a rule), or leave [oslo_messaging_rabbit] "
            "ssl out where the way to the broker is safe."
        )
    else:
        reason = getattr(exc, "reason", None) or type(exc).__name__
        problem = f"The TLS handshake with the broker at {broker} fails: {reason}."
        mend = (
            "Compare the TLS versions and certificates of both sides; a broker that wants a client certificate gets it "
            "from ssl_cert_file and ssl_key_file in [oslo_messaging_rabbit]."
        )
    return Trouble(Cause.TLS, problem, mend)


def judge_amqp(broker: Broker, exc: Exception, find_speech: Callable[[], Speech]) -> Trouble:
    """Return the trouble behind a broker that answers and refuses the user, the virtual host or the queue.

    ``find_speech`` is asked what the port speaks, where that may be why.
    """
    if isinstance(exc, amqp.exceptions.NotAllowed):
        problem = f'The broker at {broker} does not give user "{broker.user}" the virtual host "{broker.virtual_host}".'
        mend = (
            f"Correct the path of {OPTION}, or {_ADMIN}: rabbitmqctl list_vhosts; rabbitmqctl add_vhost "
            f"{broker.virtual_host}; rabbitmqctl set_permissions -p {broker.virtual_host} {broker.user} '.*' '.*' '.*'"
        )
        return Trouble(Cause.VHOST, problem, mend)
    if isinstance(exc, amqp.exceptions.AccessRefused):
        if _is_about_login(exc):
            problem = (
                f'The broker at {broker} does not take user "{broker.user}" with the password of the configuration.'
            )
            mend = (
                f"Correct {OPTION} on this host, or {_ADMIN}: rabbitmqctl list_users; rabbitmqctl change_password "
                f"{broker.user} PASSWORD. The user guest may log in on the broker's own host only."
            )
            return Trouble(Cause.CREDENTIALS, problem, mend)
        problem = f'User "{broker.user}" may not declare queues in virtual host "{broker.virtual_host}" at {broker}.'
        mend = (
            f"{_ADMIN.capitalize()}: rabbitmqctl set_permissions -p {broker.virtual_host} {broker.user} '.*' '.*' '.*'"
        )
        return Trouble(Cause.PERMISSIONS, problem, mend)
    speech = find_speech()
    if speech is Speech.TLS:
        problem = f"The broker at {broker} speaks TLS at this port, and the configuration does not."
        mend = (
            "Set [oslo_messaging_rabbit] ssl = true and ssl_ca_file, or give the port of the listener without TLS "
            f"(5672, as a rule) in {OPTION}."
        )
        return Trouble(Cause.TLS, problem, mend)
    if isinstance(exc, TimeoutError) and speech is Speech.NONE:
        return judge_address(broker, exc)
    problem = f"What answers at {broker} is not a broker that Porthole understands: {type(exc).__name__}."
    if isinstance(exc, TimeoutError):
        problem = f"Something listens at {broker} and does not speak AMQP; it may be a web server."
    mend = f"Give the address of RabbitMQ's AMQP listener in {OPTION}; rabbitmq-diagnostics listeners names it."
    return Trouble(Cause.PROTOCOL, problem, mend)


def judge_blocked(broker: Broker) -> Trouble:
    """Return the trouble of a broker that lets everybody in and takes no messages."""
    problem = f"RabbitMQ at {broker} takes no messages: a memory or disk alarm has blocked all connections that send."
    mend = (
        f"{_ADMIN.capitalize()}: rabbitmqctl status names the alarm. Free memory or disk space, or raise "
        "vm_memory_high_watermark or lower disk_free_limit in rabbitmq.conf. The daemons go on by themselves then; a "
        "restart of them changes nothing."
    )
    return Trouble(Cause.BLOCKED, problem, mend)


def _is_about_login(exc: Exception) -> bool:
    # RabbitMQ says 403 to a login on the connection, and to a permission on a channel.
    return "login" in str(exc).lower()


def _shake_hands(sock: socket.socket, broker: Broker) -> None:
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


def _find_speech(broker: Broker) -> Speech:
    """Return the protocol of a port that is not the expected broker.

    With TLS configured the answer is OTHER. Otherwise the port is tried with TLS, and then with plain AMQP.
    """
    if broker.tls is not None:
        return Speech.OTHER
    try:
        with socket.create_connection((broker.host, broker.port), STEP_TIMEOUT_S) as sock:
            # A web server waits for the end of a line before it answers.
            sock.sendall(_AMQP_HEADER + b"\r\n\r\n")
            answer = sock.recv(len(_TLS_ALERT))
    except OSError:
        answer = b""
    if answer and answer != _TLS_ALERT:
        return Speech.OTHER
    return Speech.TLS if _speaks_tls(broker) else Speech.NONE


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


def _use_queue(session: Any, publishes: bool) -> None:
    """Declare a queue of the broker's naming, send it a message if ``publishes``, and delete it.

    The daemons need the same permissions. RabbitMQ blocks a connection at its first message, so the answer to the
    deletion proves that it is not blocked.
    """
    channel = session.channel()
    name = channel.queue_declare(exclusive=True, auto_delete=True).queue
    if publishes:
        channel.basic_publish(amqp.Message(b""), routing_key=name)
    channel.queue_delete(name)


def _count_consumers(session: Any, queues: Mapping[str, str]) -> dict[str, int]:
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

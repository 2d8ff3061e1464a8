# SPDX-License-Identifier: Apache-2.0
"""Why a broker cannot be used, and the remedy: what each failure of a connection means.

Why apart from :mod:`porthole_common.broker_connection`: a log line and a finding of ``porthole doctor`` have the same
words, and these are tested without a broker. No I/O.
"""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum

import amqp.exceptions  # type: ignore[import-untyped]

# How long a broker may take for each step of a connection.
STEP_TIMEOUT_S = 3.0
# OpenSSL's reasons when one side speaks TLS and the other one plain text.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING", "HTTP_REQUEST")
OPTION = "[DEFAULT] transport_url"
_ADMIN = "on the broker's host"


class PortProtocol(Enum):
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


def judge_amqp(broker: Broker, exc: Exception, find_protocol: Callable[[], PortProtocol]) -> Trouble:
    """Return the trouble behind a broker that answers and refuses the user, the virtual host or the queue.

    ``find_protocol`` is asked what the port speaks, where that may be why.
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
    protocol = find_protocol()
    if protocol is PortProtocol.TLS:
        problem = f"The broker at {broker} speaks TLS at this port, and the configuration does not."
        mend = (
            "Set [oslo_messaging_rabbit] ssl = true and ssl_ca_file, or give the port of the listener without TLS "
            f"(5672, as a rule) in {OPTION}."
        )
        return Trouble(Cause.TLS, problem, mend)
    if isinstance(exc, TimeoutError) and protocol is PortProtocol.NONE:
        return judge_address(broker, exc)
    problem = f"What answers at {broker} is not a broker that Porthole understands: {type(exc).__name__}."
    if isinstance(exc, TimeoutError):
        problem = f"Something listens at {broker} and does not speak AMQP; it may be a web server."
    mend = f"Give the address of RabbitMQ's AMQP listener in {OPTION}; rabbitmq-diagnostics listeners names it."
    return Trouble(Cause.PROTOCOL, problem, mend)


def judge_blocked(broker: Broker) -> Trouble:
    """Return the trouble of a broker that accepts connections and takes no messages."""
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

# SPDX-License-Identifier: Apache-2.0
"""What it means that a step fails; that a real RabbitMQ fails so is in the functional tests."""

import socket
import ssl
from dataclasses import replace

import amqp.exceptions
import pytest

from porthole_common.broker_trouble import Broker, PortProtocol, judge_address, judge_amqp, judge_tls

BROKER = Broker("192.0.2.10", 5672, "porthole", "secret-password", "/vhost", None)
TLS = Broker("192.0.2.10", 5671, "porthole", "secret-password", "/vhost", {"ca": None, "cert": None, "key": None})


def ssl_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "made for a test")
    error.reason = reason
    return error


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "made for a test")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "does not resolve"),
        (TimeoutError("timed out"), "did not answer within"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_an_address(error: OSError, words: str) -> None:
    found = judge_address(BROKER, error)
    assert found.cause == "address"
    assert words in found.problem


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (untrusted(), "self-signed certificate"),
        (ssl_error("WRONG_VERSION_NUMBER"), "does not speak TLS at this port"),
        (ssl_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        (FileNotFoundError(2, "No such file or directory", "/etc/ca.pem"), "/etc/ca.pem"),
    ],
)
def test_tls(error: Exception, words: str) -> None:
    found = judge_tls(TLS, error)
    assert found.cause == "tls"
    assert words in found.problem


@pytest.mark.parametrize(
    ("error", "protocol", "expected"),
    [
        (
            amqp.exceptions.AccessRefused("ACCESS_REFUSED - Login was refused using PLAIN"),
            PortProtocol.NONE,
            "credentials",
        ),
        (
            amqp.exceptions.AccessRefused("ACCESS_REFUSED - configure access to queue"),
            PortProtocol.NONE,
            "permissions",
        ),
        (amqp.exceptions.NotAllowed("NOT_ALLOWED - vhost /vhost not found"), PortProtocol.NONE, "vhost"),
        (ConnectionResetError(104, "Connection reset by peer"), PortProtocol.TLS, "tls"),
        (ConnectionResetError(104, "Connection reset by peer"), PortProtocol.NONE, "protocol"),
        (TimeoutError("timed out"), PortProtocol.NONE, "address"),
        (TimeoutError("timed out"), PortProtocol.OTHER, "protocol"),
        (TimeoutError("timed out"), PortProtocol.TLS, "tls"),
        (amqp.exceptions.UnexpectedFrame("Received 0x47"), PortProtocol.NONE, "protocol"),
    ],
)
def test_amqp(error: Exception, protocol: PortProtocol, expected: str) -> None:
    assert judge_amqp(BROKER, error, lambda: protocol).cause == expected


def test_no_trouble_and_no_repr_holds_the_password() -> None:
    refused = amqp.exceptions.AccessRefused("a login")
    troubles = [judge_address(BROKER, TimeoutError()), judge_tls(TLS, ssl_error("X"))]
    troubles += [
        judge_amqp(BROKER, error, lambda: PortProtocol.OTHER)
        for error in (TimeoutError(), ConnectionResetError(), refused)
    ]
    assert "secret-password" not in repr([BROKER, troubles])


def test_a_broker_is_named_as_an_operator_writes_it() -> None:
    assert (str(BROKER), str(replace(BROKER, host="2001:db8::1"))) == ("192.0.2.10:5672", "[2001:db8::1]:5672")

# SPDX-License-Identifier: Apache-2.0
"""Explains a wrong transport URL, and how to write it, in one sentence without any part of the URL.

Why: the URL contains the password. A character that is not percent-encoded ends the password early, and oslo.messaging
takes its remainder for a host name, which log lines show. Pure. Called by :mod:`porthole_common.rpc_transport` before
oslo.messaging parses the URL.
"""

import re

# How a transport URL is written.
FORM = "rabbit://USER:PASSWORD@HOST:5672/VHOST"
_ENCODE = (
    "percent-encode the special characters of user, password and virtual host: write %40 for @, %2F for /, "
    f"%3A for :, %3F for ?, %23 for #, %2C for a comma, %5B and %5D for [ and ]; the form is {FORM}"
)
_PORT = f"a port in the URL is not a number from 1 to 65535; write {FORM}"
# How other programs call RabbitMQ's protocol; oslo.messaging calls it rabbit.
_AMQP = {
    "amqp": f"write rabbit:// instead of amqp://; the form is {FORM}",
    "amqps": f"write rabbit:// instead of amqps://, and set [oslo_messaging_rabbit] ssl = true; the form is {FORM}",
}
_AUTHORITY = re.compile(r"[^/?#]*")
# An IPv6 address without brackets, which oslo.messaging takes too; one in brackets; a name or an IPv4 address.
_HOST = r"[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*|\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[\w.-]*"
_WITH_PORT = re.compile(rf"({_HOST})(?::(.*))?")
_MAX_PORT = 65535


def find_fault(url: str) -> str:
    """Return the fault of ``url`` and what to write instead; "" when no fault is found.

    The form is ``TRANSPORT://[USER:PASSWORD@]HOST[:PORT][,...][/VHOST][?OPTION=VALUE]``.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme:
        return f"the value is not a transport URL; write {FORM}"
    if scheme.lower() in _AMQP:
        return _AMQP[scheme.lower()]
    found = _AUTHORITY.match(rest)
    authority = found[0] if found else ""
    tail = rest[len(authority) :]
    path, _, query = tail.partition("?")
    if "#" in tail or "@" in path or ("@" in query and "=" not in query):
        return _ENCODE
    brokers = [each for each in authority.split(",") if each]
    with_login = ["@" in each for each in brokers]
    # A broker without a login before one with a login: the comma belongs to a password.
    if with_login != sorted(with_login, reverse=True):
        return _ENCODE
    return next(filter(None, map(_find_fault_of_broker, brokers)), "")


def _find_fault_of_broker(text: str) -> str:
    login, separator, address = text.rpartition("@")
    found = _WITH_PORT.fullmatch(address)
    if any(character in login for character in "@[]") or found is None:
        return _ENCODE
    port = found[2]
    if port is None or (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) <= _MAX_PORT):
        return ""
    # Without a login this may be USER:PASSWORD, of which a / or ? has cut off the remainder.
    return _PORT if separator or not port else f"{_PORT}; {_ENCODE}"

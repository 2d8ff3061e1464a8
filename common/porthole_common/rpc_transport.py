# SPDX-License-Identifier: Apache-2.0
"""oslo.messaging's transport: its options and their defaults, the configurations that are refused, and the brokers.

Called by :mod:`porthole_common.rpc`, and by ``porthole doctor``, which connects to the brokers itself.
"""

from typing import Any

from oslo_config import cfg
from oslo_utils import strutils

from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.broker import Broker
from porthole_common.messaging import oslo_messaging, oslo_messaging_opts
from porthole_common.transport_url import FORM, find_fault

_OPTION = "[DEFAULT] transport_url"
_NOT_A_URL = f"the value is not a transport URL; write {FORM}"
_RABBIT = "oslo_messaging_rabbit"
# RabbitMQ's manual calls 5 to 20 s the best range.
HEARTBEAT_S = 10


def open_transport(conf: cfg.ConfigOpts, timeout_s: float, transport_url: str | None = None) -> Any:
    """Return oslo.messaging's transport, which is not connected yet.

    ``timeout_s`` is the deadline of a call. ``transport_url`` replaces the option of that name.

    :raises ConfigInvalid: when the transport URL is wrong or its transport is not installed; when TLS would check no
        certificate.
    """
    _set_defaults(conf, timeout_s)
    if transport_url is None:
        _check_url(conf)
    _check_tls(conf, transport_url)
    try:
        transport = oslo_messaging.get_rpc_transport(conf, url=transport_url, allowed_remote_exmods=[errors.__name__])
    except oslo_messaging.DriverLoadFailure as exc:
        raise errors.ConfigInvalid(_OPTION, f'the transport "{exc.driver}" is not known; write {FORM}') from None
    except ImportError as exc:
        reason = f'a Python package is missing for its transport ("{exc.name}"); write {FORM}'
        raise errors.ConfigInvalid(_OPTION, reason) from None
    except (oslo_messaging.InvalidTransportURL, ValueError):
        # Its text would show the URL, and with it the broker's password.
        raise errors.ConfigInvalid(_OPTION, _NOT_A_URL) from None
    if transport_url is None and (conf.transport_url or "").startswith("fake:"):
        raise errors.ConfigInvalid(_OPTION, f"fake:// reaches no other process; write {FORM}")
    return transport


def list_brokers(conf: cfg.ConfigOpts) -> list[Broker]:
    """Return the brokers that the processes of this configuration connect to, in its order.

    :raises ConfigInvalid: when the transport URL is wrong, or names another transport than RabbitMQ.
    """
    _set_defaults(conf, 1)
    return _parse_brokers(conf)


def find_watched_brokers(conf: cfg.ConfigOpts) -> list[Broker]:
    """Return the brokers of an open transport; none for a transport other than RabbitMQ."""
    try:
        return _parse_brokers(conf)
    except errors.ConfigInvalid:
        return []


def _check_url(conf: cfg.ConfigOpts) -> None:
    fault = find_fault(conf.transport_url)
    if fault:
        raise errors.ConfigInvalid(_OPTION, fault)


def _parse_brokers(conf: cfg.ConfigOpts) -> list[Broker]:
    _check_url(conf)
    try:
        url = oslo_messaging.TransportURL.parse(conf)
    except (oslo_messaging.InvalidTransportURL, ValueError):
        # Its text would show the URL, and with it the broker's password.
        raise errors.ConfigInvalid(_OPTION, _NOT_A_URL) from None
    if url.transport not in {"rabbit", "kombu", "rabbitmq"}:
        raise errors.ConfigInvalid(_OPTION, f"{url.transport}:// does not lead to RabbitMQ; write {FORM}")
    tls = _read_tls(conf, url)
    # The values that oslo.messaging takes for the missing parts of a URL.
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


def _set_defaults(conf: cfg.ConfigOpts, timeout_s: float) -> None:
    """Give oslo.messaging's options the defaults that suit Porthole; a configuration file still wins."""
    for group, options in oslo_messaging_opts.list_opts():
        if group in {None, _RABBIT}:
            conf.register_opts(options, group=group)
            porthole_conf.check_options(conf, group or "DEFAULT", options)
    # Two new connections for each console made Nova's consoles slow to open: one connection is shared here.
    conf.set_default("rpc_conn_pool_size", 1, group=_RABBIT)
    conf.set_default("conn_pool_min_size", 1, group=_RABBIT)
    # A peer that is frozen or cut off is noticed within seconds. The broker then gives its messages to another server,
    # and no thread waits for TCP, which after a cut of half a minute tries again half a minute later.
    conf.set_default("heartbeat_timeout_threshold", HEARTBEAT_S, group=_RABBIT)
    # Connected again within seconds of the broker's return, not half a minute later.
    conf.set_default("rabbit_interval_max", 3, group=_RABBIT)
    # A reply is not offered for longer than its caller waits.
    conf.set_default("kombu_missing_consumer_retry_timeout", int(timeout_s), group=_RABBIT)


def _read_tls(conf: cfg.ConfigOpts, url: Any) -> dict[str, str | None] | None:
    """Return the files of TLS by their role, None without TLS: as oslo.messaging, a parameter of the URL wins."""
    options = conf[_RABBIT]
    if not strutils.bool_from_string(url.query.get("ssl", options.ssl)):
        return None
    files = {"ca": "ssl_ca_file", "cert": "ssl_cert_file", "key": "ssl_key_file"}
    return {name: url.query.get(option, options[option]) or None for name, option in files.items()}


def _check_tls(conf: cfg.ConfigOpts, transport_url: str | None) -> None:
    """Refuse TLS without an authority: oslo.messaging would then accept any certificate.

    :raises ConfigInvalid: when no authority is named.
    """
    try:
        url = oslo_messaging.TransportURL.parse(conf, transport_url)
    except (oslo_messaging.InvalidTransportURL, ValueError):
        # The error of the URL itself follows.
        return
    tls = _read_tls(conf, url)
    if tls is not None and not tls["ca"]:
        raise errors.ConfigInvalid("[oslo_messaging_rabbit] ssl_ca_file", "without it any broker would be trusted")

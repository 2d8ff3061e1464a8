# SPDX-License-Identifier: Apache-2.0
"""The listening sockets of the doors: real ones, on loopback, on ports that the kernel chooses."""

import contextlib
import resource
import socket

import pytest
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.conf import novncproxy
from porthole_novncproxy.admission.limits import SessionCounter
from porthole_novncproxy.daemon import build_limits, build_waiting_limits, open_listeners
from porthole_novncproxy.doors import DOORS, NOVNC, XVPVNC
from support.cases import naming

IPV4, IPV6 = "127.0.0.1", "::1"


@contextlib.contextmanager
def listening(**options):
    """The listening sockets of a configuration, which are closed at the end."""
    conf = cfg.ConfigOpts()
    porthole_conf.register_opts(conf)
    conf([])
    for name, value in {"novncproxy_port": 0, "xvpvncproxy_port": 0, **options}.items():
        conf.set_override(name, value, group="vnc")
    listeners = open_listeners(conf)
    try:
        yield listeners
    finally:
        for listener in listeners.values():
            listener.close()


def is_reached(listener, host):
    try:
        with socket.create_connection((host, listener.getsockname()[1]), 10):
            return True
    except ConnectionRefusedError:
        return False


def test_a_wildcard_address_takes_clients_of_ipv4_and_the_ipv6_one_of_both():
    cases = [
        ("0.0.0.0", [True, False]),
        ("127.0.0.1", [True, False]),
        ("::", [True, True]),
        ("0::0", [True, True]),
        ("::1", [False, True]),
    ]
    for host, reached in cases:
        with naming(host), listening(novncproxy_host=host, xvpvncproxy_host=host) as listeners:
            for door in DOORS:
                assert [is_reached(listeners[door], address) for address in (IPV4, IPV6)] == reached


def test_a_door_that_is_switched_off_is_not_listened_at():
    with listening(xvpvncproxy_enabled=False, novncproxy_host=IPV4) as listeners:
        assert list(listeners) == [NOVNC]
    with listening(novncproxy_host=IPV4, xvpvncproxy_host=IPV4) as listeners:
        assert list(listeners) == [NOVNC, XVPVNC]


def test_an_address_that_cannot_be_listened_on_names_the_options_and_itself():
    with socket.create_server((IPV4, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.AddressUnavailable) as caught, listening(novncproxy_host=IPV4, novncproxy_port=port):
            pass
    assert caught.value.option == "[vnc] novncproxy_host, novncproxy_port"
    assert f"{IPV4}:{port}: Address already in use" in str(caught.value)


def test_each_limit_of_sessions_is_counted_and_may_change_while_the_daemon_runs():
    options = [option for option in novncproxy.OPTS if option.name.startswith("max_sessions")]
    assert options
    for option in options:
        with naming(option.name):
            assert option.mutable
            conf = cfg.ConfigOpts()
            porthole_conf.register_opts(conf)
            conf([])
            conf.set_override(option.name, 1, group="novncproxy")
            counter = SessionCounter(build_limits(conf))
            counter.reserve("192.0.2.7", "token", "i-1", "u-1")
            with pytest.raises(errors.LimitReached) as caught:
                counter.reserve("192.0.2.7", "token", "i-1", "u-1")
            assert caught.value.values() == (f"[novncproxy] {option.name}",)


def test_descriptors_are_kept_back_from_clients_that_wait():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    conf = cfg.ConfigOpts()
    porthole_conf.register_opts(conf)
    conf([])
    try:
        for limit, reserved, mark in ((1024, 64, 960), (1024, 1000, 768)):
            with naming(limit, reserved):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                conf.set_override("reserved_descriptors", reserved, group="novncproxy")
                assert build_waiting_limits(conf).descriptor_mark == mark
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    conf.set_override("max_waiting_connections", 77, group="novncproxy")
    conf.set_override("max_waiting_connections_per_source", 9, group="novncproxy")
    limits = build_waiting_limits(conf)
    assert (limits.total, limits.per_source) == (77, 9)


def test_limits_that_the_operator_raises_under_attack_need_no_restart():
    names = {"max_waiting_connections", "max_waiting_connections_per_source", "reserved_descriptors"}
    assert names == {option.name for option in novncproxy.OPTS if option.name in names and option.mutable}

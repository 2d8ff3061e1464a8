# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import errors
from support.cases import naming

OPTIONS = [(group, option) for group, options in porthole_conf.list_opts() for option in options]
NAMES = [f"{group}.{option.name}" for group, option in OPTIONS]


def parse(tmp_path: Path, text: str) -> cfg.ConfigOpts:
    path = tmp_path / "porthole.conf"
    path.write_text(text, encoding="utf-8")
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "porthole-test", ["--config-file", str(path)])
    return conf


def read(conf: cfg.ConfigOpts, group: str, name: str) -> object:
    return conf[name] if group == "DEFAULT" else conf[group][name]


def test_every_listed_option_is_registered_with_help(tmp_path: Path) -> None:
    conf = parse(tmp_path, "")
    for group, option in OPTIONS:
        with naming(group, option.name):
            assert option.help
            assert read(conf, group, option.dest) == option.default


def test_every_number_has_a_lower_bound() -> None:
    for group, option in OPTIONS:
        with naming(group, option.name):
            if isinstance(option, cfg.IntOpt | cfg.FloatOpt):
                assert getattr(option.type, "min", None) is not None


def test_a_silent_console_is_pinged_before_middleboxes_cut_it(tmp_path: Path) -> None:
    """Many do after 60 s (O8)."""
    assert 0 < parse(tmp_path, "").novncproxy.ping_interval < 60


def test_no_option_is_listed_twice() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_registering_twice_does_no_harm() -> None:
    conf = cfg.ConfigOpts()
    porthole_conf.register_opts(conf)
    porthole_conf.register_opts(conf)


def test_values_of_the_file(tmp_path: Path) -> None:
    conf = parse(tmp_path, "[memcache]\nservers = a:1, [::1]:2\n[consoleauth]\ntoken_ttl = 60\n")
    assert conf.memcache.servers == ["a:1", "[::1]:2"]
    assert conf.consoleauth.token_ttl == 60


def test_older_names_of_nova_and_of_porthole(tmp_path: Path) -> None:
    old = {
        "DEFAULT": {
            "vnc_enabled": "false",
            "vncserver_listen": "192.0.2.1",
            "vncserver_proxyclient_address": "192.0.2.2",
            "novncproxy_host": "192.0.2.3",
            "novncproxy_port": "1",
            "novncproxy_base_url": "http://192.0.2.4/",
            "xvpvncproxy_host": "192.0.2.5",
            "xvpvncproxy_port": "2",
            "xvpvncproxy_base_url": "http://192.0.2.6/",
            "console_token_ttl": "3",
            "console_allowed_origins": "a.example",
            "libvirt_uri": "test:///default",
            "auth_strategy": "keystone",
        },
        "api": {"rpc_timeout": "4"},
    }
    lines = [line for group, options in old.items() for line in (f"[{group}]", *map(" = ".join, options.items()))]
    conf = parse(tmp_path, "\n".join(lines) + "\n")
    vnc = conf.vnc
    assert [conf.rpc.call_timeout, conf.consoleauth.token_ttl, vnc.novncproxy_port, vnc.xvpvncproxy_port] == [
        4,
        3,
        1,
        2,
    ]
    assert (vnc.enabled, vnc.server_listen, vnc.server_proxyclient_address) == (False, "192.0.2.1", "192.0.2.2")
    assert (vnc.novncproxy_host, vnc.xvpvncproxy_host) == ("192.0.2.3", "192.0.2.5")
    assert (vnc.novncproxy_base_url, vnc.xvpvncproxy_base_url) == ("http://192.0.2.4/", "http://192.0.2.6/")
    assert conf.console.allowed_origins == ["a.example"]
    assert (conf.libvirt.connection_uri, conf.api.auth_strategy) == ("test:///default", "keystone")
    vnc = parse(tmp_path, "[vnc]\nvncserver_listen = ::1\nvncserver_proxyclient_address = ::2\n").vnc
    assert (vnc.server_listen, vnc.server_proxyclient_address) == ("::1", "::2")


def test_a_bad_value_names_its_option(tmp_path: Path) -> None:
    cases = [
        ("consoleauth", "token_ttl = 0"),
        ("consoleauth", "token_ttl = 2592001"),
        ("api", "auth_strategy = wishful"),
        ("compute", "driver = teleport"),
        ("console", "ssl_minimum_version = tlsv1"),
        ("vnc", "novncproxy_port = 65536"),
        ("vnc", "novncproxy_base_url = ftp://x/"),
        ("upgrade_levels", "consoleauth = 2.0"),
        ("upgrade_levels", "revocations = auto"),
    ]
    for group, line in cases:
        with naming(group, line):
            with pytest.raises(errors.ConfigInvalid) as caught:
                parse(tmp_path, f"[{group}]\n{line}\n")
            assert caught.value.option == f"[{group}] {line.split(maxsplit=1)[0]}"


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(cfg.ConfigFilesNotFoundError):
        porthole_conf.parse(cfg.ConfigOpts(), "porthole-test", ["--config-file", "/nonexistent/porthole.conf"])

# SPDX-License-Identifier: Apache-2.0
"""An option that nobody reads is named with its place; what a library reads is not called unknown."""

from pathlib import Path

import pytest
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import log
from porthole_common.messaging import oslo_messaging_opts
from porthole_common.unknown_options import find_unknown_options, search_files, warn_of_unknown_options


def parse(*paths: Path) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "porthole-test", [f"--config-file={path}" for path in paths])
    return conf


def find(path: Path, text: str) -> list[tuple[int, str, str]]:
    path.write_text(text, encoding="utf-8")
    return [(each.line, str(each), each.nearest) for each in find_unknown_options(parse(path))]


def test_an_unknown_option_is_found_with_the_option_that_may_be_meant(tmp_path: Path) -> None:
    path = tmp_path / "porthole.conf"
    for text, expected in (
        ("[vnc]\nnovncproxy_prot = 1\n", (2, "[vnc] novncproxy_prot", "[vnc] novncproxy_port")),
        ("[VNC]\n# A comment.\nnovncproxy_prot : 1\n", (3, "[VNC] novncproxy_prot", "[vnc] novncproxy_port")),
        ("[DEFAULT]\ntoken_ttl = 1\n", (2, "[DEFAULT] token_ttl", "[consoleauth] token_ttl")),
        ("[consoleauth]\ntransport_url = x\n", (2, "[consoleauth] transport_url", "[DEFAULT] transport_url")),
        ("[DEFAULT]\nrecord = /x\n", (2, "[DEFAULT] record", "")),
        # The name of a group is no option.
        ("[DEFAULT]\nvnc = true\n", (2, "[DEFAULT] vnc", "")),
        ("[upgrade_levels]\ncompute = auto\n", (2, "[upgrade_levels] compute", "")),
        ("[DEFAULT]\ndebgu = true\n", (2, "[DEFAULT] debgu", "[DEFAULT] debug")),
        # oslo.config knows DEFAULT in capitals only, and no dash for an underscore.
        ("[default]\nhost = a\n", (2, "[default] host", "[DEFAULT] host")),
        ("[api]\nbind-port = 1\n", (2, "[api] bind-port", "[api] bind_port")),
    ):
        assert find(path, text) == [expected], text


def test_what_oslo_config_ignores_is_what_is_found(tmp_path: Path) -> None:
    path = tmp_path / "porthole.conf"
    assert len(find(path, "[default]\nhost = a\n[DEFAULT]\nhost = b\n[api]\nbind-port = 1\n")) == 2
    conf = parse(path)
    assert (conf.host, conf.api.bind_port) == ("b", 8774)


def test_every_option_that_somebody_reads_is_known(tmp_path: Path) -> None:
    """Porthole's own, by old names too, and those of oslo.log, oslo.messaging and oslo.config."""
    conf = cfg.ConfigOpts()
    log.register_opts(conf)
    listed = [*porthole_conf.list_opts(), ("DEFAULT", log.list_opts(conf)), ("DEFAULT", [cfg.StrOpt("config_source")])]
    listed += [("DEFAULT", options) for group, options in oslo_messaging_opts.list_opts() if group is None]
    names = set()
    for group, options in listed:
        for option in options:
            names.add((group, option.name))
            names.update((old.group or group, old.name or option.name) for old in option.deprecated_opts)
    path = tmp_path / "porthole.conf"
    # The options are written after the parsing: their values are not valid.
    path.write_text("", encoding="utf-8")
    conf = parse(path)
    path.write_text("".join(f"[{group}]\n{name} = x\n" for group, name in names), encoding="utf-8")
    assert len(names) > 100
    assert find_unknown_options(conf) == []


def test_groups_of_libraries_are_not_examined(tmp_path: Path) -> None:
    groups = ("oslo_messaging_rabbit", "keystone_authtoken", "oslo_policy", "cors", "anything")
    assert find(tmp_path / "porthole.conf", "".join(f"[{group}]\nnonsense = 1\n" for group in groups)) == []


def test_a_value_of_several_lines_is_one_option(tmp_path: Path) -> None:
    text = "[memcache]\nservers = a:1,\n  tls = b:1,\n\tmore = c:1\n"
    assert find(tmp_path / "porthole.conf", text) == []


def test_a_file_that_is_gone_has_none(tmp_path: Path) -> None:
    assert search_files([tmp_path / "none"], {"api": {"x"}}, {}) == []


def test_an_old_name_is_known_and_not_suggested(tmp_path: Path) -> None:
    path = tmp_path / "porthole.conf"
    path.write_text("[api]\nold_name = 1\nold_nam = 1\n", encoding="utf-8")
    (found,) = search_files([path], {"api": {"new"}}, {"api": {"old_name"}})
    assert (found.name, found.nearest) == ("old_nam", "")


def test_each_unknown_option_of_each_file_is_one_warning_without_its_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [tmp_path / "one.conf", tmp_path / "two.conf"]
    for path in paths:
        path.write_text("[memcache]\npasword = secret\n", encoding="utf-8")
    warn_of_unknown_options(parse(*paths))
    assert [record.getMessage() for record in caplog.records] == [
        f'Unknown option ignored option="[memcache] pasword" file={path} line=2 nearest="[memcache] password"'
        for path in paths
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}

# SPDX-License-Identifier: Apache-2.0
"""A configuration that cannot be used is explained in one sentence: where, which option, and what is allowed."""

from pathlib import Path

import pytest
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.config_faults import explain


def explain_files(*paths: Path) -> str:
    """Return what is said of files that cannot be used."""
    conf = cfg.ConfigOpts()
    argv = [f"--config-file={path}" for path in paths]
    with pytest.raises((cfg.Error, errors.ConfigInvalid, OSError)) as caught:
        porthole_conf.parse(conf, "porthole-test", argv)
    return explain(caught.value)


def test_a_value_is_named_with_its_place_and_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "porthole.conf"
    for group, line, expected in (
        ("api", "workers = abc", '[api] workers: "abc" in {} is not an integer from 1 to 1000'),
        ("api", "workers=0", '[api] workers: "0" in {} is not an integer from 1 to 1000'),
        ("api", "bind_port : x", '[api] bind_port: "x" in {} is not a TCP port from 0 to 65535'),
        ("api", "auth_strategy = x", '[api] auth_strategy: "x" in {} is not one of noauth, http_basic, keystone'),
        ("api", "bind_host = a b", '[api] bind_host: "a b" in {} is not an IP address or a host name'),
        (
            "api",
            "public_endpoint = ftp://x",
            '[api] public_endpoint: "ftp://x" in {} is not a URL that begins with http:// or https://',
        ),
        ("DEFAULT", "ssl_only = maybe", '[DEFAULT] ssl_only: "maybe" in {} is not a boolean: true or false'),
        ("DEFAULT", "use_json = maybe", '[DEFAULT] use_json: "maybe" in {} is not a boolean: true or false'),
        ("memcache", f"pool_size = {'9x' * 50}", "..." + '" in {} is not an integer from'),
    ):
        path.write_text(f"# A comment.\n[vnc]\nworkers = 3\n[{group}]\n{line}\n", encoding="utf-8")
        said = explain_files(path)
        assert expected.format(f"{path}, line 5,") in said
        assert len(said.splitlines()) == 1


def test_a_dollar_sign_is_named_without_the_value(tmp_path: Path) -> None:
    path = tmp_path / "porthole.conf"
    for group, option, value in (
        ("api", "bind_port", "secret-$word"),
        ("memcache", "servers", "secret-${word}"),
        ("DEFAULT", "log_file", "secret-$word"),
        ("DEFAULT", "log_dir", "secret-$word.more"),
    ):
        path.write_text(f"[{group}]\n{option} = {value}\n", encoding="utf-8")
        assert explain_files(path) == (
            f"[{group}] {option} in {path}, line 2: `$` begins a substitution, and no option has the name after it; "
            "write `$$` for a dollar sign"
        )


def test_the_value_that_counts_is_the_one_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one of the last file; the environment before all files."""
    first, second = tmp_path / "first.conf", tmp_path / "second.conf"
    first.write_text("[api]\nworkers = 1\n", encoding="utf-8")
    second.write_text("[api]\nworkers = 2\n[API]\nworkers = many\n", encoding="utf-8")
    assert f'"many" in {second}, line 4, is not' in explain_files(first, second)
    monkeypatch.setenv("OS_API__WORKERS", "all")
    assert '"all" in the environment variable OS_API__WORKERS is not' in explain_files(first, second)


def test_a_line_that_does_not_parse_is_named_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "porthole.conf"
    for text, number, words in (
        ("[DEFAULT]\nsecret-password\n", 2, "the line is not an option; write NAME = VALUE"),
        ("transport_url = secret-password\n", 1, "an option stands before the first [GROUP]"),
        ("[api\n", 1, "the name of a group must end with ]"),
        ("[]\n", 1, "a group has no name"),
        (" secret-password\n", 1, "a line that begins with a space continues an option, but there is none before"),
        ("[api]\n= secret-password\n", 2, "an option has no name"),
    ):
        path.write_text(text, encoding="utf-8")
        assert explain_files(path) == f"{path}, line {number}: {words}"


def test_a_byte_order_mark_is_named(tmp_path: Path) -> None:
    path = tmp_path / "porthole.conf"
    for text in ("[api]\nworkers = 1\n", "# A comment.\n[api]\n", "workers = 1\n"):
        path.write_text(text, encoding="utf-8-sig")
        assert explain_files(path) == (
            f"{path}: the file begins with a byte order mark (BOM); save it as UTF-8 without one"
        )


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    binary, missing = tmp_path / "binary.conf", tmp_path / "missing.conf"
    binary.write_bytes(b"[api]\nworkers = \xff\n")
    assert explain_files(binary) == f"{binary}: it is not UTF-8 text"
    assert explain_files(missing) == f"{missing}: there is no such file"
    assert explain_files(tmp_path) == f"{tmp_path}: Is a directory"
    denied = cfg.ConfigFilesPermissionDeniedError(["/a.conf", "/b.conf"])
    assert explain(denied) == "/a.conf, /b.conf: the file may not be read: permission denied"
    assert explain(cfg.ConfigDirNotFoundError("/a.d")) == "/a.d: there is no such folder"


def test_what_is_wrong_on_the_command_line_is_argparses_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        porthole_conf.parse(cfg.ConfigOpts(), "porthole-test", ["--nonsense"])
    assert caught.value.code == 2
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err


def test_nothing_is_shown_of_a_value_with_a_dollar(tmp_path: Path) -> None:
    """oslo.config's words name what stands behind the "$", and that is the end of a password."""
    path = tmp_path / "porthole.conf"
    hint = f"in {path}, line 2: `$` begins a substitution, and no option has the name after it"
    hint += "; write `$$` for a dollar sign"
    for value in ("Abc$tail9", "Abc${tail9}", "Abc$tail9.tail9", "Abc$memcache"):
        path.write_text(f"[memcache]\npassword = {value}\n", encoding="utf-8")
        assert explain_files(path) == f"[memcache] password {hint}"
    # An option that is no secret may name one that is.
    path.write_text("[memcache]\nservers = $password\npassword = Abc$tail9\n", encoding="utf-8")
    assert explain_files(path) == f"[memcache] servers {hint}"
    path.write_text("[DEFAULT]\nlog_dir = /x/$tail9\n", encoding="utf-8")
    assert "`$$`" in explain_files(path)
    assert "tail9" not in explain_files(path)
    path.write_text("[memcache]\npassword = Abc$$tail9\n", encoding="utf-8")
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "porthole-test", [f"--config-file={path}"])
    assert conf.memcache.password == "Abc$tail9"


def test_nothing_is_shown_of_a_secret_of_another_library(tmp_path: Path) -> None:
    path = tmp_path / "porthole.conf"
    for opt, value, expected in (
        (cfg.IntOpt("ssl_key_password"), "tail9", "[lib] ssl_key_password: the value in {}, line 2, is not an integer"),
        (cfg.IntOpt("own", secret=True), "tail9", "[lib] own: the value in {}, line 2, is not an integer"),
        (cfg.StrOpt("own", regex="^y$", secret=True), "tail9", "[lib] own: the value is not valid ({}, line 2)"),
        (cfg.URIOpt("auth_url", schemes=["http"]), "ftp://u:tail9@x", "[lib] auth_url: the value in {}, line 2, is"),
        (cfg.StrOpt("hook", regex="^y$"), "ftp://u:tail9@x", "[lib] hook: the value is not valid ({}, line 2)"),
        (cfg.IntOpt("size"), "many", '[lib] size: "many" in {}, line 2, is not an integer'),
    ):
        path.write_text(f"[lib]\n{opt.name} = {value}\n", encoding="utf-8")
        conf = cfg.ConfigOpts()
        conf.register_opt(opt, group="lib")
        porthole_conf.parse(conf, "porthole-test", [f"--config-file={path}"])
        with pytest.raises(errors.ConfigInvalid) as caught:
            porthole_conf.check_options(conf, "lib", [opt])
        assert str(caught.value).startswith(expected.format(path))
        assert "tail9" not in str(caught.value)
        if not opt.secret:
            # Where only the name is known, the name and the form of the value decide.
            assert isinstance(caught.value.__cause__, Exception)
            assert "tail9" not in explain(caught.value.__cause__)

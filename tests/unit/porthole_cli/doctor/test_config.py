# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from oslo_config import cfg

from porthole_cli.doctor import config


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "porthole.conf"
    path.write_text("[DEFAULT]\nhost = node1\n", encoding="utf-8")
    path.chmod(0o640)
    return path


def load(path: Path) -> tuple[cfg.ConfigOpts, str | None, str]:
    conf = cfg.ConfigOpts()
    trouble = config.load(conf, [str(path)])
    return conf, (trouble and str(trouble.id)), (trouble.problem if trouble else "")


def examine(path: Path) -> list[str]:
    conf, trouble, _ = load(path)
    assert trouble is None
    return [str(each.id) for each in config.examine(conf)]


def test_a_file_in_order(path: Path) -> None:
    assert examine(path) == ["config.ok"]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0o644, "config.readable_by_all"), (0o666, "config.writable_by_all"), (0o642, "config.writable_by_all")],
)
def test_who_else_may_read_or_write(path: Path, mode: int, expected: str) -> None:
    path.chmod(mode)
    assert examine(path) == [expected]


def test_a_key_that_everybody_may_read(path: Path, tmp_path: Path) -> None:
    key = tmp_path / "proxy.key"
    key.touch(mode=0o600)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"cert = {tmp_path / 'proxy.pem'}\nkey = {key}\n")
    assert examine(path) == ["config.ok"]
    key.chmod(0o644)
    assert examine(path) == ["config.key_readable_by_all"]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.conf", tmp_path):
        _, trouble, problem = load(path)
        assert trouble == "config.unreadable"
        assert str(path) in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[api]\nbind_port = many\n", "[api] bind_port"),
        ("[vnc]\nnovncproxy_base_url = ftp://x\n", "novncproxy_base_url"),
        ("[DEFAULT]\nhost = node1\nsecret-password\n", "line 3: "),
        ("\ufeff[DEFAULT]\nhost = node1\n", "byte order mark"),
    ],
)
def test_what_does_not_do_is_named_without_its_line(path: Path, text: str, words: str) -> None:
    path.write_text(text, encoding="utf-8")
    _, trouble, problem = load(path)
    assert trouble == "config.invalid"
    assert words in problem
    assert "secret" not in problem


def test_options_that_nobody_reads(path: Path) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("rpc_response_timeout = 3\n[vnc]\nnovncproxy_prot = secret\n[api]\nrpc_timeout = 4\n")
    conf, _, _ = load(path)
    (found,) = config.examine(conf)
    assert (found.id, found.severity) == ("config.unknown_option", "warning")
    assert f"{path}, line 5: no part of Porthole reads [vnc] novncproxy_prot" in found.problem
    assert found.mend.startswith("Did you mean [vnc] novncproxy_port?")
    assert "secret" not in found.problem + found.mend


def test_no_file_at_all() -> None:
    conf = cfg.ConfigOpts()
    conf(args=[], default_config_files=[], default_config_dirs=[])
    assert [str(each.id) for each in config.examine(conf)] == ["config.missing"]


def test_what_the_daemons_would_read_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = tmp_path / ".porthole"
    # What a machine has in /etc is not for a test to take away.
    without = config.has_default_files()
    (directory / "porthole.conf.d").mkdir(parents=True)
    assert config.has_default_files() == without
    (directory / "porthole.conf.d" / "50-local.conf").touch()
    assert config.has_default_files()
    (directory / "porthole.conf.d" / "50-local.conf").unlink()
    (directory / "porthole.conf").touch()
    assert config.has_default_files()

# SPDX-License-Identifier: Apache-2.0
"""A daemon that cannot work with its configuration says which option it is, and ends; nothing needs to run for that."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.daemons import DAEMONS, Options, format_conf
from support.ports import free_port
from support.programs import run_program

EX_CONFIG = 78
TIMEOUT_S = 60


def start_with(tmp_path: Path, daemon: str, options: Options) -> subprocess.CompletedProcess[str]:
    """Run a daemon until it ends by itself."""
    path = tmp_path / "porthole.conf"
    path.write_text(format_conf(options), encoding="utf-8")
    return run(f"porthole_{daemon}.main", "--config-file", str(path))


def run(module: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a program as an operator does, without what Python tells developers, until it ends by itself."""
    return run_program(module, *argv, env={**os.environ, "PYTHONWARNINGS": ""}, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize(
    ("daemon", "option", "options"),
    [
        ("compute", "driver", {"compute": {"driver": "vmware"}}),
        (
            "compute",
            "[static] instances_file",
            {"compute": {"driver": "static"}, "static": {"instances_file": "/nope"}},
        ),
        ("compute", "novncproxy_base_url", {"vnc": {"novncproxy_base_url": "ftp://x"}}),
        ("api", "[api] auth_strategy", {"api": {"bind_host": "0.0.0.0", "auth_strategy": "noauth"}}),
        ("api", "auth_strategy", {"api": {"auth_strategy": "guess"}}),
        ("api", "bind_port", {"api": {"bind_port": 70000}}),
        ("api", "heartbeat_timeout_threshold", {"oslo_messaging_rabbit": {"heartbeat_timeout_threshold": "soon"}}),
        ("consoleauth", "[memcache] servers", {"memcache": {"servers": "nowhere"}}),
        ("consoleauth", "[DEFAULT] transport_url", {"DEFAULT": {"transport_url": "fake://"}}),
        ("api", "[DEFAULT] transport_url", {"DEFAULT": {"transport_url": "fake://"}}),
        ("compute", "[DEFAULT] transport_url", {"DEFAULT": {"transport_url": "nonsense://x"}}),
        ("novncproxy", "[DEFAULT] transport_url", {"DEFAULT": {"transport_url": "fake://"}}),
        ("consoleauth", "[DEFAULT] transport_url", {"DEFAULT": {"transport_url": "kafka://u:p@localhost"}}),
        ("consoleauth", "[DEFAULT] transport_url", {"DEFAULT": {"transport_url": "rabbit://u:p@localhost:99999/"}}),
        ("consoleauth", "[DEFAULT] transport_url", {"DEFAULT": {"transport_url": "rabbit://u:p@ss@localhost/"}}),
        ("novncproxy", "[DEFAULT] transport_url", {"DEFAULT": {"transport_url": "x://"}, "novncproxy": {"workers": 2}}),
        ("novncproxy", "[novncproxy] relay_low_mark", {"novncproxy": {"relay_low_mark": 10**6}}),
        ("novncproxy", "[DEFAULT] web", {"DEFAULT": {"web": "/nope"}}),
        ("novncproxy", "[DEFAULT] cert", {"DEFAULT": {"cert": "/nope.pem"}}),
        ("novncproxy", "[DEFAULT] ssl_only", {"DEFAULT": {"ssl_only": True}}),
        ("novncproxy", "[vnc] auth_schemes", {"vnc": {"auth_schemes": "vencrypt, vencript"}}),
        ("novncproxy", "[vnc] vencrypt_ca_certs", {"vnc": {"auth_schemes": "vencrypt", "vencrypt_ca_certs": "/nope"}}),
        ("novncproxy", "ssl_minimum_version", {"console": {"ssl_minimum_version": "sslv3"}}),
        ("novncproxy", "[console] ssl_ciphers", {"console": {"ssl_ciphers": "NOPE"}, "DEFAULT": {"cert": "/nope.pem"}}),
    ],
)
def test_the_option_is_named(tmp_path: Path, daemon: str, option: str, options: Options) -> None:
    ended = start_with(tmp_path, daemon, options)
    assert ended.returncode == EX_CONFIG
    # A service that began to start says that it ends.
    (line,) = (line for line in (ended.stdout + ended.stderr).splitlines() if " INFO " not in line)
    assert line.startswith(f"porthole-{daemon}: ")
    assert option in line
    # oslo.config's own words.
    assert "LocationInfo" not in line


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    cert = tmp_path / "cert.pem"
    cert.write_text("nonsense", encoding="utf-8")
    ended = start_with(tmp_path, "novncproxy", {"DEFAULT": {"cert": cert}})
    assert (ended.returncode, "[DEFAULT] cert" in ended.stderr) == (EX_CONFIG, True)


def test_an_address_that_may_be_free_or_there_later(tmp_path: Path) -> None:
    """systemd tries again: another process ends, a virtual address moves here, a resolver answers."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # 192.0.2.1 (RFC 5737) and .invalid (RFC 2606) are nobody's.
        for host in ("127.0.0.1", "192.0.2.1", "no-such-host.invalid"):
            vnc = {"novncproxy_host": host, "novncproxy_port": port, "xvpvncproxy_port": free_port()}
            api = {"bind_host": host, "bind_port": port, "auth_strategy": "noauth", "allow_noauth_anywhere": True}
            for daemon, named, options in (
                ("novncproxy", "novncproxy_port", {"vnc": vnc}),
                ("novncproxy", "novncproxy_port", {"vnc": vnc, "novncproxy": {"workers": 2}}),
                ("api", "[api] bind_", {"api": api}),
            ):
                ended = start_with(tmp_path, daemon, options)
                (line,) = (line for line in (ended.stdout + ended.stderr).splitlines() if " INFO " not in line)
                assert (ended.returncode, line.split(": ")[0]) == (1, f"porthole-{daemon}"), line
                assert named in line


def test_an_address_that_only_an_edit_mends(tmp_path: Path) -> None:
    ended = start_with(tmp_path, "novncproxy", {"vnc": {"novncproxy_host": "fe80::1", "novncproxy_port": free_port()}})
    assert (ended.returncode, "novncproxy_host" in ended.stderr) == (EX_CONFIG, True)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_sighup_while_a_daemon_imports_does_not_end_it(tmp_path: Path, daemon: str) -> None:
    """The signal comes when the first library is imported; the daemon lives on, and refuses its configuration."""
    path = tmp_path / "porthole.conf"
    path.write_text("[api]\nworkers = none\n", encoding="utf-8")
    program = f"""
import runpy, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "oslo_config":
            signal.raise_signal(signal.SIGHUP)

signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.meta_path.insert(0, Finder())
sys.argv = ["porthole-{daemon}", "--config-file", {str(path)!r}]
runpy.run_module("porthole_{daemon}.main", run_name="__main__", alter_sys=True)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=TIMEOUT_S, check=False)
    assert ended.returncode == EX_CONFIG, ended


def test_a_file_that_cannot_be_used_is_one_line_without_what_stands_in_it(tmp_path: Path) -> None:
    """Of all four daemons and of standalone: a line that does not parse may be the one with the password."""
    secret = "nonsense-password"
    bad = {
        "[api]\nworkers = abc\n": '[api] workers: "abc" in {}, line 2, is not an integer from 1 to 1000',
        "[DEFAULT]\ndebug = perhaps\n": '[DEFAULT] debug: "perhaps" in {}, line 2, is not a boolean: true or false',
        f"[DEFAULT]\n{secret}\n": "{}, line 2: the line is not an option; write NAME = VALUE",
        f"[DEFAULT]\nhost = ${secret}\n": "[DEFAULT] host in {}, line 2: `$` begins a substitution, and no option has "
        "the name after it; write `$$` for a dollar sign",
    }
    path = tmp_path / "porthole.conf"
    commands = {f"porthole-{daemon}": [f"porthole_{daemon}.main"] for daemon in DAEMONS}
    commands["porthole standalone"] = ["porthole_cli.main", "standalone"]
    for text, expected in bad.items():
        path.write_text(text, encoding="utf-8")
        for program, arguments in commands.items():
            ended = run(*arguments, "--config-file", str(path))
            said = f"{program}: {expected.format(path)}\n"
            assert (ended.returncode, ended.stdout + ended.stderr) == (EX_CONFIG, said)
            assert secret not in ended.stdout + ended.stderr


def test_an_option_that_nobody_knows_is_one_warning_of_each_daemon(tmp_path: Path) -> None:
    """The daemons would start with it; here another option ends them."""
    options: Options = {
        "DEFAULT": {"record": "/tmp/session", "transport_url": "fake://"},
        "vnc": {"novncproxy_prot": 1},
        "compute": {"driver": "static"},
    }
    for daemon in DAEMONS:
        ended = start_with(tmp_path, daemon, options)
        warnings = [line for line in (ended.stdout + ended.stderr).splitlines() if " WARNING " in line]
        assert len(warnings) == 2
        file = f"file={tmp_path / 'porthole.conf'} line="
        assert f'Unknown option ignored option="[DEFAULT] record" {file}' in warnings[0]
        assert f'Unknown option ignored option="[vnc] novncproxy_prot" {file}' in warnings[1]
        assert warnings[1].endswith('nearest="[vnc] novncproxy_port"')


def test_a_log_that_is_elsewhere_has_the_line_too(tmp_path: Path) -> None:
    log = tmp_path / "porthole.log"
    ended = start_with(tmp_path, "novncproxy", {"DEFAULT": {"web": "/x", "log_file": log}})
    assert (ended.returncode, ended.stderr.count("\n")) == (EX_CONFIG, 1)
    (line,) = log.read_text(encoding="utf-8").splitlines()
    assert "Daemon cannot start with its configuration" in line
    assert "[DEFAULT] web" in line
    ended = start_with(tmp_path, "novncproxy", {"DEFAULT": {"web": "/x", "use_json": True}})
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert json.loads(line)["extra"]["event"] == "Daemon cannot start with its configuration"

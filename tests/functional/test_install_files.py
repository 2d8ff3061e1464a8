# SPDX-License-Identifier: Apache-2.0
"""How deploy/install.sh changes a host, without a host: its functions in a shell, with stubs for what they call."""

import grp
import os
import sys
from pathlib import Path

import pytest

from support.processes import Process, wait_until

DEPLOY = Path(__file__).parents[2] / "deploy"
GROUP = grp.getgrgid(os.getgid()).gr_name
TIMEOUT_S = 30
SOURCE = f"set -euo pipefail; for f in packages files broker memcached; do . {DEPLOY}/$f.sh; done; make_scratch;"


class Shell:
    """Runs lines with the installer's functions. ``TLS`` and ``PENDING`` are in the test's folder."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.temporary = directory / "tmp"
        self.stubs = directory / "stubs"
        for folder in (self.temporary, self.stubs):
            folder.mkdir()

    def stub(self, name: str, lines: str) -> None:
        """Put a program of this name in front of the real one; each call of it is a line in ``calls``."""
        path = self.stubs / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.directory}/calls\n{lines}\n', encoding="ascii")
        path.chmod(0o755)

    def calls(self) -> str:
        return (self.directory / "calls").read_text(encoding="ascii")

    def process(self, lines: str) -> Process:
        settings = f"TLS={self.directory}/tls; PENDING={self.directory}/pending;"
        argv = ["bash", "-c", f"{SOURCE} {settings} {lines}"]
        env = {"PATH": f"{self.stubs}:{os.environ['PATH']}", "TMPDIR": str(self.temporary)}
        return Process(argv, self.directory / "out", env, name="install.sh's functions")

    def run(self, lines: str) -> int:
        process = self.process(lines)
        process.start()
        return process.wait(TIMEOUT_S)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_signal_in_the_middle_of_a_file_leaves_nothing_of_it(shell: Shell) -> None:
    folder = shell.directory / "etc"
    os.mkfifo(shell.directory / "source")
    process = shell.process(f"put {folder}/secret 0600 {GROUP} <{shell.directory}/source")
    process.start()
    with (shell.directory / "source").open("w", encoding="ascii") as source:
        source.write("half of the password")
        source.flush()
        wait_until(lambda: any(path.stat().st_size for path in folder.glob("secret.*")), TIMEOUT_S, "half of the file")
        process.signal(15)
    assert process.wait(TIMEOUT_S) == 143
    assert list(folder.iterdir()) == list(shell.temporary.iterdir()) == []


def test_a_failure_with_the_authoritys_key_in_hand_leaves_it_nowhere(shell: Shell) -> None:
    shell.stub("openssl", f'[ "$1" != x509 ] || exit 1\nPATH={os.environ["PATH"]} exec openssl "$@"')

    assert shell.run("make_certificates 192.0.2.1") == 1

    assert "could not make a certificate" in (shell.directory / "out").read_text(encoding="utf-8")
    assert (shell.directory / "tls" / "ca.key").exists()
    assert list(shell.temporary.iterdir()) == []


def test_a_name_is_no_pattern_for_another_one(shell: Shell) -> None:
    """The user of ``web.1`` is not there, though that of ``web-1`` is."""
    listed = 'printf "%s\\t[]\\n" porthole porthole-web-1'
    shell.stub(
        "rabbitmqctl",
        f'case "$2" in list_vhosts) echo porthole ;; list_users) {listed} ;; authenticate_user) exit 1 ;; esac',
    )

    assert shell.run("ensure_broker_user porthole-web.1 secret; ensure_broker_user porthole-web-1 secret") == 0

    assert "add_user porthole-web.1\n" in shell.calls()
    assert "change_password porthole-web.1" not in shell.calls()
    assert "change_password porthole-web-1\n" in shell.calls()


def test_a_change_is_noted_before_it_is_made_and_until_its_restarts_are_done(shell: Shell) -> None:
    pending = shell.directory / "pending"
    put = f"put {shell.directory}/etc/file 0600 {GROUP} <<<new"

    assert shell.run(f"notes_changes=yes; {put}; exit 1") == 1
    assert pending.exists()
    # The file is as it should be by now: nothing is changed, and what is to be restarted is still known.
    assert shell.run(f"notes_changes=yes; ! {put}") == 0
    assert pending.exists()
    assert shell.run("restarts_done") == 0
    assert not pending.exists()
    # "join" writes files that no daemon reads.
    assert shell.run(f"put {shell.directory}/etc/other 0600 {GROUP} <<<new") == 0
    assert not pending.exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("-m 64\n# Return error\n# -M\n-l 127.0.0.1\n", "-m 64\n# Return error\n-M\n-l 127.0.0.1\n"),
        ("-m 64\n", "-m 64\n-M\n"),
        ("-m 64\n -M \n# -M\n", None),
        ("--disable-evictions\n", None),
    ],
    ids=["commented", "missing", "there", "long"],
)
def test_memcached_is_told_to_delete_no_token(shell: Shell, before: str, after: str | None) -> None:
    """All other lines, and the mode of the file, stay; a second run changes nothing."""
    conf = shell.directory / "memcached.conf"
    conf.write_text(before, encoding="ascii")
    conf.chmod(0o640)
    shell.stub("systemctl", "echo 0")

    for _ in range(2):
        assert shell.run(f"MEMCACHED_CONF={conf}; keep_tokens; echo $changes changes") == 0
        assert conf.read_text(encoding="ascii") == (after or before)
        assert conf.stat().st_mode & 0o777 == 0o640

    said = (shell.directory / "out").read_text(encoding="utf-8").splitlines()
    assert [line for line in said if line.endswith(" changes")] == [f"{0 if after is None else 1} changes", "0 changes"]


@pytest.mark.parametrize(("option", "restarts"), [("-v", 1), ("-M", 0), ("--disable-evictions", 0)])
def test_a_memcached_that_runs_without_it_is_restarted(shell: Shell, option: str, restarts: int) -> None:
    """Also when an earlier run was interrupted between the change of the file and the restart."""
    conf = shell.directory / "memcached.conf"
    conf.write_text("-M\n", encoding="ascii")
    running = Process([sys.executable, "-c", "import time; time.sleep(60)", option], shell.directory / "running")
    running.start()
    try:
        shell.stub("systemctl", f'[ "$1" = restart ] || echo {running.pid}')
        assert shell.run(f"MEMCACHED_CONF={conf}; keep_tokens") == 0
    finally:
        running.stop()
    assert shell.calls().count("systemctl restart memcached\n") == restarts


@pytest.mark.parametrize("mode", ["644", "640", "604", "660"])
def test_a_join_secret_that_others_can_read_is_refused(shell: Shell, mode: str) -> None:
    secret = shell.directory / "secret"
    secret.write_text("secret", encoding="ascii")
    secret.chmod(int(mode, 8))

    assert shell.run(f"check_join_secret {secret}") == 1
    assert f"(mode {mode}): chmod 600 {secret}" in (shell.directory / "out").read_text(encoding="utf-8")

    secret.chmod(0o600)
    assert shell.run(f"check_join_secret {secret}") == 0

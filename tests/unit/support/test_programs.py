# SPDX-License-Identifier: Apache-2.0
"""A program that is forked runs as one that is started anew does."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.programs import run_program

Run = Callable[..., "subprocess.CompletedProcess[str]"]
# What a program can know of how it was started.
PROBE = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ.get("MARK"), __name__, sys.modules["__main__"].__spec__.name)
print(sys.stdin.read(), sys.stdout.isatty(), sys.stdout.encoding, os.getpid() == os.getpgrp())
print("to the other stream", file=sys.stderr)
"""
ENDS = """
import atexit, os, signal, sys, time
atexit.register(print, "the end")
counter = globals().get("counter", 0) + 1
print("run", counter)
if sys.argv[1] == "exit":
    sys.exit(3)
if sys.argv[1] == "words":
    sys.exit("words")
if sys.argv[1] == "raise":
    raise ValueError("a fault")
if sys.argv[1] == "signal":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "sleep":
    time.sleep(600)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs one of the programs, which are modules in a folder of the test."""
    # A server is kept for a module's name.
    for name, source in (("probe", PROBE), ("ends", ENDS)):
        indented = "".join(f"    {line}\n" for line in source.strip().splitlines())
        text = f'if __name__ == "__main__":\n{indented}'
        (tmp_path / f"{name}_{tmp_path.name}.py").write_text(text, encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("PYTHONWARNINGS", "")

    def run(name: str, *argv: str, timeout_s: float = 60, **environment: str) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, **environment}
        return run_program(f"{name}_{tmp_path.name}", *argv, env=env, cwd=tmp_path, timeout_s=timeout_s)

    return run


def start_anew(tmp_path: Path, name: str, *argv: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", f"{name}_{tmp_path.name}", *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**os.environ, **environment},
    )


def told(done: "subprocess.CompletedProcess[str]") -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def test_a_program_sees_what_it_would_see_if_it_were_started_anew(run: Run, tmp_path: Path) -> None:
    for argv, environment in (((), {}), (("a", "--b=c d"), {"MARK": "x"}), ((), {"PYTHONIOENCODING": "latin-1"})):
        expected = start_anew(tmp_path, "probe", *argv, **environment)
        assert expected.returncode == 0, expected.stderr
        assert told(run("probe", *argv, **environment)) == told(expected)


def test_it_ends_as_it_would(run: Run, tmp_path: Path) -> None:
    for how, status in (("", 0), ("exit", 3), ("words", 1), ("raise", 1), ("signal", -9)):
        expected = start_anew(tmp_path, "ends", how)
        assert expected.returncode == status
        done = run("ends", how)
        assert (done.returncode, done.stdout) == (status, expected.stdout)
        # The frames of a traceback differ, and its last line does not.
        assert done.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_a_program_that_takes_too_long_is_ended_and_the_next_one_runs(run: Run) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run("ends", "sleep", timeout_s=0.2)
    assert told(run("ends", "exit")) == (3, "run 1\nthe end\n", "")

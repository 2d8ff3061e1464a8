# SPDX-License-Identifier: Apache-2.0
"""A bounded run of the fuzz target; ``python -m support.rfb_fuzz CORPUS`` in tests/ goes on as long as one likes."""

import subprocess
import sys
from pathlib import Path

from support.rfb_target import write_corpus

RUNS = 30_000
TIMEOUT_S = 120
# libFuzzer's status for an input that brought about a fault.
FOUND = 77


def fuzz(directory: Path, whole: bool, *arguments: str) -> subprocess.CompletedProcess[str]:
    write_corpus(directory / "corpus", whole)
    argv = [sys.executable, "-m", "support.rfb_fuzz", *arguments, "-seed=1", "-max_len=400", "-rss_limit_mb=512"]
    argv += [f"-runs={RUNS}", f"-max_total_time={TIMEOUT_S // 2}", f"-artifact_prefix={directory}/", "corpus"]
    return subprocess.run(argv, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_no_input_brings_about_a_fault(tmp_path: Path) -> None:
    ran = fuzz(tmp_path, True)
    assert ran.returncode == 0, ran.stderr
    assert f"Done {RUNS} runs" in ran.stderr


def test_the_fuzzer_finds_its_way_to_the_end_of_a_negotiation(tmp_path: Path) -> None:
    ran = fuzz(tmp_path, False, "--planted")
    assert ran.returncode == FOUND, ran.stderr
    assert "the planted one" in ran.stderr + ran.stdout

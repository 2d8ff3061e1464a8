# SPDX-License-Identifier: Apache-2.0
"""Holds the samples in deploy/config against the options and the policy rules as they are declared.

Why: the samples are what operators read, and one that lies about a default is worse than none. They are written by
oslo.config's and oslo.policy's generators and never by hand. porthole.conf.sample lists Porthole's own options alone:
oslo.messaging and oslo.log have hundreds that change with each of their releases, and would turn this check red with
no change of ours. Called by ``tox -e samples``; ``--write`` renews the files.
"""

import argparse
import difflib
import sys
import tempfile
from pathlib import Path

from oslo_config import cfg
from oslo_config import generator as config_generator
from oslo_policy import generator as policy_generator

_CONFIG_DIR = Path(__file__).resolve().parents[2] / "deploy" / "config"
_GENERATOR_CONF = _CONFIG_DIR / "oslo-config-generator.conf"
_HEADER = """\
# Porthole's own options; one file serves all four daemons. "tox -e samples -- --write" renews it.
#
# The options of oslo.messaging, oslo.log, oslo.policy and keystonemiddleware are read from the same file, and listed by
#     oslo-config-generator --namespace oslo.messaging --namespace oslo.log \\
#         --namespace oslo.policy --namespace keystonemiddleware.auth_token
# Of those, one is needed wherever the daemons do not share a machine with their RabbitMQ, and one is handy:
#
# [DEFAULT]
# transport_url = rabbit://porthole:PASSWORD@CONTROLLER:5672/
# debug = true

"""
_POLICY_HEADER = """\
# Who may do what in the api, as it is without a policy file. Uncomment what you want otherwise, in a file
# policy.yaml beside porthole.conf. "tox -e samples -- --write" renews this sample.

"""


def build_config_sample() -> str:
    """Return the text that porthole.conf.sample must have."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "sample"
        config_generator.main(["--config-file", str(_GENERATOR_CONF), "--output-file", str(output)])
        return _HEADER + output.read_text(encoding="utf-8")


def build_policy_sample() -> str:
    """Return the text that policy.yaml.sample must have."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "sample"
        policy_generator.generate_sample(["--namespace", "porthole", "--output-file", str(output)], cfg.ConfigOpts())
        return _POLICY_HEADER + output.read_text(encoding="utf-8")


_SAMPLES = {"porthole.conf.sample": build_config_sample, "policy.yaml.sample": build_policy_sample}


def check(path: Path, expected: str) -> bool:
    """Say whether the file is what it must be, and print how it differs."""
    found = path.read_text(encoding="utf-8") if path.exists() else ""
    sys.stdout.writelines(
        difflib.unified_diff(
            found.splitlines(keepends=True), expected.splitlines(keepends=True), path.name, "as it is declared"
        )
    )
    return found == expected


def main(argv: list[str] | None = None) -> int:
    """Compare, or write with ``--write``; return 1 when a file is not what it must be."""
    parser = argparse.ArgumentParser(description="Compare the sample files with what is declared, or renew them.")
    parser.add_argument("--write", action="store_true", help="write the samples instead of comparing them")
    arguments = parser.parse_args(argv)
    texts = {_CONFIG_DIR / name: build() for name, build in _SAMPLES.items()}
    if arguments.write:
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
        return 0
    differing = [path for path, text in texts.items() if not check(path, text)]
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())

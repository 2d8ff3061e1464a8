# SPDX-License-Identifier: Apache-2.0
"""Holds deploy/config/porthole.conf.sample against the options as they are declared.

Why: the sample is what operators read, and one that lies about a default is worse than none. It is written
by oslo-config-generator and never by hand. It lists Porthole's own options alone: oslo.messaging and oslo.log
have hundreds that change with each of their releases, and would turn this check red with no change of ours.
Called by ``tox -e samples``; ``--write`` renews the file.
"""

import argparse
import difflib
import sys
import tempfile
from pathlib import Path

from oslo_config import generator

_CONFIG_DIR = Path(__file__).resolve().parents[2] / "deploy" / "config"
_GENERATOR_CONF = _CONFIG_DIR / "oslo-config-generator.conf"
_SAMPLE = _CONFIG_DIR / "porthole.conf.sample"
_HEADER = """\
# Porthole's own options; one file serves all four daemons. "tox -e samples -- --write" renews it.
#
# The options of oslo.messaging and oslo.log are read from the same file, and listed by
#     oslo-config-generator --namespace oslo.messaging --namespace oslo.log
# Of those, one is needed wherever the daemons do not share a machine with their RabbitMQ, and one is handy:
#
# [DEFAULT]
# transport_url = rabbit://porthole:PASSWORD@CONTROLLER:5672/
# debug = true

"""


def build_sample() -> str:
    """Return the text that the sample file must have."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / _SAMPLE.name
        generator.main(["--config-file", str(_GENERATOR_CONF), "--output-file", str(output)])
        return _HEADER + output.read_text(encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Compare, or write with ``--write``; return 1 when the file is not what it must be."""
    parser = argparse.ArgumentParser(description="Compare the sample configuration with the options, or renew it.")
    parser.add_argument("--write", action="store_true", help="write the sample instead of comparing it")
    arguments = parser.parse_args(argv)
    expected = build_sample()
    if arguments.write:
        _SAMPLE.write_text(expected, encoding="utf-8")
        return 0
    found = _SAMPLE.read_text(encoding="utf-8") if _SAMPLE.exists() else ""
    sys.stdout.writelines(
        difflib.unified_diff(
            found.splitlines(keepends=True), expected.splitlines(keepends=True), _SAMPLE.name, "the options"
        )
    )
    return int(found != expected)


if __name__ == "__main__":
    sys.exit(main())

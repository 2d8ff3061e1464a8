# SPDX-License-Identifier: Apache-2.0
"""``tox -e bench [-- SUITE ...]``: measures Porthole beside its peers and prints tables of ratios.

It passes or fails nothing: figures are for people. It starts the servers it needs and stops them.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from benchmarks import api, console, fuzz, hostile, idle, latency, rpc, sessions, throughput
from benchmarks.table import Row, describe_machine, format_table

SUITES: dict[str, Callable[[], list[Row]]] = {
    "rpc": rpc.run,
    "console": console.run,
    "api": api.run,
    "throughput": throughput.run,
    "latency": latency.run,
    "idle": idle.run,
    "fuzz": fuzz.run,
    "hostile": hostile.run,
    "sessions": sessions.run,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named suites, or all of them."""
    parser = argparse.ArgumentParser(prog="tox -e bench --", description=__doc__.splitlines()[0])
    parser.add_argument("suite", nargs="*", choices=[[], *SUITES], help="which to run; all without one")
    names = parser.parse_args(argv).suite or list(SUITES)
    sys.stdout.write(f"{describe_machine()}\n")
    for name in names:
        sys.stdout.write(f"\n{name}\n\n{format_table(SUITES[name]())}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

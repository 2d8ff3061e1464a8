# SPDX-License-Identifier: Apache-2.0
"""Fuzzes RFB's opening: ``python -m support.rfb_fuzz [--planted] [libFuzzer's options] [CORPUS]`` in tests/.

Why beside the property tests: atheris sees which lines an input reaches, and works its way behind the version, the
types and VeNCrypt's sub-types by itself. Without a fault it ends after ``-runs``; it ends with status 77 at an input
that brings one about. ``--planted`` has every finished negotiation count as a fault: a run that does not find that one
has not come far.
"""

import sys

import atheris

with atheris.instrument_imports(include=["porthole_common.rfb"]):
    from support.rfb_target import fuzz_one


def main(argv: list[str]) -> None:
    """Fuzz until libFuzzer's options say that it is enough; does not return."""
    planted = "--planted" in argv

    def run(data: bytes) -> None:
        fuzz_one(data, planted)

    atheris.Setup([argument for argument in argv if argument != "--planted"], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)

# SPDX-License-Identifier: Apache-2.0
"""Values of the command line that several commands take. Called by argparse."""

import argparse


def parse_limit(text: str) -> int:
    """Return how many items a list may have.

    :raises ArgumentTypeError: when it is not a number from 1 up.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text)):
        raise argparse.ArgumentTypeError("it must be a number from 1 up")
    return int(text)

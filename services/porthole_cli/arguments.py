# SPDX-License-Identifier: Apache-2.0
"""What the lists of sessions and of the history share: filters on the command line, and values of nested answers."""

import argparse
from collections.abc import Iterable, Mapping
from typing import Any


def add_filters(parser: argparse.ArgumentParser, filters: Mapping[str, str]) -> None:
    """Add an option for each filter; ``filters``: their names and helps."""
    for name, text in filters.items():
        parser.add_argument(f"--{name}", metavar=name.upper().replace("-", "_"), help=text)


def read_filters(parsed_args: argparse.Namespace, filters: Iterable[str]) -> dict[str, str]:
    """Return the filters that were given, by the API's names for them."""
    names = [name.replace("-", "_") for name in filters]
    return {name: value for name in names if (value := getattr(parsed_args, name)) is not None}


def parse_limit(text: str) -> int:
    """Return how many items a list may have.

    :raises ArgumentTypeError: when it is not a number from 1 up.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text)):
        raise argparse.ArgumentTypeError("it must be a number from 1 up")
    return int(text)


def find_value(item: Mapping[str, Any], path: Iterable[str]) -> Any:
    """Return the value at ``path``, the keys from the outside in; "" where there is none."""
    value: Any = item
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return "" if value is None else value

# SPDX-License-Identifier: Apache-2.0
"""Checks a cloud in clouds.yaml, and names the file and the key that are wrong.

Why: openstacksdk does not check the types, so an empty ``auth:`` is a traceback, and the error of a wrong
``api_timeout`` names neither file nor key. Called by :mod:`porthole_cli.cloud`, before openstacksdk reads the same
files.
"""

import json
import os
from collections.abc import Iterable
from typing import Any

import yaml

from porthole_cli.errors import CloudInvalid

_KINDS: dict[str, tuple[type, str]] = {
    "auth": (dict, "a mapping, like {auth_url: URL, username: NAME}"),
    "auth_type": (str, "a name, like password"),
    "regions": (list, "a list of names"),
}


def check_clouds_files(paths: Iterable[str], cloud: str) -> None:
    """Check ``cloud`` in the first of ``paths`` that can be read, which is the file that openstacksdk uses.

    :raises CloudInvalid: when a part of it has the wrong type.
    """
    for path in paths:
        try:
            with open(path, encoding="utf-8") as text:
                document = json.load(text) if path.endswith("json") else yaml.safe_load(text)
        except (OSError, ValueError, yaml.YAMLError):
            # openstacksdk ignores such a file too.
            continue
        check_clouds(os.path.abspath(path), document, cloud)
        return


def check_clouds(path: str, document: Any, cloud: str) -> None:
    """Check ``cloud`` in the ``document`` of a clouds.yaml; ``path`` is for the message.

    :raises CloudInvalid: when a part of it has the wrong type.
    """
    if not isinstance(document, dict) or "clouds" not in document:
        # openstacksdk reports these clearly.
        return
    clouds = document["clouds"]
    _check(path, "clouds", clouds, dict, "a mapping of names to clouds")
    if cloud not in clouds:
        return
    keys = clouds[cloud]
    _check(path, f"clouds.{cloud}", keys, dict, "a mapping of keys to values")
    for name, (kind, wanted) in _KINDS.items():
        if name in keys:
            _check(path, f"clouds.{cloud}.{name}", keys[name], kind, wanted)
    try:
        float(keys.get("api_timeout") or 0)
    except (ValueError, TypeError, OverflowError) as exc:
        reason = f"must be a number of seconds; it is {keys['api_timeout']!r}"
        raise CloudInvalid(f"{path}: the key 'clouds.{cloud}.api_timeout' {reason}.") from exc


def _check(path: str, key: str, value: Any, kind: type, wanted: str) -> None:
    if not isinstance(value, kind):
        # The type and not the value, which may be a password.
        found = "empty" if value is None else f"of the type {type(value).__name__}"
        raise CloudInvalid(f"{path}: the key '{key}' must be {wanted}; it is {found}.")

# SPDX-License-Identifier: Apache-2.0
"""Nova's microversions: which one a request asks for, and how an answer states it.

Why: clients for Nova choose by these headers what they send and what they get. Both headers are read and written, as in
nova-api (compute API guide, "Microversions"). Pure; called by :mod:`porthole_api.middleware`.
"""

import re
from collections.abc import MutableMapping

import microversion_parse
from webob import exc

Version = tuple[int, int]

MIN_VERSION: Version = (2, 1)
MAX_VERSION: Version = (2, 96)
# remote-consoles came with 2.6, and its mks protocol with 2.8.
REMOTE_CONSOLES: Version = (2, 6)
REMOTE_CONSOLES_MKS: Version = (2, 8)
# Before 2.31, os-console-auth-tokens knew only rdp-html5 consoles, which Porthole does not have.
CONSOLE_AUTH_TOKENS: Version = (2, 31)

HEADER = "OpenStack-API-Version"
LEGACY_HEADER = "X-OpenStack-Nova-API-Version"
_SERVICE_TYPE = "compute"
# Five digits are more than any version will have, and few enough for int().
_FORMAT = re.compile(r"([1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})", re.ASCII)


def format_version(version: Version) -> str:
    """Return ``(2, 1)`` as ``2.1``."""
    return f"{version[0]}.{version[1]}"


def parse_version(headers: MutableMapping[str, str]) -> Version:
    """Return the microversion that the request's ``headers`` ask for; without such a header, the oldest.

    ``OpenStack-API-Version: compute X`` wins over ``X-OpenStack-Nova-API-Version: X``; ``latest`` is the newest.

    :raises HTTPBadRequest: when the version does not have the form MAJOR.MINOR.
    :raises HTTPNotAcceptable: when the version is not offered.
    """
    text = microversion_parse.get_version(headers, _SERVICE_TYPE, [LEGACY_HEADER])
    if not text:
        return MIN_VERSION
    if text == "latest":
        return MAX_VERSION
    match = _FORMAT.fullmatch(text)
    if match is None:
        raise exc.HTTPBadRequest(
            f"API Version String {text[:64]} is of invalid format. Must be of format MajorNum.MinorNum."
        )
    version = int(match[1]), int(match[2])
    if not MIN_VERSION <= version <= MAX_VERSION:
        raise exc.HTTPNotAcceptable(
            f"Version {text} is not supported by the API. Minimum is {format_version(MIN_VERSION)} and maximum is "
            f"{format_version(MAX_VERSION)}."
        )
    return version


def build_headers(version: Version) -> list[tuple[str, str]]:
    """Return the headers that state the microversion of an answer, and that the answer depends on it (Vary)."""
    text = format_version(version)
    return [
        (HEADER, f"{_SERVICE_TYPE} {text}"),
        (LEGACY_HEADER, text),
        ("Vary", f"{HEADER}, {LEGACY_HEADER}"),
    ]

# SPDX-License-Identifier: Apache-2.0
"""Holds answers against the API's own document: status, body and headers."""

from collections.abc import Mapping
from email.message import Message
from typing import Any

import jsonschema


def find_response(document: Mapping[str, Any], method: str, path: str, status: int) -> Any:
    """Return what the document says of the answer; ``path`` is the document's, with its ``{variables}``."""
    operation = document["paths"][path][method.lower()]
    assert str(status) in operation["responses"], f"{method} {path} may not answer {status}"
    return operation["responses"][str(status)]


def assert_conforms(
    document: Mapping[str, Any], method: str, path: str, status: int, headers: Mapping[str, str] | Message, body: Any
) -> None:
    """Fail when the answer is not one that the document describes."""
    said = find_response(document, method, path, status)
    jsonschema.Draft202012Validator(said["content"]["application/json"]["schema"]).validate(body)
    for name, header in said["headers"].items():
        assert name in headers, f"{method} {path} {status}: no {name}"
        jsonschema.Draft202012Validator(header["schema"]).validate(headers[name])

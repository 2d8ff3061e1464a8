# SPDX-License-Identifier: Apache-2.0
"""The JSON schemas: those of request bodies are files beside this module, those of answers are in :mod:`.answers`.

Why files: they are the API's contract, and documents and tests can read them without importing the service.
Called by the handlers and by :mod:`porthole_api.openapi`.
"""

import json
from importlib import resources

import jsonschema

# Nova's schema names protocols and types; its API reference says which types belong to which protocol.
TYPES_OF_PROTOCOL = {
    "vnc": ("novnc", "xvpvnc"),
    "spice": ("spice-html5",),
    "rdp": ("rdp-html5",),
    "serial": ("serial",),
    "mks": ("webmks",),
}


def load_validator(name: str) -> jsonschema.protocols.Validator:
    """Return the validator of ``<name>.json``: JSON Schema, draft 2020-12."""
    text = resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)

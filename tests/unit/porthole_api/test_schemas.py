# SPDX-License-Identifier: Apache-2.0
"""The schemas: each is a schema, and refuses what it does not name."""

from importlib import resources
from typing import Any

from porthole_api import schemas
from porthole_api.schemas import load_validator
from support.cases import naming

NAMES = sorted(file.name.removesuffix(".json") for file in resources.files(schemas).iterdir() if ".json" in file.name)


def find_objects(schema: Any) -> list[dict[str, Any]]:
    if not isinstance(schema, dict):
        return []
    inner = [found for part in schema.values() for found in find_objects(part)]
    return ([schema] if schema.get("type") == "object" else []) + inner


def test_there_are_schemas() -> None:
    assert NAMES == ["create_console", "end_session", "get_vnc_console", "remote_console_2_6", "remote_console_2_8"]


def test_every_object_refuses_keys_that_it_does_not_name() -> None:
    for name in NAMES:
        with naming(name):
            objects = find_objects(load_validator(name).schema)
            assert objects
            for schema in objects:
                assert schema["additionalProperties"] is False
                # Porthole's own routes have defaults; Nova's schemas have none.
                if name not in ("create_console", "end_session"):
                    assert sorted(schema["required"]) == sorted(schema["properties"])

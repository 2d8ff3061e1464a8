# SPDX-License-Identifier: Apache-2.0
import inspect
from dataclasses import fields
from typing import Any

import pytest

from porthole_common import errors
from porthole_common.model import TokenReason
from support.bus import across_the_wire
from support.cases import naming

BRANCHES = {
    errors.PortholeError,
    errors.NotFound,
    errors.Refused,
    errors.Conflict,
    errors.Unavailable,
    errors.ProtocolError,
    errors.VncServerError,
}
CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, errors.PortholeError)]
LEAVES = [cls for cls in CLASSES if cls not in BRANCHES]


def build(leaf: type[errors.PortholeError]) -> errors.PortholeError:
    """Return an error of ``leaf`` with a different value in each field."""
    values: list[Any] = [
        number if field.type is int else f"{field.name}-1" for number, field in enumerate(fields(leaf))
    ]
    return leaf(*values)


def test_leaf_hangs_from_a_branch() -> None:
    for leaf in LEAVES:
        with naming(leaf):
            assert leaf.__mro__[1] in BRANCHES


def test_leaf_keeps_type_and_fields_across_the_wire() -> None:
    for leaf in LEAVES:
        with naming(leaf):
            sent = build(leaf)
            received = across_the_wire(sent)
            assert isinstance(received, leaf)
            assert received.values() == sent.values()


def test_local_form_of_a_remote_error_shows_no_traceback() -> None:
    for leaf in LEAVES:
        with naming(leaf):
            sent = build(leaf)
            received = across_the_wire(sent)
            assert "Traceback" in str(received)
            local = received.local()
            assert type(local) is leaf
            assert str(local) == str(sent)
            assert local.args == sent.values()


def test_text_names_its_fields() -> None:
    for leaf in LEAVES:
        with naming(leaf):
            error = build(leaf)
            assert all(str(value) in str(error) for value in error.values())


def test_a_reason_stays_a_reason_across_the_wire() -> None:
    received = across_the_wire(errors.TokenInvalid(TokenReason.UNKNOWN))
    assert received.reason == TokenReason.UNKNOWN


def test_an_error_of_another_module_is_not_rebuilt() -> None:
    received = across_the_wire(ValueError("x"))
    assert not isinstance(received, errors.PortholeError)


def test_an_ipv6_address_stands_in_brackets() -> None:
    for leaf in (errors.VncServerUnavailable, errors.VncServerTimeout):
        with naming(leaf):
            assert " [2001:db8::1]:5900 " in str(leaf("2001:db8::1", 5900))
            assert " 192.0.2.1:5900 " in str(leaf("192.0.2.1", 5900))


def test_leaf_keeps_type_and_fields_as_a_primitive() -> None:
    for leaf in LEAVES:
        with naming(leaf):
            sent = build(leaf)
            value = sent.to_primitive()
            assert value == {"error": leaf.__name__, "fields": list(sent.values())}
            for received in (
                value,
                across_the_wire(sent).to_primitive(),
                {**value, "fields": [*value["fields"], "new"]},
            ):
                rebuilt = errors.from_primitive(received)
                assert (type(rebuilt), rebuilt.values()) == (leaf, sent.values())


def test_a_primitive_that_is_no_error_is_refused() -> None:
    for value in [
        {"error": "Unknown", "fields": []},
        {"error": "dataclass", "fields": []},
        {"error": "Any", "fields": []},
        {"error": "TokenInvalid", "fields": []},
    ]:
        with naming(value), pytest.raises(ValueError, match="error"):
            errors.from_primitive(value)

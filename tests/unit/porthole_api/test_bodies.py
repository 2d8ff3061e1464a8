# SPDX-License-Identifier: Apache-2.0
"""Reading a body: what is refused before it is read, what is not JSON, and what does not match the schema."""

import io
from typing import Any

import pytest
import webob
from hypothesis import given
from hypothesis import strategies as st
from webob import exc

from porthole_api.bodies import MAX_BODY_BYTES, read_json, validate
from porthole_api.schemas import load_validator
from porthole_common import errors
from support.cases import naming

GET_VNC_CONSOLE = load_validator("get_vnc_console")


class Source(io.BytesIO):
    """A request's input, which notes what is asked of it, or fails with ``error``."""

    def __init__(self, content: bytes = b"", error: OSError | None = None) -> None:
        super().__init__(content)
        self.error = error
        self.asked: list[int | None] = []

    def read(self, size: int | None = -1) -> bytes:
        self.asked.append(size)
        if self.error:
            raise self.error
        return super().read(size)


def build_request(source: Source, length: str | None, **environ: str) -> webob.Request:
    request = webob.Request.blank("/", method="POST")
    request.environ |= {"wsgi.input": source, "CONTENT_TYPE": "application/json", **environ}
    request.environ.pop("CONTENT_LENGTH", None)
    if length is not None:
        request.environ["CONTENT_LENGTH"] = length
    return request


def read(content: bytes, **environ: str) -> Any:
    return read_json(build_request(Source(content), str(len(content)), **environ))


def test_json_is_read() -> None:
    cases = ["application/json", "application/json; charset=UTF-8", "Application/JSON"]
    for kind in cases:
        with naming(kind):
            assert read(b'{"a": [1, "\xc3\xa9"]}', CONTENT_TYPE=kind) == {"a": [1, "é"]}


def test_another_content_type_is_refused_unread() -> None:
    cases = ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "é"]
    for kind in cases:
        with naming(kind):
            source = Source(b"{}")
            with pytest.raises(errors.RequestInvalid, match="Content-Type: application/json"):
                read_json(build_request(source, "2", CONTENT_TYPE=kind))
            assert source.asked == []


def test_a_body_above_the_limit_is_refused_unread_and_the_limit_is_said() -> None:
    for length in [str(MAX_BODY_BYTES + 1), "1048576", "9" * 5000]:
        with naming(length):
            source = Source(b"{}")
            with pytest.raises(errors.RequestInvalid, match=str(MAX_BODY_BYTES)):
                read_json(build_request(source, length))
            assert source.asked == []


def test_a_body_at_the_limit_is_read() -> None:
    assert read(b'"' + b"x" * (MAX_BODY_BYTES - 2) + b'"') == "x" * (MAX_BODY_BYTES - 2)


def test_a_length_that_is_no_number_is_refused_unread() -> None:
    for length in ["-1", "+2", "2.0", "2_0", "\u0662", "0x2"]:
        with naming(length):
            source = Source(b"{}")
            with pytest.raises(errors.RequestInvalid, match="Content-Length"):
                read_json(build_request(source, length))
            assert source.asked == []


def test_a_body_in_chunks_is_refused_unread() -> None:
    source = Source(b"{}")
    with pytest.raises(errors.RequestInvalid, match="Content-Length"):
        read_json(build_request(source, "2", HTTP_TRANSFER_ENCODING="chunked"))
    assert source.asked == []


def test_no_body_is_refused() -> None:
    for length in [None, "", "0"]:
        with naming(length), pytest.raises(errors.RequestInvalid, match="no body"):
            read_json(build_request(Source(), length))


def test_no_more_than_the_length_is_read() -> None:
    source = Source(b"{}GET / HTTP/1.1")
    assert read_json(build_request(source, "2")) == {}
    assert source.asked == [2]


def test_a_body_that_ends_early_says_how_much_came() -> None:
    with pytest.raises(errors.RequestInvalid, match="after 2 of 3 bytes"):
        read_json(build_request(Source(b"{}"), "3"))


def test_a_body_that_comes_too_slowly_is_a_timeout() -> None:
    with pytest.raises(exc.HTTPRequestTimeout):
        read_json(build_request(Source(error=TimeoutError("timed out")), "3"))


def test_a_connection_that_breaks_is_not_a_failure_of_ours() -> None:
    with pytest.raises(errors.RequestInvalid, match="connection broke"):
        read_json(build_request(Source(error=ConnectionResetError()), "3"))


def test_what_is_not_json_is_refused_with_the_reason() -> None:
    cases = [
        (b"not json", "Malformed request body"),
        (b"{", "Malformed request body"),
        (b"{} {}", "Malformed request body"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' is duplicated"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b"[" * 60000, "nested too deeply"),
        (b'{"a":' * 12000, "nested too deeply"),
        (b"1" * 5000, "Malformed request body"),
    ]
    for content, reason in cases:
        with naming(content, reason), pytest.raises(errors.RequestInvalid, match=reason):
            read(content)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    message = ""
    try:
        read(content)
    except errors.RequestInvalid as error:
        message = str(error)
    assert len(message) < 400


def test_a_body_that_does_not_match_is_refused_and_the_field_is_named() -> None:
    cases = [
        ({"os-getVNCConsole": {"type": "spice"}}, "os-getVNCConsole.type"),
        ({"os-getVNCConsole": {"type": ["novnc"]}}, "os-getVNCConsole.type"),
        ({"os-getVNCConsole": {"type": None}}, "os-getVNCConsole.type"),
        ({"os-getVNCConsole": {}}, "'type' is a required property"),
        ({"os-getVNCConsole": {"type": "novnc", "extra": 1}}, "'extra' was unexpected"),
        ({"os-getVNCConsole": None}, "os-getVNCConsole"),
        ({}, "'os-getVNCConsole' is a required property"),
        ([], "Invalid input for body"),
        ("x" * 60000, "Invalid input for body"),
    ]
    for body, field in cases:
        with naming(body, field):
            with pytest.raises(errors.RequestInvalid, match=field) as caught:
                validate(body, GET_VNC_CONSOLE)
            assert len(str(caught.value)) < 400


def test_a_value_too_deep_to_be_quoted_is_refused_too() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(errors.RequestInvalid, match="nested too deeply"):
        validate({"os-getVNCConsole": {"type": deep}}, GET_VNC_CONSOLE)


def test_a_body_that_matches_is_taken() -> None:
    validate({"os-getVNCConsole": {"type": "novnc"}}, GET_VNC_CONSOLE)

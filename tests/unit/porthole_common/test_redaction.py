# SPDX-License-Identifier: Apache-2.0
import json
import logging
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_common.redaction import RedactingFilter, redact

TOKEN = "0f1e2d3c-4b5a-4978-8697-a5b4c3d2e1f0"
# Every form in which a token was seen in a log: {} is the token.
SHAPES = [
    "http://proxy:6080/console.html?path=%3Ftoken%3D{}",
    "http://proxy:6080/vnc_lite.html?path=%253Ftoken%253D{}",
    "GET /websockify?token={} HTTP/1.1",
    "GET /?a=1&token={}&b=2 HTTP/1.1",
    "192.0.2.1: Path: '/?token={}'",
    "CONNECT /console?token={} HTTP/1.0",
    "Cookie: a=b; token={}; c=d",
    "TOKEN={}",
    "token = {}",
    "token: {}",
    "{{'token': '{}', 'host': 'x'}}",
    '{{"token": "{}", "host": "x"}}',
    '{{"oslo.message": "{{\\"args\\": {{\\"token\\": \\"{}\\"}}}}"}}',
    "call(token='{}')",
    "token%3d{}",
]


def through_filter(message: object, *arguments: object, exc_info: Any = None) -> str:
    record = logging.LogRecord("x", logging.DEBUG, "x.py", 1, message, arguments, exc_info)
    assert RedactingFilter().filter(record)
    return logging.Formatter("%(message)s").format(record)


@pytest.mark.parametrize("shape", SHAPES)
@given(token=st.uuids().map(str))
def test_no_shape_shows_its_token(shape: str, token: str) -> None:
    """Whoever wrote the line (S6)."""
    redacted = redact(shape.format(token))
    assert token not in redacted
    assert "***" in redacted


@given(before=st.text(max_size=30), after=st.text(max_size=30), token=st.uuids().map(str))
def test_whatever_stands_around_it(before: str, after: str, token: str) -> None:
    assert token not in redact(f"{before}token={token}{after}")
    assert token not in redact(quote(f"{before}?token={token}{after}"))
    assert token not in redact(json.dumps({"x": before, "token": token, "y": after}))
    assert token not in redact(repr({"x": before, "token": token, "y": after}))


@given(st.text())
def test_redacting_twice_changes_nothing(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(st.text().filter(lambda text: "token" not in text.lower()))
def test_text_without_a_token_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("text", ["The console token is not valid", "token_ttl = 600", "12 console tokens are revoked"])
def test_speaking_of_tokens_is_allowed(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("value", [{"auth_token": None}, {"token": None, "host": "x"}, {"args": {"token": None}}])
def test_json_stays_json(value: dict[str, Any]) -> None:
    assert json.loads(redact(json.dumps(value))) == value


def test_what_follows_the_token_stays() -> None:
    assert redact(f"GET /?token={TOKEN}&scale=1 HTTP/1.1") == "GET /?token=***&scale=1 HTTP/1.1"


def test_filter_redacts_the_arguments() -> None:
    assert TOKEN not in through_filter("got %s and %r", {"token": TOKEN}, f"token={TOKEN}")


def test_filter_leaves_other_records_as_they_are() -> None:
    record = logging.LogRecord("x", logging.DEBUG, "x.py", 1, "port %d", (5900,), None)
    assert RedactingFilter().filter(record)
    assert (record.msg, record.args) == ("port %d", (5900,))


def test_filter_redacts_tracebacks() -> None:
    import sys

    try:
        raise ValueError(f"bad URL /?token={TOKEN}")
    except ValueError:
        text = through_filter("failed", exc_info=sys.exc_info())
    assert TOKEN not in text
    assert "ValueError: bad URL /?token=***" in text

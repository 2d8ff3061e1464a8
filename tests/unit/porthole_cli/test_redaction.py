# SPDX-License-Identifier: Apache-2.0
import logging
import sys

from porthole_cli.redaction import UserInfoFilter, redact_user_info


def test_the_user_information_of_urls_and_nothing_else() -> None:
    for text, expected in (
        ("The API at http://user:secret@host:8774/v2.1 is away.", "The API at http://***@host:8774/v2.1 is away."),
        ("HTTPS://user@host", "HTTPS://***@host"),
        ("http://user:p@ss@host/x", "http://***@host/x"),
        ("http://a:b@one and http://c:d@two", "http://***@one and http://***@two"),
        ("http://host/a@b", "http://host/a@b"),
        ("http://host?a=b@c", "http://host?a=b@c"),
        ("mail me@example.org", "mail me@example.org"),
    ):
        assert redact_user_info(text) == expected


def test_a_record_with_its_arguments_and_its_traceback() -> None:
    try:
        raise ValueError("http://user:secret@host")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "p", 1, "at %s", ("http://user:secret@host",), sys.exc_info())

    assert UserInfoFilter().filter(record)
    text = logging.Formatter().format(record)
    assert text.startswith("at http://***@host\n")
    assert "ValueError: http://***@host" in text
    assert "secret" not in text

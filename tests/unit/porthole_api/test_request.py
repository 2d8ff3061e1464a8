# SPDX-License-Identifier: Apache-2.0
"""The request's query, and the URLs that answers are built on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_api.request import URL_ARGUMENTS, Request
from porthole_common import errors
from support.cases import naming


def build(query: str = "", **environ: object) -> Request:
    request = Request.blank("/v2.1/servers")
    request.environ |= {"QUERY_STRING": query, **environ}
    return request


def test_the_query_is_parsed() -> None:
    cases = [
        ("", []),
        ("name=vm%201&limit=5", [("name", "vm 1"), ("limit", "5")]),
        ("name=", [("name", "")]),
        ("name=a&name=b", [("name", "a"), ("name", "b")]),
        ("name=%C3%A9", [("name", "é")]),
    ]
    for query, parsed in cases:
        with naming(query, parsed):
            assert build(query).parse_query_pairs() == parsed


def test_a_query_that_cannot_be_parsed_is_refused() -> None:
    for query in ["name=%ff", "&".join("a=1" for _ in range(101))]:
        with naming(query), pytest.raises(errors.RequestInvalid, match="Malformed query"):
            build(query).parse_query_pairs()


@given(st.text(st.characters(max_codepoint=255)))
def test_any_query_is_parsed_or_refused(query: str) -> None:
    message = ""
    try:
        build(query).parse_query_pairs()
    except errors.RequestInvalid as error:
        message = str(error)
    assert message == "" or "Malformed query" in message


def test_urls_are_built_as_the_client_sees_them() -> None:
    cases = [
        ({"HTTP_HOST": "api.example:8774"}, "http://api.example:8774/v2.1", "http://api.example:8774"),
        ({"HTTP_HOST": "[::1]:8774"}, "http://[::1]:8774/v2.1", "http://[::1]:8774"),
        (
            {"HTTP_HOST": "api.example", "wsgi.url_scheme": "https", "SCRIPT_NAME": "/compute"},
            "https://api.example/compute/v2.1",
            "https://api.example/compute",
        ),
        ({URL_ARGUMENTS: {"project_id": "p1"}}, "http://localhost/v2.1/p1", "http://localhost/p1"),
    ]
    for environ, base, bookmark in cases:
        with naming(environ, base, bookmark):
            request = build(**environ)
            assert (request.base_url, request.bookmark_url) == (base, bookmark)

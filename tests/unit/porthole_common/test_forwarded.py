# SPDX-License-Identifier: Apache-2.0
"""Headers of reverse proxies: whom they name, which element of a list counts, and what is not taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_common.forwarded import (
    Client,
    find_client,
    normalize_address,
    parse_address,
    parse_forwarded,
    parse_host,
    parse_prefix,
    parse_scheme,
    pick_element,
)
from support.cases import naming

TRUSTED = ["10.0.0.1", "10.0.0.2"]


def test_the_list_is_read_from_its_end_while_proxies_are_trusted() -> None:
    cases: list[tuple[str, list[str], Client]] = [
        ("192.0.2.7", ["198.51.100.1"], Client("192.0.2.7", 0)),
        ("10.0.0.1", [], Client("10.0.0.1", 1)),
        ("10.0.0.1", ["198.51.100.1"], Client("198.51.100.1", 1)),
        ("10.0.0.1", ["203.0.113.9, 198.51.100.1"], Client("198.51.100.1", 1)),
        ("10.0.0.1", ["198.51.100.1, 10.0.0.2"], Client("198.51.100.1", 2)),
        ("10.0.0.1", ["203.0.113.9", "198.51.100.1, 10.0.0.2"], Client("198.51.100.1", 2)),
        ("10.0.0.1", ["10.0.0.2"], Client("10.0.0.2", 2)),
        ("10.0.0.1", ["198.51.100.1,, 10.0.0.2,"], Client("198.51.100.1", 2)),
        ("10.0.0.1", ["198.51.100.1, unknown, 10.0.0.2"], Client("10.0.0.2", 2)),
        ("10.0.0.1", ["_hidden"], Client("10.0.0.1", 1)),
    ]
    for peer, forwarded_for, client in cases:
        with naming(peer, forwarded_for):
            assert find_client(peer, forwarded_for, TRUSTED) == client


def test_the_element_of_the_outermost_trusted_proxy_counts() -> None:
    cases: list[tuple[list[str], int, str | None]] = [
        (["https"], 0, None),
        ([], 1, None),
        ([""], 1, None),
        (["https"], 1, "https"),
        (["https,http"], 1, "http"),
        (["https,http"], 2, "https"),
        (["https", "http"], 2, "https"),
        (["evil, https, http"], 2, "https"),
        (["https"], 2, "https"),
    ]
    for values, proxies, element in cases:
        with naming(values, proxies):
            assert pick_element(values, proxies) == element


def test_an_address_loses_its_port_and_brackets() -> None:
    cases = {
        "203.0.113.5": "203.0.113.5",
        "203.0.113.5:50001": "203.0.113.5",
        "[2001:db8::1]:4711": "2001:db8::1",
        "[2001:DB8::0001]": "2001:db8::1",
        "2001:db8::1": "2001:db8::1",
        " 203.0.113.5 ": "203.0.113.5",
        "[::ffff:203.0.113.5]:1": "203.0.113.5",
    }
    for text, address in cases.items():
        with naming(text):
            assert parse_address(text) == address


def test_what_is_no_address_is_an_error() -> None:
    for text in ["", "unknown", "_hidden", "203.0.113.5:", "203.0.113:1", "[203.0.113.5", "host:1", "203.0.113.5:http"]:
        with naming(text), pytest.raises(ValueError):
            parse_address(text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_address_survives_its_port(address: object, port: int) -> None:
    text = f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
    assert parse_address(text) == parse_address(str(address)) == normalize_address(str(address))


def test_a_websocket_scheme_is_the_one_of_its_page() -> None:
    cases = {
        "ws": "http",
        "wss": "https",
        " HTTPS ": "https",
        "http": "http",
        "https,http": None,
        "": None,
        "ftp": None,
    }
    for text, scheme in cases.items():
        with naming(text):
            assert parse_scheme(text) == scheme
    assert parse_scheme(None) is None


def test_what_is_no_host_is_not_taken() -> None:
    for text in ["cloud.example", "cloud.example:8443", "192.0.2.1", "[2001:db8::1]:443"]:
        with naming(text):
            assert parse_host(text) == text
    for wrong in [None, "", "a, b", "a/b", "a@b", "a:", "a:123456", "a b", "2001:db8::1", "a\n", "é"]:
        with naming(wrong):
            assert parse_host(wrong) is None


def test_what_is_no_path_is_not_taken() -> None:
    for text in ["/compute", "/a/b", "/compute/"]:
        with naming(text):
            assert parse_prefix(text) == text.rstrip("/")
    for wrong in [None, "", "/", "compute", "//evil.example", "/a//b", "/a?b", "/a#b", "https://evil.example", "/a b"]:
        with naming(wrong):
            assert parse_prefix(wrong) is None


def test_the_standard_header_is_read_with_quotes() -> None:
    header = 'for="[2001:db8::1]:4711";Proto=https;host="a,b;c\\"d", for=203.0.113.5 ;proto=http, ,by=x'
    assert parse_forwarded(header) == [
        {"for": "[2001:db8::1]:4711", "proto": "https", "host": 'a,b;c"d'},
        {"for": "203.0.113.5", "proto": "http"},
        {"by": "x"},
    ]
    assert parse_forwarded("for=" + "1" * 5000) == []


@given(st.text(alphabet='for=";,\\ a', max_size=60))
def test_any_text_is_a_list_of_pairs(header: str) -> None:
    for element in parse_forwarded(header):
        assert all(name.isalpha() for name in element)

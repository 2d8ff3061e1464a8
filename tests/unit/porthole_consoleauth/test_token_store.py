# SPDX-License-Identifier: Apache-2.0
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_common import errors
from porthole_common.model import TokenReason
from porthole_consoleauth import token_store
from support.cases import naming
from support.token_store_contract import JUNK_TOKENS, build_console, new_uuid

UUID = "7f3a5c1e-0b1d-4c2e-9f00-aabbccddeeff"


def test_a_token_stands_under_its_slot_and_its_sha256() -> None:
    assert token_store.hash_token(UUID) == UUID[:3] + hashlib.sha256(UUID.encode()).hexdigest()


@given(st.uuids().map(str))
def test_keys_of_tokens_and_instances_never_meet(value: str) -> None:
    """Two key spaces, and no token in either (S19)."""
    assert token_store.token_key(token_store.hash_token(value)) != token_store.instance_key(value)
    assert value not in token_store.token_key(token_store.hash_token(value))
    assert token_store.token_key(token_store.hash_token(value)).startswith("porthole:token:")
    assert token_store.instance_key(value).startswith("porthole:instance:")


def test_junk_becomes_no_key() -> None:
    """Blanks, line ends, 10 KiB, other keys (S19)."""
    for junk in JUNK_TOKENS:
        with naming(junk):
            with pytest.raises(errors.TokenInvalid):
                token_store.hash_token(junk)
            with pytest.raises(errors.RequestInvalid):
                token_store.instance_key(junk)


def test_of_the_access_url_only_scheme_and_host_are_kept() -> None:
    cases = [
        ("http://host:6080/vnc.html?path=%3Ftoken%3Dx", "http://host:6080"),
        ("https://host/console?token=x", "https://host"),
        ("http://[2001:db8::1]:6081/console?token=x", "http://[2001:db8::1]:6081"),
        ("http://user:password@host/x#token=x", "http://host"),
    ]
    for url, kept in cases:
        with naming(url, kept):
            assert token_store.strip_secrets(build_console(UUID, access_url=url).connect_info).access_url == kept


def test_an_item_holds_no_token() -> None:
    item = token_store.build_item(build_console(UUID))
    assert b"clear-token" not in item
    assert set(json.loads(item)) == {
        "instance_uuid",
        "console_type",
        "host",
        "port",
        "access_url",
        "compute_host",
        "internal_access_path",
        "expires_at",
        "user_id",
        "project_id",
    }


def test_an_item_with_a_wrong_value_is_unknown() -> None:
    cases = [
        {"port": "x"},
        {"port": 0},
        {"console_type": "spice"},
        {"instance_uuid": "nonsense"},
        {"instance_uuid": None},
        {"expires_at": 7},
        {"expires_at": "0001-01-01T00:00:00+14:00"},
        {"uses": float("inf")},
        {"uses": -1},
        {"port": float("inf")},
    ]
    for change in cases:
        with naming(change):
            item = json.dumps(json.loads(token_store.build_item(build_console(UUID))) | change).encode()
            with pytest.raises(errors.TokenInvalid):
                token_store.parse_item(item)


def test_an_item_of_somebody_else_is_unknown_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    cases = [b"", b"x", b"\xff\xfe", b"[]", b"7", b'"x"', b"null", b"{}", b"[" * 100_000]
    for item in cases:
        with naming(item):
            caplog.clear()
            with pytest.raises(errors.TokenInvalid) as caught:
                token_store.parse_item(item)
            assert caught.value.reason == TokenReason.UNKNOWN
            assert "Foreign " in caplog.text


@given(st.binary())
def test_no_bytes_break_the_parsers(item: bytes) -> None:
    with pytest.raises(errors.TokenInvalid):
        token_store.parse_item(item)
    assert isinstance(token_store.parse_index(item), list)


def test_an_index_of_somebody_else_is_empty_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    cases = [b"", b"x", b"{}", b"7", b"[7]", b"null", b'["a", null]', b"[" * 100_000]
    for index in cases:
        with naming(index):
            caplog.clear()
            assert token_store.parse_index(index) == []
            assert "Foreign " in caplog.text


def test_no_index_is_an_empty_one() -> None:
    assert token_store.parse_index(None) == []


def test_index_round_trip_and_order() -> None:
    assert token_store.parse_index(token_store.build_index(["a", "b"], "c")) == ["a", "b", "c"]


def test_a_full_index_drops_the_oldest_and_stays_below_memcacheds_limit() -> None:
    hashes = [token_store.hash_token(new_uuid()) for _ in range(token_store.MAX_TOKENS_PER_INSTANCE)]
    index = token_store.build_index(hashes, "new")
    assert token_store.parse_index(index) == [*hashes[1:], "new"]
    assert len(index) < 16384

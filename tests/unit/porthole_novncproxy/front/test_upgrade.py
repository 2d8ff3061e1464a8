# SPDX-License-Identifier: Apache-2.0
from http import HTTPStatus

import pytest

from porthole_common import errors
from porthole_novncproxy.front.request import Request
from porthole_novncproxy.front.upgrade import VersionUnsupported, accept_handshake, build_refusal, check_handshake
from support.cases import naming

# RFC 6455 section 1.3.
FIELDS = {
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
}
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def request(*more, **changed):
    fields = {**FIELDS, **{name.replace("_", "-"): value for name, value in changed.items()}}
    return Request(
        "GET", "/", None, 1, (*((name, value) for name, value in fields.items() if value is not None), *more)
    )


def test_a_handshake_is_answered_as_the_rfc_says():
    response = accept_handshake(request())
    assert response.status == 101
    assert dict(response.headers) == {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}
    assert response.body == b""
    assert not response.is_last


def test_of_the_subprotocols_binary_is_taken():
    cases = [
        (["binary"], "binary"),
        (["base64, binary"], "binary"),
        (["base64", "binary"], "binary"),
        (["base64"], None),
        ([""], None),
    ]
    for values, chosen in cases:
        with naming(values):
            response = accept_handshake(request(*(("sec-websocket-protocol", value) for value in values)))
            assert dict(response.headers).get("Sec-WebSocket-Protocol") == chosen


def test_the_words_of_an_upgrade_may_be_written_otherwise():
    assert dict(accept_handshake(request(upgrade="h2c, WebSocket")).headers)["Sec-WebSocket-Accept"] == ACCEPT


def test_a_sound_handshake_passes():
    check_handshake(request())
    check_handshake(request(content_length="0"))


def test_a_malformed_handshake_is_refused():
    cases = [
        {"sec_websocket_key": None},
        {"sec_websocket_key": "x"},
        {"sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ"},
        {"sec_websocket_key": "dGhlIHNhbXBsZQ=="},
        {"sec_websocket_key": "dGhlIHNhbXBsZSBub25jZ\xff=="},
        {"content_length": "5"},
        {"transfer_encoding": "chunked"},
    ]
    for changed in cases:
        with naming(changed), pytest.raises(errors.RequestInvalid):
            check_handshake(request(**changed))


def test_a_field_that_stands_twice_is_refused():
    for name in ("sec-websocket-key", "sec-websocket-version"):
        for value in (FIELDS[name], "", "8"):
            with naming(name, value), pytest.raises(errors.RequestInvalid):
                check_handshake(request((name, value)))


def test_another_version_is_refused_as_such():
    for version in (None, "", "8", "12", "14", "013", "13, 8", "8, 13", "13;", "thirteen", "\xb9\xb3"):
        with naming(version), pytest.raises(VersionUnsupported):
            check_handshake(request(sec_websocket_version=version))


def test_another_version_is_the_first_thing_that_is_said():
    """A draft of the protocol has a key, or a body, that 13 has not."""
    for changed in ({"sec_websocket_key": None}, {"content_length": "8"}):
        with naming(changed), pytest.raises(VersionUnsupported):
            check_handshake(request(sec_websocket_version=None, **changed))


def test_a_refusal_names_the_version_where_the_version_is_the_reason():
    cases = [(VersionUnsupported("x"), "13"), (errors.RequestInvalid("x"), None), (errors.TokenInvalid("x"), None)]
    for error, version in cases:
        with naming(error):
            response = build_refusal(error, HTTPStatus.BAD_REQUEST, "req-1")
            assert (response.status, response.body, response.is_last) == (400, b"", True)
            fields = dict(response.headers)
            assert (fields.get("Sec-WebSocket-Version"), fields["Content-Length"]) == (version, "0")
            assert fields["X-OpenStack-Request-ID"] == "req-1"

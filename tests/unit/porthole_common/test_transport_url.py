# SPDX-License-Identifier: Apache-2.0
"""A password that is not percent-encoded is recognised, and nothing of it is shown."""

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from porthole_common.transport_url import find_fault


def test_a_password_that_is_not_encoded_is_recognised_and_not_shown() -> None:
    for url in (
        "rabbit://user:p@secret/w#rd@host",
        "rabbit://user:p@secret@host/",
        "rabbit://user:p@secret/word@host/",
        "rabbit://user:p/secret@host/",
        "rabbit://user:p#secret@host/",
        "rabbit://user:pw@host/vhost#secret",
        "rabbit://user:p?secret@host/",
        "rabbit://user:p@s?secret@host/",
        "rabbit://user:p,secret@host/",
        "rabbit://user:p[secret@host/",
        "rabbit://user:pw@se!cret/",
        "rabbit://one:pw@host1,two:p@secret@host2/",
        "rabbit://user:secret/",
    ):
        fault = find_fault(url)
        assert "percent-encode the special characters" in fault, url
        assert "secret" not in fault


def test_a_port_that_cannot_be_one() -> None:
    for port in ("99999", "0", "-1", "abc", "5672x", "²", ""):
        assert "not a number from 1 to 65535" in find_fault(f"rabbit://user:pw@host:{port}/"), port


def test_what_is_no_url_at_all() -> None:
    for url in ("", "host", "host:5672", "://host"):
        assert "not a transport URL; write rabbit://USER:PASSWORD@HOST:5672/VHOST" in find_fault(url)


def test_the_scheme_is_rabbit_not_amqp() -> None:
    for url in ("amqp://user:secret@host:5672/", "AMQP://", "amqp://user:p@secret@host/"):
        assert find_fault(url).startswith("write rabbit:// instead of amqp://; the form is rabbit://USER"), url
    fault = find_fault("amqps://user:secret@host:5671/")
    assert "[oslo_messaging_rabbit] ssl = true" in fault
    assert "secret" not in fault


def test_what_is_right_is_let_through() -> None:
    for url in (
        "rabbit://",
        "rabbit:///vhost",
        "rabbit://host",
        "rabbit://user:pw@host:5672/",
        "rabbit://user:p:w@host/vhost",
        "rabbit://user:p%40w@host_1.example.org:65535/a/b",
        "rabbit://user:pw@[2001:db8::1]:5672,user:pw@10.0.0.2,host3/",
        "rabbit://user:pw@2001:db8::1/",
        "rabbit://user:pw@host/?ssl=1&ssl_ca_file=/etc/a@b.pem",
        "fake://",
    ):
        assert find_fault(url) == "", url


@given(st.text(), st.text(), st.text())
def test_what_is_encoded_is_let_through(user: str, password: str, vhost: str) -> None:
    login = ":".join(quote(each, safe="", errors="replace") for each in (user, password))
    assert find_fault(f"rabbit://{login}@host:5672/{quote(vhost, safe='', errors='replace')}") == ""

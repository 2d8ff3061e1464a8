# SPDX-License-Identifier: Apache-2.0
import itertools
import urllib.parse
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porthole_common import errors
from porthole_common.model import TokenReason
from porthole_novncproxy.admission import access
from porthole_novncproxy.doors import NOVNC, XVPVNC
from support.cases import naming

TOKEN = "6f9c7a5e-1b6e-4f0e-9a57-2d6d1f3b8c11"
OTHER = "00000000-0000-4000-8000-000000000000"


def request(
    origins=(), hosts=("good.org:6080",), source="192.0.2.7", forwarded_proto=(), browser=True, forwarded_for=()
):
    return access.ConsoleRequest(
        NOVNC if browser else XVPVNC, TOKEN, source, tuple(origins), tuple(hosts), forwarded_proto, forwarded_for
    )


def test_the_token_of_a_request():
    """Query before cookie, and each cookie part for itself (C4)."""
    cases = [
        (f"/?token={TOKEN}", [], TOKEN),
        (f"/any/path?a=b&token={TOKEN}", [], TOKEN),
        (f"/?token={OTHER}&token={TOKEN}", [], TOKEN),
        (f"/?token={TOKEN}", [f"token={OTHER}"], TOKEN),
        ("/?token=", [f"token={TOKEN}"], ""),
        (f"/?token={TOKEN}#token={OTHER}", [], TOKEN),
        (f"/?token={urllib.parse.quote('a b')}", [], "a b"),
        (f"/token={TOKEN}", [], None),
        (f"/?nottoken={TOKEN}", [], None),
        (f"/?TOKEN={TOKEN}", [], None),
        ("/", [], None),
        ("/", [f"token={TOKEN}"], TOKEN),
        ("/", [f"a=b; token={TOKEN}; c=d"], TOKEN),
        ("/", [f'token="{TOKEN}"'], TOKEN),
        ("/", ["a=b", f"token={TOKEN}"], TOKEN),
        ("/", [f"token={TOKEN}; token={OTHER}"], TOKEN),
        ("/", [f"?=!; token={TOKEN}"], TOKEN),
        ("/", [f"token; token={TOKEN}"], TOKEN),
        ("/", [f";;=;\x01=\xff;token={TOKEN};"], TOKEN),
        ("/", [f"nottoken={TOKEN}"], None),
    ]
    for path, cookies, token in cases:
        with naming(path, cookies, token):
            assert access.parse_token(path, cookies) == token


def test_of_a_long_query_the_last_fields_are_looked_at():
    """The event loop looks for the token, and a header has room for thousands of fields."""
    for before, after, token in ((5000, 0, TOKEN), (0, 63, TOKEN), (0, 64, None), (5000, 5000, None)):
        with naming(before, after):
            path = "/?" + "a&" * before + f"token={TOKEN}" + "&a" * after
            assert access.parse_token(path, ()) == token


harmless = st.text(st.characters(codec="latin-1", exclude_characters=";"), max_size=20).filter(
    lambda part: part.strip().partition("=")[0] != "token"
)


@given(st.lists(harmless, max_size=6), st.lists(harmless, max_size=6))
def test_no_cookie_part_hides_the_token_or_raises(before, after):
    """Whatever stands beside it (C4)."""
    assert access.parse_token("/", [";".join([*before, f" token={TOKEN}", *after])]) == TOKEN


@given(st.text(max_size=80), st.lists(st.text(max_size=40), max_size=3))
def test_reading_a_token_never_raises(path, cookies):
    token = access.parse_token(path, cookies)
    assert token is None or isinstance(token, str)


def test_what_is_not_a_uuid_is_no_token():
    """Nothing else reaches a daemon (S11, S19)."""
    cases = [
        None,
        "",
        "x",
        "token",
        TOKEN[:-1],
        TOKEN + "0",
        TOKEN + "\n",
        "\n" + TOKEN,
        " " + TOKEN,
        TOKEN.upper(),
        TOKEN.replace("-", ""),
        "{" + TOKEN + "}",
        "urn:uuid:" + TOKEN,
        TOKEN.replace("6", "\uff16"),
        TOKEN + "\0",
        TOKEN.replace("-", " "),
        "a" * 10240,
        "porthole:instance:" + TOKEN,
    ]
    for token in cases:
        with naming(token), pytest.raises(errors.TokenInvalid):
            access.check_token_syntax(token)


def test_a_uuid_is_a_token():
    assert access.check_token_syntax(TOKEN) == TOKEN


@given(st.text(max_size=50))
def test_only_uuids_pass_the_syntax(text):
    with pytest.raises(errors.TokenInvalid):
        access.check_token_syntax(text)


ALLOWED = [
    ("http://good.org", "good.org"),
    ("http://good.org", "good.org:6080"),
    ("http://good.org:8000", "good.org:6080"),
    ("https://good.org", "good.org"),
    ("http://GOOD.org", "good.ORG:80"),
    ("HTTP://good.org", "good.org"),
    ("http://good.org.", "good.org"),
    ("http://good.org", "good.org.:6080"),
    ("http://[::1]", "[::1]:6080"),
    ("http://[::1]:8080", "[::1]"),
    ("http://[2001:DB8::1]", "[2001:db8::1]:6080"),
    ("http://127.0.0.1:6080", "127.0.0.1:6080"),
    ("http://xn--bcher-kva.example", "xn--bcher-kva.example"),
]
REFUSED = [
    ("http://evil.org", "good.org"),
    ("http://evil-good.org", "good.org"),
    ("http://evilgood.org", "good.org"),
    ("http://good.org.evil.com", "good.org"),
    ("http://good.org.evil", "good.org"),
    ("http://sub.good.org", "good.org"),
    ("http://org", "good.org"),
    ("http://good.org@evil.org", "good.org"),
    ("http://evil.org@good.org", "good.org"),
    ("http://good.org:80@evil.org", "good.org"),
    ("http://evil.org/good.org", "good.org"),
    ("http://evil.org?good.org", "good.org"),
    ("http://evil.org#good.org", "good.org"),
    ("http://evil.org\\good.org", "good.org"),
    ("http://evil.org/@good.org", "good.org"),
    ("http://evil.org\\@good.org", "good.org"),
    ("http://good.org/", "good.org"),
    ("http://good.org, http://evil.org", "good.org"),
    ("http://good.org http://evil.org", "good.org"),
    ("http://evil.org http://good.org", "good.org"),
    ("http://good.org:", "good.org"),
    ("http://good.org:80:80", "good.org"),
    ("http://good.org:x", "good.org"),
    ("http://good.org:99999", "good.org"),
    ("http://good.org..", "good.org"),
    ("http://.good.org", "good.org"),
    ("http://", "good.org"),
    ("http://:80", "good.org"),
    ("http:good.org", "good.org"),
    ("http:/good.org", "good.org"),
    ("//good.org", "good.org"),
    ("good.org", "good.org"),
    ("null", "good.org"),
    ("NULL", "good.org"),
    ("null", "null"),
    ("http://null", "good.org"),
    ("", "good.org"),
    ("   ", "good.org"),
    ("file://good.org", "good.org"),
    ("file://", "good.org"),
    ("ws://good.org", "good.org"),
    ("chrome-extension://good.org", "good.org"),
    ("data:text/html,good.org", "good.org"),
    ("http://[::2]", "[::1]:6080"),
    ("http://[::1", "[::1]:6080"),
    ("http://::1", "[::1]:6080"),
    ("http://127.0.0.1.evil.org", "127.0.0.1"),
    ("http://g\u1d0f\u1d0fd.org", "good.org"),
    ("http://\uff47ood.org", "good.org"),
    ("http://good%2eorg", "good.org"),
    ("http://good.org%00.evil.org", "good.org"),
]


def test_a_page_of_the_same_host_may_open_a_console():
    """However the host is written (S4)."""
    for origin, host in ALLOWED:
        with naming(origin, host):
            access.check_origin(request([origin], [host]), [])


def test_a_page_of_another_host_may_not():
    """However much it looks like it (S4)."""
    for origin, host in REFUSED:
        with naming(origin, host), pytest.raises(errors.OriginRefused):
            access.check_origin(request([origin], [host]), [])


def test_the_same_refusals_hold_for_a_host_of_the_configuration():
    for origin, host in REFUSED:
        with naming(origin, host), pytest.raises(errors.OriginRefused):
            access.check_origin(request([origin], ["proxy.example"]), [host.partition(":6080")[0]])


def test_a_host_of_allowed_origins_may_open_a_console():
    for name, origin in itertools.product(
        ["portal.example", "PORTAL.example", "portal.example."],
        ["https://portal.example", "https://PORTAL.example.:8443"],
    ):
        with naming(name, origin):
            access.check_origin(request([origin]), ["other.example", name])


def test_an_ipv6_address_in_allowed_origins():
    for name in ("::1", "[::1]"):
        with naming(name):
            access.check_origin(request(["http://[::1]:9000"]), [name])


def test_two_origins_are_refused_even_when_one_is_right():
    """Which of them a browser meant, nobody knows (S4)."""
    for origins in (("http://good.org", "http://good.org"), ("http://good.org", "http://evil.org"), ("null", "null")):
        with naming(origins), pytest.raises(errors.OriginRefused):
            access.check_origin(request(origins), [])


def test_without_exactly_one_sound_host_a_browser_is_refused():
    """There is nothing to compare its Origin with (S4)."""
    host_lists = [
        (),
        ("",),
        ("  ",),
        ("good.org", "good.org"),
        ("good.org", "evil.org"),
        ("user@good.org",),
        ("good.org/x",),
        (":80",),
    ]
    for hosts, origins in itertools.product(host_lists, [(), ("http://good.org",)]):
        with naming(hosts, origins):
            if not origins and len(hosts) == 1 and hosts[0].strip():
                # Without Origin the Host decides about nothing.
                access.check_origin(request(origins, hosts), [])
            else:
                with pytest.raises(errors.RequestInvalid):
                    access.check_origin(request(origins, hosts), [])


def test_no_origin_is_not_a_browser_and_is_let_through():
    access.check_origin(request(), [])
    access.check_origin_scheme(request(), "https://good.org/", [])


def test_a_native_viewer_has_neither_host_nor_origin():
    access.check_origin(request((), (), browser=False), [])
    access.check_origin_scheme(request(["null"], (), browser=False), "https://good.org/", [])


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_origin_and_host_end_in_a_decision(origin, host):
    try:
        access.check_origin(request([origin], [host]), ["portal.example"])
    except (errors.OriginRefused, errors.RequestInvalid):
        return
    hostname = urllib.parse.urlsplit(origin.strip()).hostname
    assert hostname is not None
    assert hostname.rstrip(".") in host.lower() or hostname.rstrip(".") == "portal.example"


labels = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8)
names = st.lists(labels, min_size=1, max_size=3).map(".".join)


@given(names, names)
def test_two_names_match_exactly_when_they_are_the_same(one, other):
    try:
        access.check_origin(request([f"http://{one}:81"], [f"{other}:82"]), [])
    except errors.OriginRefused:
        assert one != other
    else:
        assert one == other


def test_the_scheme_is_the_access_urls_or_what_a_trusted_proxy_says():
    """A plain page does not open the console of a TLS page (S4)."""
    for origin_scheme, url_scheme, forwarded, source in itertools.product(
        ["http", "https"],
        ["http", "https"],
        [(), ("http",), ("https",), (" HTTPS ",), ("wss",), ("ws",), ("gopher",), ("",)],
        ["192.0.2.7", "10.0.0.1"],
    ):
        with naming(origin_scheme, url_scheme, forwarded, source):
            expected = url_scheme
            if forwarded not in {(), ("",)} and source == "10.0.0.1":
                expected = {"ws": "http", "wss": "https"}.get(forwarded[0], forwarded[0].strip().lower())
            asked = request([f"{origin_scheme}://good.org"], source=source, forwarded_proto=forwarded)
            if origin_scheme == expected:
                access.check_origin_scheme(asked, f"{url_scheme}://good.org/console.html", ["10.0.0.1"])
            else:
                with pytest.raises(errors.OriginRefused):
                    access.check_origin_scheme(asked, f"{url_scheme}://good.org/console.html", ["10.0.0.1"])


def test_of_several_schemes_the_one_of_the_outermost_trusted_proxy_counts():
    """Traefik says wss; two proxies in a row make a list, in one line or in two."""
    cases = [
        (("https,http",), (), "http"),
        (("https, http",), ("198.51.100.1", "10.0.0.2"), "https"),
        (("https", "http"), ("198.51.100.1", "10.0.0.2"), "https"),
        # A client writes in front, where no trusted proxy has.
        (("http, wss",), ("198.51.100.1",), "https"),
        (("wss",), ("198.51.100.1", "10.0.0.2"), "https"),
    ]
    for forwarded, forwarded_for, expected in cases:
        with naming(forwarded, forwarded_for):
            asked = request(
                [f"{expected}://good.org"], source="10.0.0.1", forwarded_proto=forwarded, forwarded_for=forwarded_for
            )
            access.check_origin_scheme(asked, "gopher://good.org/", ["10.0.0.1", "10.0.0.2"])


def test_the_source_is_the_peer_or_whom_a_trusted_proxy_names():
    cases = [
        ("192.0.2.7", (), "192.0.2.7"),
        # Whoever is no trusted proxy can write what they like.
        ("192.0.2.7", ("198.51.100.1",), "192.0.2.7"),
        ("10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", (), "10.0.0.1"),
        # What stood there before the proxy added its client is the client's invention.
        ("10.0.0.1", ("203.0.113.9, 198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("203.0.113.9", "198.51.100.1"), "198.51.100.1"),
        # Two proxies in a row.
        ("10.0.0.1", ("203.0.113.9, 198.51.100.1, 10.0.0.2",), "198.51.100.1"),
        ("10.0.0.1", ("10.0.0.2",), "10.0.0.2"),
        ("::ffff:10.0.0.1", (" 2001:DB8::0001 ",), "2001:db8::1"),
        ("10.0.0.1", ("unknown",), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.1, unknown, 10.0.0.2",), "10.0.0.2"),
        ("10.0.0.1", ("198.51.100.1:4711",), "198.51.100.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
    ]
    for peer, forwarded_for, source in cases:
        with naming(peer, forwarded_for, source):
            assert access.find_source(peer, forwarded_for, ["10.0.0.1", "10.0.0.2"]) == source


def test_each_error_has_its_status_and_words_without_its_fields():
    cases = [
        (errors.TokenInvalid("unknown"), 401),
        (errors.OriginRefused("x"), 403),
        (errors.RequestInvalid("x"), 400),
        (errors.LimitReached("x"), 429),
        (errors.RpcUnavailable("consoleauth", "check_token"), 503),
        (errors.RemoteFailure("compute", "validate_console"), 503),
        (errors.TokenStoreUnavailable("down"), 503),
        (errors.HypervisorUnavailable("h"), 503),
        (errors.HostUnavailable("h"), 503),
        (errors.VncServerUnavailable("h", 5900), 502),
        (errors.VncServerTimeout("h", 5900), 504),
        (errors.InstanceNotFound("i"), 401),
        (errors.InstanceNotRunning("i", "shutoff"), 401),
        (errors.ConsoleTypeInvalid("x"), 503),
        (errors.PortholeError(), 503),
    ]
    for error, status in cases:
        with naming(error, status):
            answered, reason = access.refusal_for(error)
            assert answered == HTTPStatus(status)
            assert reason.endswith(".")
            for value in error.values():
                assert f"{value}" not in reason.split()


def test_the_reason_of_a_refusal_is_one_of_a_few_words() -> None:
    for error, name in (
        (errors.TokenInvalid(TokenReason.UNKNOWN), "token_invalid_unknown"),
        (errors.TokenInvalid("whatever another daemon says"), "token_invalid_other"),
        (errors.LimitReached("[novncproxy] max_sessions_per_token"), "limit_reached_max_sessions_per_token"),
        (errors.RpcUnavailable("consoleauth", "check_token"), "rpc_unavailable_consoleauth"),
        (errors.RemoteFailure("compute", "validate_console"), "remote_failure_compute"),
        (errors.VncServerTimeout("192.0.2.1", 5900), "vnc_server_timeout"),
        (errors.OriginRefused("it is https://192.0.2.1"), "origin_refused"),
        (errors.HypervisorUnavailable("host1"), "hypervisor_unavailable"),
    ):
        with naming(str(error)):
            assert access.name_refusal(error) == name

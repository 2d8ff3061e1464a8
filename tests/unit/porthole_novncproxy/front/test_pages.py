# SPDX-License-Identifier: Apache-2.0
"""The pages of the proxy: what is served, with which headers, and what never is."""

import base64
import email.utils
import hashlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from porthole_common import errors
from porthole_novncproxy.front.pages import PACKAGE_WEB, Pages, parse_inline_sources
from porthole_novncproxy.front.responses import Response
from porthole_relay.frames import CloseCode
from support.cases import naming

SCRIPT = "\n  import RFB from './core/rfb.js';\n"
LITE = f"<html><title>noVNC</title><style>a{{}}</style><script type='module'>{SCRIPT}</script></html>"
TOKEN = "6b1c9a52-7a3e-4f0c-9d7c-0a4c4f4e2f11"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


def make_root(folder: Path) -> Path:
    """A web root with a little noVNC, a secret beside it, and a link out of it."""
    web = folder / "web"
    (web / "core").mkdir(parents=True)
    (web / "core" / "rfb.js").write_text("export default class {}")
    (web / "vnc_lite.html").write_text(LITE)
    (web / "vnc.html").write_text("<html>noVNC<script src='app/ui.js'></script></html>")
    (web / "app").mkdir()
    for name in ("a.css", "a.svg", "a.json", "a.wasm", "a.woff2", "a.mp3", "a.unknown", "with space.js", "é.js"):
        (web / "app" / name).write_text("x")
    (web / ".hidden").write_text("x")
    (folder / "secret").write_text("x")
    (web / "out.html").symlink_to(folder / "secret")
    (web / "up").symlink_to(folder)
    (web / "in.html").symlink_to("vnc.html")
    (web / "loop").symlink_to("loop")
    os.mkfifo(web / "pipe")
    return web


@pytest.fixture
def pages(root: Path) -> Pages:
    return Pages(str(root), ["'self'"])


def header(response: Response, name: str) -> str | None:
    return dict(response.headers).get(name)


def get(pages: Pages, path: str, if_modified_since: str | None = None) -> Response:
    response = pages.respond(path, if_modified_since)
    assert header(response, "Location") is None
    assert header(response, "Referrer-Policy") == "no-referrer"
    assert header(response, "X-Content-Type-Options") == "nosniff"
    assert "frame-ancestors" in (header(response, "Content-Security-Policy") or "")
    return response


def test_files_of_the_web_root(pages: Pages, root: Path) -> None:
    cases = [
        ("/vnc.html", "vnc.html"),
        ("/vnc.html?autoconnect=1", "vnc.html"),
        ("/vnc_auto.html?path=%3Ftoken%3Dx", "vnc_lite.html"),
        ("/core/rfb.js", "core/rfb.js"),
        ("/app/with%20space.js", "app/with space.js"),
        ("/app/%C3%A9.js", "app/é.js"),
        ("/in.html", "vnc.html"),
    ]
    for path, file in cases:
        with naming(path, file):
            response = get(pages, path)
            assert (response.status, response.file) == (200, root / file)
            assert header(response, "Content-Length") == str((root / file).stat().st_size)


def test_console_page_comes_from_the_package(pages: Pages) -> None:
    for path in ("/", "/?token=x", "/console.html", "/console.html?path=%3Ftoken%3Dx"):
        with naming(path):
            response = get(pages, path)
            assert (response.status, response.file) == (200, PACKAGE_WEB / "console.html")


def test_healthcheck(root: Path) -> None:
    """For load balancers; it needs no web root, and nothing is kept of it."""
    for pages in (Pages(str(root), []), Pages(None, [])):
        response = pages.healthcheck
        assert (response.status, response.body) == (200, b"OK\n")
        assert header(response, "Cache-Control") == "no-store"


def test_every_file_of_the_package_is_served(pages: Pages) -> None:
    names = sorted(file.name for file in PACKAGE_WEB.iterdir())
    assert names
    for name in names:
        with naming(name):
            assert get(pages, f"/{name}").file == PACKAGE_WEB / name


def test_console_page_is_the_packages_even_where_the_web_root_has_one(pages: Pages, root: Path) -> None:
    (root / "console.html").write_text("another")
    assert get(pages, "/console.html").file == PACKAGE_WEB / "console.html"


def test_console_page_has_what_clients_look_for_and_nothing_inline() -> None:
    text = (PACKAGE_WEB / "console.html").read_text()
    for word in ("<html", "</html>", "noVNC", "<script"):
        assert word in text
    assert parse_inline_sources(text) == ("", "")
    assert " style=" not in text


def test_alias_falls_back_to_vnc_html(pages: Pages, root: Path) -> None:
    """Whichever page the noVNC that is installed has (C15)."""
    (root / "vnc_lite.html").unlink()
    assert get(pages, "/vnc_auto.html").file == root / "vnc.html"


def test_malformed_targets_are_400(pages: Pages) -> None:
    """S7: no address that some browser takes for another host, and no redirect for any."""
    cases = [
        "//host/%2F..",
        "///host/%2F..",
        "////host/%2F..",
        "//host/vnc.html",
        "//",
        "/\\host/..",
        "\\\\host",
        "/%5Chost/%2F..",
        "/%5c%5chost",
        "/app\\a.css",
        "/vnc.html\x00",
        "/vnc.html\r\nX: y",
        "/vnc.html\x7f",
        "/é.js",
        "/ vnc.html",
        "vnc.html",
        "http://host/vnc.html",
        "*",
        "",
    ]
    for path in cases:
        with naming(path):
            response = get(pages, path)
            assert (response.status, response.file) == (400, None)
            assert b"host" not in response.body


def test_what_is_no_file_in_its_place_is_404(pages: Pages) -> None:
    """S8: no way up, no listing, no link out."""
    cases = [
        "/../secret",
        "/app/../vnc.html",
        "/./vnc.html",
        "/%2e%2e/secret",
        "/%2E%2E/secret",
        "/..%2fsecret",
        "/%2f%2fhost",
        "/app%2fa.css",
        "/%00",
        "/vnc.html%00",
        "/vnc.html%0d%0aX:%20y",
        "/%ff.js",
        "/%c0%ae%c0%ae/secret",
        "/app",
        "/app/",
        "/app//a.css",
        "/core/",
        "/up",
        "/up/secret",
        "/out.html",
        "/loop",
        "/pipe",
        "/.hidden",
        "/nothing.html",
        "/vnc.html/",
        "/vnc.html/x",
        "/console.html/",
        "/web/console.html",
        "/" + "a" * 5000,
        "/favicon.ico",
    ]
    for path in cases:
        with naming(path):
            response = get(pages, path)
            assert (response.status, response.file) == (404, None)
            assert b"noVNC" in response.body
            assert header(response, "Content-Length") == str(len(response.body))


# Ways up, ways around, and names that are there: noise alone meets none of these.
parts = st.sampled_from(
    ["..", "%2e%2e", "..%2f", "%2e%2e%2f", ".", "", "core", "up", "web", "secret", "vnc.html", "rfb.js", "\\", "%00"]
) | st.text(max_size=6)


@example(path="../secret", start="/")
@example(path="up/secret", start="/")
@given(path=st.lists(parts, max_size=7).map("/".join), start=st.sampled_from(["", "/"]))
def test_no_path_leaves_the_roots(path: str, start: str, web_root: Path) -> None:
    """Whatever the path (S8)."""
    response = Pages(str(web_root), []).respond(start + path, None)
    assert response.status in (200, 400, 404)
    if response.file is not None:
        assert response.file.is_relative_to(web_root) or response.file.parent == PACKAGE_WEB


@pytest.fixture(scope="module")
def web_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    web = tmp_path_factory.mktemp("outer") / "web"
    (web / "core").mkdir(parents=True)
    (web / "core" / "rfb.js").write_text("")
    (web / "vnc.html").write_text("")
    (web / "up").symlink_to("..")
    (web.parent / "secret").write_text("")
    return web


def test_content_types(pages: Pages) -> None:
    cases = [
        ("/vnc.html", "text/html; charset=utf-8"),
        ("/console.js", "text/javascript; charset=utf-8"),
        ("/console.css", "text/css; charset=utf-8"),
        ("/core/rfb.js", "text/javascript; charset=utf-8"),
        ("/app/a.css", "text/css; charset=utf-8"),
        ("/app/a.svg", "image/svg+xml"),
        ("/app/a.json", "application/json"),
        ("/app/a.wasm", "application/wasm"),
        ("/app/a.woff2", "font/woff2"),
        ("/app/a.mp3", "audio/mpeg"),
        ("/app/a.unknown", "application/octet-stream"),
    ]
    for path, content_type in cases:
        with naming(path, content_type):
            assert header(get(pages, path), "Content-Type") == content_type


def test_pages_with_a_token_are_stored_nowhere(pages: Pages) -> None:
    """S9: neither a cache nor a validator keeps the page under an address that opens a console."""
    cases = [
        f"token={TOKEN}",
        f"path=%3Ftoken%3D{TOKEN}",
        f"path=websockify%3ftoken%3d{TOKEN}",
        f"path=%253Ftoken%253D{TOKEN}",
        f"autoconnect=1&path=%2525%33Ftoken%25253D{TOKEN}",
        f"Token={TOKEN}",
    ]
    for query in cases:
        with naming(query):
            response = get(pages, f"/console.html?{query}", email.utils.formatdate(usegmt=True))
            assert response.status == 200
            assert header(response, "Cache-Control") == "no-store"


def test_code_is_asked_for_again_each_time(pages: Pages, root: Path) -> None:
    for path in ("/core/rfb.js", "/console.js", "/vnc.html", "/vnc.html?autoconnect=1"):
        assert header(get(pages, path), "Cache-Control") == "no-cache"


def test_unmodified_files_are_304(pages: Pages, root: Path) -> None:
    cases = [
        ("Sun, 13 Sep 2020 12:26:40 GMT", 304),
        ("Sun, 13 Sep 2020 12:26:41 GMT", 200),
        ("Sun, 13 Sep 2020 12:26:39 GMT", 200),
        ("Sun, 13 Sep 2020 12:26:40", 304),
        ("yesterday", 200),
        ("", 200),
        ("Sun, 13 Sep 99999 12:26:40 +9999999999999999999", 200),
        (None, 200),
    ]
    for since, status in cases:
        with naming(since, status):
            os.utime(root / "core" / "rfb.js", (1_600_000_000, 1_600_000_000.7))
            response = get(pages, "/core/rfb.js", since)
            assert (response.status, header(response, "Last-Modified")) == (status, "Sun, 13 Sep 2020 12:26:40 GMT")
            if status == 304:
                assert (response.file, response.body, header(response, "Content-Length")) == (None, b"", None)


def test_a_packers_constant_date_is_none(pages: Pages, root: Path) -> None:
    """npm's archives date every file of every noVNC alike: a 304 would keep the old one after an upgrade."""
    for date_s in (0, 1, 315532800, 499162500, 946684800, 1262304000):
        with naming(date_s):
            os.utime(root / "core" / "rfb.js", (date_s, date_s))
            response = get(pages, "/core/rfb.js", email.utils.formatdate(date_s, usegmt=True))
            assert (response.status, header(response, "Last-Modified")) == (200, None)
            assert header(response, "Cache-Control") == "no-cache"


@given(since=st.text(max_size=40))
def test_no_date_breaks_it(since: str, web_root: Path) -> None:
    assert Pages(str(web_root), []).respond("/vnc.html", since).status in (200, 304)


def sha256_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_policy_of_novnc_pages_names_their_inline_parts(pages: Pages, root: Path) -> None:
    policy = header(get(pages, "/vnc_lite.html"), "Content-Security-Policy") or ""
    assert f"script-src 'self' {sha256_source(SCRIPT)};" in policy
    assert f"style-src 'self' {sha256_source('a{}')};" in policy
    assert "unsafe-inline" not in policy
    assert "connect-src 'self';" in policy
    (root / "vnc_lite.html").write_text(LITE.replace(SCRIPT, "changed();"))
    policy = header(get(pages, "/vnc_lite.html"), "Content-Security-Policy") or ""
    assert sha256_source("changed();") in policy
    assert sha256_source(SCRIPT) not in policy


def test_policy_of_the_console_page_allows_nothing_inline(pages: Pages) -> None:
    policy = header(get(pages, "/console.html"), "Content-Security-Policy") or ""
    assert "script-src 'self'; style-src 'self';" in policy


def test_policy_of_a_drawing_runs_no_script(pages: Pages) -> None:
    assert header(get(pages, "/app/a.svg"), "Content-Security-Policy") == (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"
    )


def test_parse_inline_sources() -> None:
    cases = [
        ("<script>a</script><script>a</script>", ["a"]),
        ("<script>a\r\nb\rc</script>", ["a\nb\nc"]),
        ("<SCRIPT TYPE=module>if (a < b && c) {}</SCRIPT>", ["if (a < b && c) {}"]),
        ("<!-- <script>no</script> --><script src=x>no</script><script></script>", [""]),
        ("<p>text</p>", []),
    ]
    for page, scripts in cases:
        with naming(page, scripts):
            assert parse_inline_sources(page) == ("".join(f" {sha256_source(text)}" for text in scripts), "")


def test_frame_ancestors(root: Path) -> None:
    """Who may embed the page is an option (S9)."""
    cases = [
        (["'self'"], "frame-ancestors 'self'", "SAMEORIGIN"),
        (["self"], "frame-ancestors 'self'", "SAMEORIGIN"),
        ([], "frame-ancestors 'none'", "DENY"),
        (["none"], "frame-ancestors 'none'", "DENY"),
        (
            ["'self'", "https://horizon.example:8443", "*.example"],
            "frame-ancestors 'self' https://horizon.example:8443 *.example",
            None,
        ),
    ]
    for ancestors, directive, x_frame_options in cases:
        for path in ("/console.html", "/core/rfb.js", "/nothing", "//host"):
            with naming(ancestors, path):
                response = Pages(str(root), ancestors).respond(path, None)
                assert (header(response, "Content-Security-Policy") or "").endswith(f"; {directive}")
                assert header(response, "X-Frame-Options") == x_frame_options


def test_bad_frame_ancestors_are_refused(root: Path) -> None:
    for ancestors in (["a; script-src *"], ["a b"], ["a\r\nX: y"], [""], ["'none'", "https://a"], ["é"]):
        with naming(ancestors):
            with pytest.raises(errors.ConfigInvalid) as caught:
                Pages(str(root), ancestors)
            assert caught.value.option == "[console] frame_ancestors"


def test_web_root_without_novnc_is_refused(tmp_path: Path) -> None:
    for number, missing in enumerate((["core/rfb.js"], ["everything"])):
        with naming(missing):
            folder = tmp_path / str(number)
            folder.mkdir()
            root = make_root(folder)
            if missing == ["everything"]:
                root = root / "nowhere"
            else:
                for name in missing:
                    (root / name).unlink()
            with pytest.raises(errors.ConfigInvalid) as caught:
                Pages(str(root), ["'self'"])
            assert caught.value.option == "[DEFAULT] web"
            assert str(root) in caught.value.reason


def test_a_web_root_with_commonjs_alone_is_refused_as_such(root: Path) -> None:
    """npm's packages of noVNC 1.5 and 1.6."""
    (root / "core").rename(root / "lib")
    with pytest.raises(errors.ConfigInvalid) as caught:
        Pages(str(root), ["'self'"])
    assert f"{root} has noVNC as CommonJS alone" in caught.value.reason


def test_the_library_alone_serves_the_console_page_and_says_which_pages_it_has_not(root: Path) -> None:
    """C15: npm's package of noVNC, to which an access URL of before may lead."""
    for name in ("vnc.html", "vnc_lite.html", "in.html"):
        (root / name).unlink()
    pages = Pages(str(root), ["'self'"])
    for path in ("/", "/console.html", "/console.js", "/core/rfb.js"):
        assert get(pages, path).status == 200
    for name in ("vnc.html", "vnc_lite.html", "vnc_auto.html"):
        for path in (f"/{name}", f"/{name}?path=%3Ftoken%3D{TOKEN}", f"/{name.replace('.', '%2E')}"):
            with naming(path):
                response = get(pages, path)
                text = response.body.decode()
                assert (response.status, header(response, "Cache-Control")) == (404, "no-store")
                assert header(response, "Content-Length") == str(len(response.body))
                assert f"This web root has no noVNC application, only noVNC's library, so there is no {name}." in text
                assert f"put console.html in place of {name}" in text
                assert "[vnc] novncproxy_base_url" in text
                assert TOKEN not in text
    assert b"console.html" not in get(pages, "/nothing.html").body


def test_a_page_that_this_novnc_lacks_is_named(pages: Pages, root: Path) -> None:
    (root / "vnc_lite.html").unlink()
    text = get(pages, "/vnc_lite.html").body.decode()
    assert "The noVNC in this web root has no vnc_lite.html." in text
    assert "put console.html in place of vnc_lite.html" in text
    assert get(pages, "/vnc_auto.html").status == 200


def test_no_web_root_no_pages() -> None:
    for web_root_option in ("", None):
        with naming(web_root_option):
            pages = Pages(web_root_option, ["'self'"])
            assert [pages.respond(path, None).status for path in ("/", "/console.html", "/vnc.html")] == [404, 404, 404]


def test_the_console_page_has_words_for_each_close_code():
    words = (PACKAGE_WEB / "console_words.js").read_text("utf-8")
    table = words.partition("const CLOSES = {")[2].partition("\n};")[0]
    codes = re.findall(r"^    (\d{4}): \{$", table, re.MULTILINE) + re.findall(
        r"^CLOSES\[(\d+)\] =", words, re.MULTILINE
    )
    assert sorted(map(int, codes)) == sorted(CloseCode)

# SPDX-License-Identifier: Apache-2.0
"""The pages of the proxy: which file a request path names, and the headers it is sent with.

Why: file servers beside a URL with a token are where proxies were attacked (open redirects, traversal, listings, tokens
in Referer and caches). Here the whole answer follows from the request path and the file system, without a socket, so
each of these attacks is a unit test. There are no redirects and no listings.

noVNC's files come from the operator's web root; ``console.html`` and its own files from this package.
Called by :mod:`porthole_novncproxy.front.handler`.
"""

import base64
import hashlib
import html.parser
import os
import pathlib
import re
import urllib.parse
from collections.abc import Sequence
from http import HTTPStatus

from porthole_common import errors
from porthole_common.static_files import (
    build_validators,
    find_below,
    find_content_type,
    is_harmless_target,
    is_unmodified,
    parse_names,
)
from porthole_novncproxy import novnc
from porthole_novncproxy.front.responses import Headers, Response

PACKAGE_WEB = pathlib.Path(__file__).parents[1] / "web"
OWN_FILES = frozenset({"console.html", "console.js", "console_words.js", "console.css"})
# For load balancers: the process takes requests and answers them. No other daemon is asked; the api has the same.
HEALTHCHECK = "/healthcheck"
# noVNC 1.0 dropped vnc_auto.html, which connected at once. vnc_lite.html connects at once too; vnc.html, to which some
# packages link the name, waits for a click.
ALIASES = {"": ("console.html",), "vnc_auto.html": ("vnc_lite.html", "vnc.html")}

# The pages of noVNC's application, of which an access URL may name one; npm's package of noVNC has none of them.
NOVNC_PAGES = frozenset({"vnc.html", "vnc_lite.html", "vnc_auto.html"})

# A page is parsed for its inline scripts; noVNC's largest page has 16 KiB.
MAX_HTML_BYTES = 1024 * 1024
# An encoded token is still one: path=%3Ftoken%3D..., and the same through one more login page.
MAX_QUERY_DECODINGS = 4


class Pages:
    """The files below a web root with noVNC (1.3 or later), and the package's own console page.

    Of noVNC the library is enough; a page of its application that is not there is a 404 that says so.
    """

    def __init__(self, web_root: str | None, frame_ancestors: Sequence[str]) -> None:
        """Check the web root and build the policies; with no ``web_root`` every page is 404.

        ``frame_ancestors``: sources of the CSP directive of that name (CSP level 3 section 6.4.2); none: no embedding.

        :raises ConfigInvalid: when the web root is no folder with noVNC, or a frame ancestor is no CSP source.
        """
        self._root = _check_web_root(web_root) if web_root else None
        ancestors = _check_frame_ancestors(frame_ancestors)
        self._frame_ancestors = f"frame-ancestors {' '.join(ancestors)}"
        self._x_frame_options = {"'none'": "DENY", "'self'": "SAMEORIGIN"}.get(" ".join(ancestors))
        self._inline_sources: dict[pathlib.Path, tuple[int, int, tuple[str, str]]] = {}
        # The answer at :data:`HEALTHCHECK`.
        self.healthcheck = self._say(HTTPStatus.OK, "OK\n")

    def respond(self, raw_path: str, if_modified_since: str | None) -> Response:
        """Return the answer to a GET of ``raw_path``, path and query of the target (RFC 9112 section 3.2.1).

        200 with a file; 304 (RFC 9110 section 13.1.3); 400 for a target that could name another host to some browser or
        proxy; 404 for everything that is not a regular file in its place.
        """
        path, _separator, query = raw_path.partition("?")
        if not is_harmless_target(raw_path, path):
            return self._refuse(HTTPStatus.BAD_REQUEST, "This address is malformed.")
        file = self._find(path)
        if file is None:
            return self._refuse(HTTPStatus.NOT_FOUND, self._explain_not_found(path))
        try:
            status = file.stat()
            policy = self._policy(file, status)
        except OSError:
            return self._refuse(HTTPStatus.NOT_FOUND, "This page has just gone.")
        return self._send(file, status, policy, _has_token(query), if_modified_since)

    def _find(self, path: str) -> pathlib.Path | None:
        """Return the regular file that a URL path names, below one of the two roots; None when there is none."""
        if self._root is None:
            return None
        names = parse_names(path)
        if names is None:
            return None
        wanted = ALIASES.get("/".join(names), ("/".join(names),))
        if len(names) == 1 and wanted[0] in OWN_FILES:
            return PACKAGE_WEB / wanted[0]
        return next((file for name in wanted if (file := find_below(self._root, name))), None)

    def _explain_not_found(self, path: str) -> str:
        """Return what to do instead, of a page of noVNC's in plain terms: a URL may name one that this noVNC lacks."""
        name = urllib.parse.unquote(path[1:], errors="replace")
        if self._root is None or name not in NOVNC_PAGES:
            return "There is no such page here. A console opens with its whole URL."
        lack = f"The noVNC in this web root has no {name}"
        if not novnc.has_application(str(self._root)):
            lack = f"This web root has no noVNC application, only noVNC's library, so there is no {name}"
        return (
            f"{lack}.\n\n"
            f"Use console.html: in the address, put console.html in place of {name}, and leave the rest as it is.\n\n"
            "For the administrator of this service: [vnc] novncproxy_base_url should end in /console.html, or "
            "[DEFAULT] web should name the folder of a noVNC that has its own pages."
        )

    def _policy(self, file: pathlib.Path, status: os.stat_result) -> str:
        """Return the Content-Security-Policy of ``file``.

        connect-src ``'self'`` covers the WebSocket to the same host (CSP level 3; Chromium 71, Firefox, Safari 16) and
        keeps a crafted link's ``?host=`` from showing a foreign screen under this address.
        """
        if file.suffix != ".html":
            # Drawings bear their style within; opened as a page, a drawing must not run a script.
            return f"default-src 'none'; style-src 'unsafe-inline'; {self._frame_ancestors}"
        scripts, styles = self._inline(file, status)
        return (
            f"default-src 'self'; script-src 'self'{scripts}; style-src 'self'{styles}; img-src 'self' data: blob:; "
            f"connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; {self._frame_ancestors}"
        )

    def _inline(self, file: pathlib.Path, status: os.stat_result) -> tuple[str, str]:
        """Return the hash sources of the inline scripts and styles of a page, each with a space before it.

        noVNC's own pages have some; naming them by hash lets those run and nothing that was put in on the way.
        """
        known = self._inline_sources.get(file)
        if known and known[:2] == (status.st_mtime_ns, status.st_size):
            return known[2]
        with file.open("rb") as page:
            found = parse_inline_sources(page.read(MAX_HTML_BYTES).decode("utf-8", "replace"))
        self._inline_sources[file] = (status.st_mtime_ns, status.st_size, found)
        return found

    def _send(
        self, file: pathlib.Path, status: os.stat_result, policy: str, has_token: bool, if_modified_since: str | None
    ) -> Response:
        # no-cache: a cache asks again each time, so that an upgrade of the proxy is never half in the browser.
        caching = ("Cache-Control", "no-store" if has_token else "no-cache")
        headers: Headers = (*build_validators(status), caching, *self._common_headers(policy))
        if not has_token and is_unmodified(status, if_modified_since):
            return Response(HTTPStatus.NOT_MODIFIED, headers)
        content: Headers = (("Content-Type", find_content_type(file)), ("Content-Length", str(status.st_size)))
        return Response(HTTPStatus.OK, content + headers, file=file)

    def _refuse(self, status: HTTPStatus, text: str) -> Response:
        return self._say(status, f"noVNC proxy: {text}\n")

    def _say(self, status: HTTPStatus, text: str) -> Response:
        body = text.encode()
        headers: Headers = (
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            *self._common_headers(f"default-src 'none'; {self._frame_ancestors}"),
        )
        return Response(status, headers, body)

    def _common_headers(self, policy: str) -> Headers:
        headers: Headers = (
            ("Content-Security-Policy", policy),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
        )
        if self._x_frame_options:
            # For browsers without frame-ancestors; it cannot express a list of sites.
            headers += (("X-Frame-Options", self._x_frame_options),)
        return headers


def parse_inline_sources(page: str) -> tuple[str, str]:
    """Return the CSP hash sources of a page's inline scripts and styles (CSP level 3 section 6.7.3.1).

    Each is ``" 'sha256-<base64>'"`` once per different content, joined; empty when the page has none.
    """
    parser = _InlineParser()
    # HTML's preprocessing (section 13.2.3.5) makes every line end a line feed before a browser hashes the content.
    parser.feed(page.replace("\r\n", "\n").replace("\r", "\n"))
    parser.close()
    return _join_hashes(parser.contents["script"]), _join_hashes(parser.contents["style"])


class _InlineParser(html.parser.HTMLParser):
    """Collects the contents of ``script`` elements without ``src`` and of ``style`` elements."""

    def __init__(self) -> None:
        super().__init__()
        self.contents: dict[str, list[str]] = {"script": [], "style": []}
        self._open: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.contents and not any(name == "src" for name, _value in attrs):
            self._open = tag
            self.contents[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._open:
            self.contents[self._open][-1] += data


def _join_hashes(contents: Sequence[str]) -> str:
    digests = dict.fromkeys(base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in contents)
    return "".join(f" 'sha256-{digest}'" for digest in digests)


def _check_web_root(web_root: str) -> pathlib.Path:
    root = pathlib.Path(web_root).resolve()
    if not root.is_dir():
        raise errors.ConfigInvalid("[DEFAULT] web", f"{web_root} is not a folder; it must be noVNC's, or empty")
    if not novnc.is_there(web_root):
        raise errors.ConfigInvalid("[DEFAULT] web", f"{web_root} {novnc.explain_absence(web_root)}")
    return root


def _check_frame_ancestors(sources: Sequence[str]) -> tuple[str, ...]:
    """Return the sources as CSP writes them: the keywords in quotes, whether or not the option had them."""
    checked = tuple(f"'{source}'" if source in ("self", "none") else source for source in sources) or ("'none'",)
    for source in checked:
        if not re.fullmatch(r"'self'|'none'|[A-Za-z0-9*][A-Za-z0-9*.:/\[\]+_~%-]*", source):
            raise errors.ConfigInvalid("[console] frame_ancestors", f"{source!r} is not a CSP source")
    if "'none'" in checked and len(checked) > 1:
        raise errors.ConfigInvalid("[console] frame_ancestors", "'none' allows no other source beside it")
    return checked


def _has_token(query: str) -> bool:
    """Whether a query has a console token, however often it is URL-encoded."""
    for _ in range(MAX_QUERY_DECODINGS):
        if "token=" in query.lower():
            return True
        query = urllib.parse.unquote(query)
    return False

# SPDX-License-Identifier: Apache-2.0
"""The proxy behind the sample configurations of haproxy and nginx: sub-path, TLS, time-outs, whose client it is."""

import http.client
import json
import time
import uuid as uuidlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from porthole_novncproxy.admission.limits import Limits
from porthole_relay.liveness import LivenessPolicy
from support.console_load import NamedVnc, OpenConsole, Refused
from support.deadlines import kept_within
from support.ports import free_port
from support.processes import wait_until
from support.proxy import InProcessProxy, make_web_root
from support.reverse_proxy import Haproxy, Nginx
from support.websocket import PING, PONG, RawWebSocket

ReverseProxy = Haproxy | Nginx
# In place of the sample's 120 s and of the proxy's 45 s, in about the same proportion.
CUT_S, PING_S = 3, 0.5
MANY = Limits(100, 100, 100, 100)


class Front:
    """A proxy in this process, and one of the two in front of it."""

    def __init__(self, proxy: InProcessProxy, reverse: ReverseProxy, guest: NamedVnc) -> None:
        self.proxy, self.reverse, self.guest = proxy, reverse, guest

    def issue(self) -> str:
        """Return the URL of a new console of the guest, as compute gives it out here."""
        token = self.proxy.issue(self.guest, scheme="https", instance_uuid=self.guest.uuid)
        return f"{self.reverse.url}/console/console.html?path=%3Ftoken%3D{token}"

    def open(self) -> OpenConsole:
        """Open a new console of the guest."""
        return OpenConsole(self.issue(), self.guest.uuid, self.reverse.tls)

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Send a GET; return status and body."""
        connection = http.client.HTTPSConnection("localhost", self.reverse.port, context=self.reverse.tls, timeout=20)
        try:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@pytest.fixture(params=[Haproxy, Nginx], ids=["haproxy", "nginx"])
def make_front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Front]]:
    """A maker of fronts; its arguments are InProcessProxy's, and ``cut_s``: when a silent console is cut."""
    with ExitStack() as stack:

        def make(cut_s: int = 120, **options: object) -> Front:
            options = {"trusted_proxies": ("127.0.0.1",), "limits": MANY, **options}
            proxy = stack.enter_context(InProcessProxy(make_web_root(tmp_path), **options))  # type: ignore[arg-type]
            replaced = {
                Haproxy: {"timeout tunnel 120s": f"timeout tunnel {cut_s}s"},
                Nginx: {f"{name}_timeout 120s": f"{name}_timeout {cut_s}s" for name in ("proxy_read", "proxy_send")},
            }
            reverse: ReverseProxy = request.param(tmp_path / "reverse", replaced[request.param])
            # The API is one that is down.
            reverse.write([free_port()] * 2, [proxy.novnc_port] * 2)
            stack.enter_context(reverse)
            return Front(proxy, reverse, stack.enter_context(NamedVnc(str(uuidlib.uuid4()))))

        yield make


def test_pages_and_consoles_below_a_sub_path(make_front: Callable[..., Front]) -> None:
    front = make_front()
    with front.open() as console:
        assert console.is_alive()
    url = front.issue()
    path = url.removeprefix(front.reverse.url)
    assert b"noVNC" in front.get(path)[1]
    assert front.get("/console/core/rfb.js")[0] == 200
    assert front.get("/console/healthcheck") == (200, b"OK\n")
    reason = path.replace("console.html?path=%3Ftoken%3D", "?token=")
    status, body = front.get(reason, {"Accept": "application/json"})
    assert (status, json.loads(body)["code"]) == (200, 200)
    # The console's URL is https: so is a page of it, and no other, whatever the proxy itself was asked over.
    for scheme, expected in (("https", 101), ("http", 403)):
        with RawWebSocket(
            front.reverse.port, reason, [("Origin", f"{scheme}://localhost")], context=front.reverse.tls
        ) as client:
            assert client.reply.status == expected


def test_a_silent_guest_outlasts_the_time_out(make_front: Callable[..., Front]) -> None:
    """O8: pings go through, and an idle console is none to whoever counts the seconds."""
    front = make_front(CUT_S, liveness=LivenessPolicy(ping_interval_s=PING_S))
    with front.open() as console:
        until = time.monotonic() + 3 * CUT_S
        pings = 0
        while time.monotonic() < until:
            opcode, payload = console.socket.read_frame()
            assert opcode == PING
            console.socket.send(payload, PONG)
            pings += 1
        # One at least in each time that a silent console would have.
        assert pings >= 3
        assert console.is_alive()


def test_without_pings_it_would_be_cut(make_front: Callable[..., Front]) -> None:
    """What the test above is about: these time-outs are real."""
    front = make_front(CUT_S)
    begun = time.monotonic()
    with front.open() as console:
        with kept_within(CUT_S, "the cut"), pytest.raises(ConnectionError):
            console.socket.read_frame()
        assert time.monotonic() - begun > CUT_S * 0.75


def test_limits_count_the_client_and_not_the_reverse_proxy(make_front: Callable[..., Front]) -> None:
    """Nor whom the client names: all that it says of itself is taken out on the way."""
    front = make_front(limits=Limits(100, 1, 100, 100))
    claim = ("X-Forwarded-For", "198.51.100.9")
    token_path = front.issue().removeprefix(front.reverse.url).replace("console.html?path=%3Ftoken%3D", "?token=")
    with front.open():
        with pytest.raises(Refused, match="429"):
            front.open()
        with RawWebSocket(front.reverse.port, token_path, [claim], context=front.reverse.tls) as client:
            assert client.reply.status == 429
        # Whom the reverse proxy would name, if it were further away.
        with RawWebSocket(front.proxy.novnc_port, token_path.removeprefix("/console"), [claim]) as client:
            assert client.reply.status == 101


def test_no_token_in_the_log(make_front: Callable[..., Front]) -> None:
    """Also when the controller is not there: nginx would then log the whole request line."""
    front = make_front()
    url = front.issue()
    token = url[-36:]
    OpenConsole(url, front.guest.uuid, front.reverse.tls).close()
    assert front.get(f"/v2.1/os-console-auth-tokens/{token}?token={token}")[0] in {502, 503}
    # It writes a request's line once the answer is on its way, and none when it is ended before.
    for line in ("GET /console/", "GET /v2.1/os-console-auth-tokens/***"):
        wait_until(lambda line=line: line in front.reverse.logs(), 30, line, front.reverse.logs)
    front.reverse.process.stop()
    assert token not in front.reverse.logs()

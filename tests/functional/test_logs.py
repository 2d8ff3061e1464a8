# SPDX-License-Identifier: Apache-2.0
"""What the four daemons write of a console's life, as text and as JSON: no token, one line per event, one request id.

The VNC servers are listed by hand, so that neither libvirt nor QEMU is needed; the libvirt driver's lines are met in
test_console_path.py.
"""

import json
import re
import signal
import socket
import urllib.parse
import urllib.request
import uuid as uuidlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import websockets.exceptions

from support.console import (
    ask_console,
    ask_remote_console,
    connect_xvp,
    get_console,
    open_console,
    read_greeting,
    refusal,
    token_of,
    wait_for_instances,
)
from support.daemons import DAEMONS, Porthole
from support.memcached import Memcached
from support.ports import free_port
from support.processes import wait_until
from support.rabbitmq import RabbitMQ
from support.vnc_servers import EchoVnc, SilentServer

TIMEOUT_S = 20
GLOBAL_ID = f"req-{uuidlib.uuid4()}"
# What a client would like the log to say.
FORGED = "2026-01-01 00:00:00.000 1 INFO porthole_api [-] forged"
# oslo.log's prefix; a traceback's lines have it too.
_TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \d+ [A-Z]+ \S+ (.*)")


class Site:
    """Four daemons at DEBUG, and four instances: one that answers, one that will go, one silent, one that refuses."""

    def __init__(self, make: Callable[..., Porthole], directory: Path, stack: ExitStack, use_json: bool) -> None:
        self.use_json = use_json
        self._path = directory / "instances.yaml"
        self.good, self.gone, self.silent, self.closed = (str(uuidlib.uuid4()) for _ in range(4))
        echo, silent = stack.enter_context(EchoVnc()), stack.enter_context(SilentServer())
        self._ports = {self.good: echo.port, self.gone: echo.port, self.silent: silent.port, self.closed: free_port()}
        self.write_instances()
        options = {
            "DEFAULT": {"use_json": use_json},
            "rpc": {"call_timeout": 4},
            "novncproxy": {"max_sessions_per_token": 1, "dial_timeout": 1},
        }
        self.porthole = make(instances_file=self._path, options=options)
        wait_for_instances(self.porthole, self.good)
        self.tokens: list[str] = []

    def write_instances(self, without: str = "") -> None:
        entries = [
            f"- {{uuid: {uuid}, name: vm, host: 127.0.0.1, port: {port}}}\n"
            for uuid, port in self._ports.items()
            if uuid != without
        ]
        self._path.write_text("instances:\n" + "".join(entries), encoding="utf-8")

    def get_token(self, uuid: str, kind: str = "novnc") -> str:
        token = token_of(get_console(self.porthole, uuid, kind))
        self.tokens.append(token)
        return token

    def send(self, request: str, port: int | None = None) -> None:
        """Send any bytes to a port, the proxy's by default, and read an answer."""
        with socket.create_connection(("127.0.0.1", port or self.porthole.novnc_port), TIMEOUT_S) as sock:
            sock.sendall(request.encode("latin-1"))
            sock.shutdown(socket.SHUT_WR)
            sock.recv(65536)

    def lines(self, daemon: str) -> list[str]:
        return self.porthole.processes[daemon].log().splitlines()

    def events(self, daemon: str, event: str, request_id: str = "") -> list[dict[str, Any]]:
        """Return the fields of each line of the event, or of a request's, with request_id and global_request_id."""
        found = self._read_events(daemon, event)
        return [fields for fields in found if request_id in ("", fields["request_id"])]

    def _read_events(self, daemon: str, event: str) -> Iterator[dict[str, Any]]:
        for line in self.lines(daemon):
            if self.use_json:
                entry = json.loads(line)
                if entry["extra"].get("event") == event:
                    at = f"{entry['asctime']}.{int(entry['msecs']):03}"
                    yield {**entry["context"], **entry["extra"], "at": at}
            elif f"] {event} " in line:
                yield {**dict(re.findall(r"(\w+)=([^\s\"\]]+)", line)), "at": line[:23]}


@pytest.fixture(scope="module", params=["text", "json"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, rabbitmq: RabbitMQ, memcached: Memcached
) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        # What Python says of libraries while they are imported, which the tests alone ask for, is nobody's log line.
        patch.setenv("PYTHONWARNINGS", "ignore")

        def make(**arguments: Any) -> Porthole:
            return stack.enter_context(Porthole(directory, rabbitmq, memcached, **arguments))

        yield Site(make, directory, stack, request.param == "json")


def use_consoles(site: Site) -> None:
    """Open consoles by both routes and both doors, and let them end in each of the usual ways."""
    porthole = site.porthole
    for ask in (ask_console, ask_remote_console):
        body = ask(porthole, site.good)[1]
        site.tokens.append(token_of((body.get("console") or body["remote_console"])["url"]))
        with open_console(porthole.novnc_port, site.tokens[-1]) as connection:
            read_greeting(connection)
            assert refusal(porthole.novnc_port, site.tokens[-1]) == 429
    token = site.get_token(site.good, "xvpvnc")
    with connect_xvp(porthole.xvp_port, token)[1] as sock:
        assert sock.recv(1)
    porthole.request(f"/v2.1/os-console-auth-tokens/{token}", headers={"OpenStack-API-Version": "compute 2.96"})
    with open_console(porthole.novnc_port, site.get_token(site.gone)) as connection:
        read_greeting(connection)
        site.write_instances(without=site.gone)
        porthole.compute.signal(signal.SIGHUP)
        with pytest.raises(websockets.exceptions.ConnectionClosedError, match="4401"):
            connection.recv(timeout=TIMEOUT_S)


def fail(site: Site) -> None:
    """Present good and bad tokens in every way that is refused."""
    porthole = site.porthole
    good, unknown = site.get_token(site.good), str(uuidlib.uuid4())
    site.tokens.append(unknown)
    assert refusal(porthole.novnc_port, site.get_token(site.silent)) == 504
    assert refusal(porthole.novnc_port, site.get_token(site.closed)) == 502
    assert refusal(porthole.novnc_port, site.get_token(site.good, "xvpvnc")) == 401
    for token in (good, unknown):
        assert refusal(porthole.novnc_port, token, "http://evil.example") == 403
        connect_xvp(porthole.xvp_port, token)[1].close()
        encoded = urllib.parse.quote(f"?token={token}", safe="")
        for path in (f"/?token={token}", f"/{encoded}", f"/{token}", f"/console.html?path={encoded}"):
            for method in ("GET", "POST", token):
                site.send(f"{method} {path} HTTP/1.1\r\nHost: a\r\nReferer: http://x{path}\r\n\r\n")
            site.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\nCookie: token={token}\r\n\r\n")
            site.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nCookie: token={token}\r\n\r\n")
            site.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", porthole.api_port)
        for path in (f"/v2.1/servers/{token}", f"/v2.1/{token}/servers", f"/v2.1/os-console-auth-tokens/{token}"):
            porthole.request(path, headers={"OpenStack-API-Version": "compute 2.96"})
        assert ask_console(porthole, site.good, token)[0] == 400
        assert ask_console(porthole, token)[0] == 404
    assert ask_console(porthole, site.good, f"x\n{FORGED}")[0] == 400
    site.send(f"GET /x\r{FORGED} HTTP/1.1\r\nHost: a\r\n\r\n")
    porthole.request(f"/v2.1/servers?name={urllib.parse.quote(chr(10) + FORGED)}")


def break_daemons(site: Site) -> None:
    """Take away what a console needs, one after the other."""
    porthole = site.porthole
    token = site.get_token(site.good)
    porthole.compute.stop()
    assert refusal(porthole.novnc_port, token) == 503
    assert ask_console(porthole, site.good)[0] == 503
    porthole.start_daemon("compute")
    porthole.consoleauth.stop()
    assert refusal(porthole.novnc_port, token) == 503
    assert ask_console(porthole, site.good)[0] == 503
    porthole.start_daemon("consoleauth")


def test_an_operator_can_follow_a_console_through_all_daemons(site: Site) -> None:
    porthole = site.porthole
    body = json.dumps({"os-getVNCConsole": {"type": "novnc"}}).encode()
    request = urllib.request.Request(  # noqa: S310
        f"{porthole.api_url}/v2.1/servers/{site.good}/action",
        body,
        {"Content-Type": "application/json", "X-OpenStack-Request-ID": GLOBAL_ID},
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=TIMEOUT_S) as answer:
        request_id = answer.headers["x-openstack-request-id"]
        token = token_of(json.load(answer)["console"]["url"])
    for daemon, event in (
        ("compute", "Console issued"),
        ("consoleauth", "Console token authorized"),
        ("api", "Request answered"),
    ):
        (found,) = site.events(daemon, event, request_id)
        assert (found["instance"], found["global_request_id"]) == (site.good, GLOBAL_ID)
    (answered,) = site.events("api", "Request answered", request_id)
    assert (answered["instance"], str(answered["status"]), answered["client"]) == (site.good, "200", "127.0.0.1")

    with open_console(porthole.novnc_port, token) as connection:
        read_greeting(connection)
    wait_until(lambda: site.events("novncproxy", "Console closed"), TIMEOUT_S, "the end", porthole.novncproxy.log)
    (closed,) = site.events("novncproxy", "Console closed")
    assert closed["request_id"] not in (None, "-", request_id)
    lines: list[dict[str, Any]] = []
    for daemon, event in (
        ("novncproxy", "Console requested"),
        ("consoleauth", "Console token accepted"),
        ("compute", "Console validated"),
        ("novncproxy", "Console opened"),
        ("novncproxy", "Console closed"),
    ):
        found = site.events(daemon, event, closed["request_id"])
        # Compute is asked before the dial, and again when the connection stands.
        assert len(found) == (2 if event == "Console validated" else 1), event
        lines += found
    requested, accepted, *later = lines
    assert accepted["instance"] == site.good
    # Before anybody has looked at the token nobody knows whose console it is.
    assert (requested.get("instance"), requested["client"]) == (None, "127.0.0.1")
    assert requested["at"] <= accepted["at"]
    assert accepted["issued_to_user"] not in (None, "-")
    for found in later:
        assert (found["instance"], found["user"]) == (site.good, accepted["issued_to_user"])
    assert (closed["client"], str(closed["code"]), str(closed["bytes_to_client"])) == ("127.0.0.1", "1000", "12")
    assert float(closed["seconds"]) < TIMEOUT_S

    assert refusal(porthole.novnc_port, token, "http://evil.example") == 403
    (refused,) = site.events("novncproxy", "Console refused")
    assert (str(refused["status"]), refused["error"], refused["client"]) == ("403", "OriginRefused", "127.0.0.1")
    assert refused["request_id"] not in (None, "-", closed["request_id"])


def test_no_token_and_no_forged_line_in_any_log(site: Site) -> None:
    """S6: everything at DEBUG, what fails included."""
    for part in (use_consoles, fail, break_daemons):
        part(site)
    everything = site.porthole.logs()
    assert len(site.tokens) > 8
    for token in site.tokens:
        for form in (token, token.upper(), token.replace("-", "%2D"), token.replace("-", "%2d"), token[8:]):
            assert form not in everything, form
    assert everything.count("DEBUG") > 50
    for daemon in DAEMONS:
        for line in site.lines(daemon):
            if site.use_json:
                assert json.loads(line)["message"]
            else:
                assert _TEXT_LINE.fullmatch(line), line
            assert not line.startswith(FORGED)

# SPDX-License-Identifier: Apache-2.0
"""The doctor's ports to doors and brokers, against servers that are wrong in ways a whole Porthole is not easily."""

import http.server
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from porthole_cli.doctor.broker import examine_broker
from porthole_cli.doctor.examination import BUDGET_S
from porthole_cli.doctor.url_check import STEP_TIMEOUT_S, check_url
from porthole_common.broker import BlockedConnections
from porthole_common.broker import examine_broker as look
from porthole_common.rpc import Broker
from support.certificates import Authority, Certificate
from support.deadlines import join_within, kept_within
from support.ports import free_port
from support.processes import wait_until
from support.proxy import InProcessProxy, make_web_root
from support.rabbitmq import RabbitMQ
from support.vnc_servers import EchoVnc, SilentServer

MakeProxy = Callable[..., InProcessProxy]


@pytest.fixture
def make_proxy(tmp_path: Path) -> Iterator[MakeProxy]:
    made: list[InProcessProxy] = []
    root = make_web_root(tmp_path)

    def make(certificate: Certificate | None = None) -> InProcessProxy:
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.cert, certificate.key)
        made.append(InProcessProxy(root, context=context))
        return made[-1]

    yield make
    for proxy in made:
        proxy.stop()


def url_of(proxy: InProcessProxy, scheme: str = "http", page: str = "console.html") -> str:
    return f"{scheme}://localhost:{proxy.novnc_port}/{page}"


def new_token() -> str:
    return str(uuid.uuid4())


class TestDoors:
    def test_a_door_that_lets_the_origin_in(self, make_proxy: MakeProxy) -> None:
        proxy, token = make_proxy(), new_token()
        check = check_url(url_of(proxy), token)
        assert (check.problem, check.page_status, check.upgrade_status, check.certificate) == ("", 200, 401, None)
        assert proxy.consoleauth.asked == [token]

    def test_a_page_that_is_not_there(self, make_proxy: MakeProxy) -> None:
        assert check_url(url_of(make_proxy(), page="other.html"), new_token()).page_status == 404

    def test_an_origin_whose_scheme_is_not_the_urls(self, make_proxy: MakeProxy) -> None:
        proxy = make_proxy()
        with EchoVnc() as server:
            check = check_url(url_of(proxy), proxy.issue(server, scheme="https"))
            assert server.accepted == 0
        assert check.upgrade_status == 403

    def test_the_path_of_the_websocket_is_the_one_in_the_url(self, make_proxy: MakeProxy) -> None:
        check = check_url(url_of(make_proxy(), page="console.html?path=some/where"), new_token())
        assert (check.page_status, check.upgrade_status) == (200, 401)

    @pytest.mark.parametrize("expired", [False, True])
    def test_a_certificate_is_shown_though_it_is_not_trusted(
        self, make_proxy: MakeProxy, tmp_path: Path, expired: bool
    ) -> None:
        proxy = make_proxy(Authority(tmp_path).issue("localhost", expired=expired, chain=False))
        check = check_url(url_of(proxy, "https"), new_token())
        assert "unable to get local issuer" in check.mistrust
        assert check.certificate is not None
        assert (check.certificate.not_after < datetime.now(UTC)) is expired
        assert check.certificate.names == ("localhost", "127.0.0.1", "::1")
        assert (check.page_status, check.upgrade_status) == (200, 401)

    def test_nobody_is_there(self) -> None:
        check = check_url(f"http://127.0.0.1:{free_port()}/", new_token())
        assert check.problem == "Connection refused"
        assert (check.page_status, check.upgrade_status) == (None, None)

    def test_https_where_http_is_spoken(self, make_proxy: MakeProxy) -> None:
        assert check_url(url_of(make_proxy(), "https"), new_token()).problem

    def test_one_who_says_nothing(self) -> None:
        # It is not asked for a second thing when it has no answer to the first one.
        with SilentServer() as server, kept_within(STEP_TIMEOUT_S, "the first step"):
            check = check_url(f"http://127.0.0.1:{server.port}/", new_token())
        assert check.problem == "no answer in time"


def broker_at(port: int, tls: bool = False, ca: Path | None = None) -> Broker:
    files = {"ca": str(ca) if ca else None, "cert": None, "key": None}
    return Broker("127.0.0.1", port, "guest", "guest", "/", files if tls else None)


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    """A web server behind TLS: whoever wants a broker there finds none, and TLS first."""
    certificate = Authority(tmp_path).issue("localhost", chain=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)

    class Quiet(http.server.BaseHTTPRequestHandler):
        timeout = 5

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
            sock, address = super().get_request()
            sock.settimeout(5)
            return context.wrap_socket(sock, server_side=True), address

    with Server(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        join_within(30, thread)


class TestBrokers:
    def test_a_broker_that_hangs(self) -> None:
        # Within the command's promise for all that it examines, though it tries several times.
        with SilentServer() as server, kept_within(BUDGET_S, "the examination"):
            met = examine_broker(broker_at(server.port), {})
        assert met.finding.id == "broker.address"
        assert "did not answer" in met.finding.problem

    def test_a_broker_that_takes_no_messages(self, own_rabbitmq: RabbitMQ) -> None:
        """Each look says so, and none leaves a connection behind, of which RabbitMQ would not see the end."""
        at, blocked = broker_at(own_rabbitmq.port), BlockedConnections()
        assert look(at, {}, blocked).trouble is None
        with own_rabbitmq.memory_alarm():
            # The alarm reaches RabbitMQ's connections a moment after the command.
            wait_until(lambda: look(at, {}, blocked).trouble, 10, "the alarm")
            for _ in range(3):
                trouble = look(at, {}, blocked).trouble
                assert trouble is not None
                assert (trouble.cause, "takes no messages" in trouble.problem) == ("blocked", True)
            assert own_rabbitmq.count_broker_connections() == 1
            met = examine_broker(at, {})
            assert (met.finding.id, met.is_usable) == ("broker.blocked", False)
        wait_until(lambda: look(at, {}, blocked).trouble is None, 10, "the end of the alarm")
        wait_until(lambda: own_rabbitmq.count_broker_connections() == 0, 30, "the connections to be closed")
        with own_rabbitmq.memory_alarm():
            wait_until(lambda: look(at, {}, blocked).trouble, 10, "the alarm again")
            own_rabbitmq.stop()
            trouble = look(at, {}, blocked).trouble
            assert trouble is not None
            assert trouble.cause == "address"

    def test_a_web_server(self) -> None:
        """It waits for the end of a line, as a broker that hangs waits for nothing."""
        handler = http.server.BaseHTTPRequestHandler
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                met = examine_broker(broker_at(server.server_address[1]), {})
            finally:
                server.shutdown()
                join_within(30, thread)
        assert met.finding.id == "broker.protocol"
        assert "does not speak AMQP" in met.finding.problem

    def test_plain_text_where_tls_is_spoken(self, tls_port: int) -> None:
        met = examine_broker(broker_at(tls_port), {})
        assert met.finding.id == "broker.tls"
        assert "speaks TLS at this port, and the configuration does not" in met.finding.problem

    def test_an_authority_that_did_not_sign_it(self, tls_port: int, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.mkdir()
        met = examine_broker(broker_at(tls_port, tls=True, ca=Authority(other, "other").cert), {})
        assert met.finding.id == "broker.tls"
        assert "is not accepted" in met.finding.problem

    def test_a_file_that_is_not_there(self, tls_port: int, tmp_path: Path) -> None:
        met = examine_broker(broker_at(tls_port, tls=True, ca=tmp_path / "gone.pem"), {})
        assert met.finding.id == "broker.tls"
        assert "cannot be read" in met.finding.problem

    def test_tls_with_one_who_is_no_broker(self, tls_port: int) -> None:
        assert examine_broker(broker_at(tls_port, tls=True), {}).finding.id == "broker.protocol"

# SPDX-License-Identifier: Apache-2.0
"""A guest that goes between the first question and the dial: what took its port is connected to, and shows nothing."""

import pytest

from porthole_common import errors
from porthole_common.model import ConsoleType, Target, TokenReason
from support.certificates import Authority
from support.processes import wait_until
from support.proxy import InProcessProxy
from support.secure_vnc import VencryptVnc, build_context, security_of
from support.vnc_servers import GREETING, VncServer
from support.websocket import build_upgrade, connect, read_to_end

GONE = errors.TokenInvalid(TokenReason.INSTANCE_GONE)
# By what the second question is answered: the status.
ANSWERS = [
    (GONE, 401),
    (errors.InstanceNotRunning("i", "shutoff"), 401),
    (Target("192.0.2.9", 5900), 401),
    (errors.HypervisorUnavailable("h"), 503),
    (errors.RpcUnavailable("compute", "validate_console"), 503),
]


class Stranger(VncServer):
    """Another guest's VNC server, which keeps what it hears."""

    def __init__(self):
        self.heard = b""
        super().__init__()

    def serve(self, sock):
        sock.sendall(GREETING + b"the screen of somebody else")
        while data := sock.recv(65536):
            self.heard += data


@pytest.fixture
def stranger(stack):
    return stack.enter_context(Stranger())


def answer_second(proxy, answer):
    """Have every second question answered so, and say how many there were."""
    validate, asked = proxy.compute.validate_console, []

    def change(*arguments):
        asked.append(arguments)
        if len(asked) % 2:
            return validate(*arguments)
        if isinstance(answer, Exception):
            raise answer
        return answer

    proxy.compute.validate_console = change
    return asked


@pytest.mark.parametrize(("answer", "status"), ANSWERS)
def test_the_answer_once_the_connection_stands_decides(web_root, stack, stranger, answer, status):
    """At both doors; nothing of the stranger reaches the client, and nothing of the client the stranger (S1)."""
    proxy = stack.enter_context(InProcessProxy(web_root))
    asked = answer_second(proxy, answer)
    novnc, xvpvnc = (proxy.issue(stranger, console_type) for console_type in ConsoleType)
    for port, request in (
        (proxy.novnc_port, build_upgrade(f"/?token={novnc}")),
        (proxy.xvp_port, f"CONNECT /console?token={xvpvnc} HTTP/1.0\r\n\r\n".encode()),
    ):
        before = stranger.accepted
        with connect(port) as client:
            client.sendall(request + b"keys")
            reply = read_to_end(client)
        assert reply.split()[1] == str(status).encode()
        assert b"somebody else" not in reply
        assert GREETING not in reply
        assert stranger.accepted == before + 1
    assert len(asked) == 4
    wait_until(lambda: proxy.counter.total == stranger.open_connections == 0, 10, "all ends")
    assert stranger.heard == b""


def test_when_the_first_answer_is_no_nothing_is_connected_to(web_root, stack, stranger):
    """S1."""
    proxy = stack.enter_context(InProcessProxy(web_root))
    proxy.compute.error = GONE
    with connect(proxy.novnc_port) as client:
        client.sendall(build_upgrade(f"/?token={proxy.issue(stranger)}"))
        assert read_to_end(client).startswith(b"HTTP/1.1 401 ")
    assert stranger.accepted == 0


def test_a_connection_over_tls_is_confirmed_too(web_root, stack, tmp_path):
    """A certificate is that of a host, and not of a guest."""
    authority = Authority(tmp_path)
    server = stack.enter_context(VencryptVnc(build_context(authority.issue())))
    security = security_of("vencrypt", ca_certs=authority.cert)
    proxy = stack.enter_context(InProcessProxy(web_root, security=security))
    answer_second(proxy, GONE)
    with connect(proxy.novnc_port) as client:
        client.sendall(build_upgrade(f"/?token={proxy.issue(server)}"))
        assert read_to_end(client).startswith(b"HTTP/1.1 401 ")
    wait_until(lambda: proxy.counter.total == server.open_connections == 0, 10, "all ends")

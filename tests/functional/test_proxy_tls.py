# SPDX-License-Identifier: Apache-2.0
"""Consoles over TLS: whom clients believe, which versions and ciphers, other certificates while consoles are open."""

import logging
import os
import signal
import ssl
import uuid as uuidlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_novncproxy.tls_options import build_context
from support.bulk import BULK_BYTES, SummingEcho, exchange, run_node, shorten_all
from support.certificates import Authority, Certificate
from support.console import get_console, token_of, wait_for_instances
from support.daemons import Porthole
from support.processes import wait_until
from support.proxy import InProcessProxy, count_descriptors
from support.vnc_servers import GREETING, EchoVnc
from support.websocket import connect
from support.wss import WssClient

Serve = Callable[..., InProcessProxy]
NO_INTERMEDIATE = "unable to get local issuer certificate"
# Its words are an operator's; that it is an error, and of this module, is what is tested.
STAYS = "ERROR porthole_novncproxy.daemon"


@pytest.fixture
def root(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def intermediate(tmp_path: Path, root: Authority) -> Authority:
    return Authority(tmp_path, "intermediate", root)


@pytest.fixture
def serve(web_root: Path, stack: ExitStack) -> Serve:
    """A maker of proxies with a certificate and the options of the configuration."""

    def run(certificate: Certificate, **options: str) -> InProcessProxy:
        conf = cfg.ConfigOpts()
        porthole_conf.register_opts(conf)
        conf([], project="porthole", default_config_files=[])
        conf.set_override("cert", str(certificate.cert))
        conf.set_override("key", str(certificate.key))
        for name, value in options.items():
            conf.set_override(name, value, group="console")
        return stack.enter_context(InProcessProxy(web_root, context=build_context(conf)))

    return run


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.cert)


def assert_echoes(client: WssClient) -> None:
    payload = os.urandom(1000)
    client.send(payload)
    received = b""
    while len(received) < len(payload):
        received += client.receive()
    assert received == payload


def test_a_client_that_knows_the_root_alone_is_sent_the_chain(
    serve: Serve, echo: EchoVnc, root: Authority, intermediate: Authority
) -> None:
    proxy = serve(intermediate.issue())
    with WssClient(proxy.novnc_port, proxy.issue(echo, scheme="https"), trusting(root)) as client:
        assert client.receive() == GREETING
        assert_echoes(client)


# How the certificate is made, and what the client says of it.
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "wrong-name": ({"name": "elsewhere.example"}, "Hostname mismatch"),
    "expired": ({"expired": True}, "certificate has expired"),
    "no-intermediate": ({"chain": False}, NO_INTERMEDIATE),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_client_refuses_a_wrong_certificate_and_the_proxy_lives_on(
    serve: Serve, echo: EchoVnc, root: Authority, intermediate: Authority, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    arguments, reason = WRONG[wrong]
    proxy = serve(intermediate.issue(**arguments))
    token = proxy.issue(echo, scheme="https")
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE

    def visit() -> None:
        with WssClient(proxy.novnc_port, token, careless) as client:
            assert client.receive() == GREETING
            assert_echoes(client)

    def at_rest() -> bool:
        return proxy.counter.total == 0 and not echo.open_connections

    visit()
    wait_until(at_rest, 30, "the first visit ends")
    before = count_descriptors()
    for _ in range(20):
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            WssClient(proxy.novnc_port, token, trusting(root))
    visit()
    wait_until(at_rest, 30, "the second visit ends")
    wait_until(lambda: count_descriptors() <= before, 30, f"descriptors go back to {before}")
    assert any(line.startswith("TLS handshake failed client=127.0.0.1") for line in caplog.messages)


@pytest.mark.parametrize("short", [False, True], ids=["", "short-buffers"])
def test_websockets_moves_64_mib_over_tls(serve: Serve, stack: ExitStack, root: Authority, short: bool) -> None:
    proxy = serve(root.issue())
    server = stack.enter_context(
        SummingEcho(lambda sock: shorten_all(sock, proxy.novnc_port, 32768) if short else None)
    )
    with WssClient(proxy.novnc_port, proxy.issue(server, scheme="https"), trusting(root)) as client:
        sent, received = exchange(client.send, client.receive)
    assert sent == server.heard_sum() == received


def test_ws_of_node_moves_64_mib_over_tls(
    serve: Serve, stack: ExitStack, root: Authority, intermediate: Authority
) -> None:
    server = stack.enter_context(SummingEcho())
    proxy = serve(intermediate.issue())
    url = f"wss://localhost:{proxy.novnc_port}/?token={proxy.issue(server, scheme='https')}"
    result = run_node(url, "https://localhost", NODE_EXTRA_CA_CERTS=str(root.cert))
    assert (result["code"], result["sentBytes"], result["receivedBytes"]) == (1000, BULK_BYTES, BULK_BYTES)
    assert result["sent"] == server.heard_sum() == result["received"]


@pytest.mark.parametrize("ours", ["tlsv1_2", "tlsv1_3"])
@pytest.mark.parametrize("theirs", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
@pytest.mark.filterwarnings("ignore:.*TLSv1(_1)? is deprecated:DeprecationWarning")
def test_the_oldest_version_is_the_options(serve: Serve, root: Authority, ours: str, theirs: str) -> None:
    """Each version against each option (S13)."""
    context = trusting(root)
    context.minimum_version = context.maximum_version = ssl.TLSVersion[theirs]
    if theirs < "TLSv1_2":
        # OpenSSL's own caution is not what is tested.
        context.set_ciphers("ALL:@SECLEVEL=0")
    port = serve(root.issue(), ssl_minimum_version=ours).novnc_port
    if theirs < ours.replace("tls", "TLS"):
        with pytest.raises(ssl.SSLError, match=r"(?i)version"):
            connect(port, context)
        return
    with connect(port, context) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.version() == theirs.replace("_", ".")


STRONG, OTHER, WEAK = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"


@pytest.mark.parametrize(
    ("ours", "theirs", "chosen"),
    [
        (None, WEAK, None),
        (WEAK, WEAK, WEAK),
        (None, OTHER, OTHER),
        (STRONG, OTHER, None),
        (STRONG, f"{OTHER}:{STRONG}", STRONG),
    ],
)
def test_ciphers_are_the_options(
    serve: Serve, root: Authority, ours: str | None, theirs: str, chosen: str | None
) -> None:
    """Of TLS 1.2: those of 1.3 are all good, and no option of OpenSSL's cipher list (S13)."""
    context = trusting(root)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(theirs)
    port = serve(root.issue(), **({"ssl_ciphers": ours} if ours else {})).novnc_port
    if chosen is None:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(port, context)
        return
    with connect(port, context) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        cipher = sock.cipher()
        assert cipher is not None
        assert cipher[0] == chosen


def serial_at(port: int, context: ssl.SSLContext) -> str:
    """The serial number of the certificate that a new connection sees, and believes."""
    with connect(port, context) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        certificate = sock.getpeercert()
        assert certificate is not None
        return str(certificate["serialNumber"])


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_takes_another_certificate_and_keeps_the_consoles(
    make_porthole: Callable[..., Porthole], echo: EchoVnc, root: Authority, tmp_path: Path, workers: int
) -> None:
    """And what is no certificate leaves the old one (S13)."""
    porthole, token, certificate = start_with_tls(make_porthole, echo, root, tmp_path, workers)
    port, proxy, context = porthole.novnc_port, porthole.novncproxy, trusting(root)

    def serials() -> set[str]:
        """What connections see; enough of them that each worker has some."""
        return {serial_at(port, context) for _ in range(12)}

    def reload(count: int) -> None:
        proxy.signal(signal.SIGHUP)
        wait_until(
            lambda: proxy.log().count(STAYS) == count * workers, 20, "each worker to keep what it has", proxy.log
        )

    (first,) = serials()
    with ExitStack() as opened:
        clients = [opened.enter_context(WssClient(port, token, context)) for _ in range(6)]
        for client in clients:
            assert client.receive() == GREETING
        root.issue()
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: len(seen := serials()) == 1 and first not in seen, 20, "the other certificate everywhere")
        (second,) = serials()
        certificate.cert.write_text("no certificate", encoding="utf-8")
        reload(1)
        root.issue()
        root.issue("other")
        certificate.key.write_bytes((tmp_path / "other.key").read_bytes())
        reload(2)
        certificate.cert.unlink()
        reload(3)
        assert serials() == {second}
        for client in clients:
            assert_echoes(client)
        root.issue()
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: not serials() & {first, second}, 20, "a good certificate after bad ones")
    assert "Traceback" not in proxy.log()


def start_with_tls(
    make_porthole: Callable[..., Porthole], echo: EchoVnc, root: Authority, tmp_path: Path, workers: int
) -> tuple[Porthole, str, Certificate]:
    """Daemons whose proxy speaks nothing but TLS, a token, and the certificate's files."""
    certificate = root.issue()
    uuid, path = str(uuidlib.uuid4()), tmp_path / "instances.yaml"
    instance = {"uuid": uuid, "name": "echo", "host": "127.0.0.1", "port": echo.port}
    path.write_text(yaml.safe_dump({"instances": [instance]}), encoding="utf-8")
    options = {
        "DEFAULT": {"cert": certificate.cert, "key": certificate.key, "ssl_only": True},
        "novncproxy": {"workers": workers},
        "vnc": {"novncproxy_base_url": "https://localhost/console.html"},
    }
    porthole = make_porthole(instances_file=path, options=options)
    for worker in range(workers if workers > 1 else 0):
        porthole.novncproxy.wait_for_line(f"Worker ready program=porthole-novncproxy worker={worker}")
    wait_for_instances(porthole, uuid)
    return porthole, token_of(get_console(porthole, uuid)), certificate

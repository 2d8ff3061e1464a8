# SPDX-License-Identifier: Apache-2.0
"""Strangers with one address who do their worst at the proxy, beside users who must not notice."""

import ssl
import uuid as uuidlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from porthole_novncproxy.admission.token_failures import BURST
from support.certificates import make_certificate
from support.console import get_console, token_of, wait_for_instances
from support.daemons import Porthole
from support.deadlines import crowd_limit_s
from support.strangers import start_strangers
from support.vnc_servers import EchoVnc
from support.websocket import RawWebSocket, exchange
from support.witness import Notice, Witness, leaving_nothing

Start = Callable[..., tuple[Porthole, str]]
STRANGER = "127.0.0.66"
# Fewer than the strangers' connections, and few enough for consoles to take them all.
DESCRIPTORS = 512
FEW_DESCRIPTORS = 128
# How long an attacker's connection may last: after the attack, a test waits for as long.
REQUEST_TIMEOUT_S = 4


@pytest.fixture
def start(make_porthole: Callable[..., Porthole], echo: EchoVnc, tmp_path: Path) -> Start:
    """A maker of daemons with one guest; it returns them and a token of the guest."""

    def run(
        console_type: str = "novnc", descriptors: int | None = None, **options: dict[str, object]
    ) -> tuple[Porthole, str]:
        uuid = str(uuidlib.uuid4())
        path = tmp_path / "instances.yaml"
        instance = {"uuid": uuid, "name": "echo", "host": "127.0.0.1", "port": echo.port}
        path.write_text(yaml.safe_dump({"instances": [instance]}), encoding="utf-8")
        limits = {
            "request_timeout": REQUEST_TIMEOUT_S,
            "max_sessions_per_token": 1000,
            "max_sessions_per_instance": 1000,
        }
        # As an operator runs it: a line for each answer would be most of the proxy's work.
        options["DEFAULT"] = {"debug": False, **options.get("DEFAULT", {})}
        porthole = make_porthole(
            instances_file=path, options={"novncproxy": limits, **options}, descriptors=descriptors
        )
        wait_for_instances(porthole, uuid)
        return porthole, token_of(get_console(porthole, uuid, console_type))

    return run


def measure_attack(
    porthole: Porthole,
    token: str,
    attack: str,
    directory: Path,
    context: ssl.SSLContext | None = None,
    strangers_token: str | None = None,
) -> tuple[Notice, Notice]:
    """Return what a user notices in quiet, and under the attack."""
    with ExitStack() as stack:
        witness = Witness(porthole.novnc_port, token, context)
        stack.callback(witness.close)
        witness.measure(4)
        quiet = witness.measure()
        port = porthole.xvp_port if attack == "viewers" else porthole.novnc_port
        with leaving_nothing(porthole.novncproxy.pid):
            strangers = start_strangers(directory, attack, port, STRANGER, strangers_token)
            stack.callback(strangers.stop)
            attacked = witness.measure()
            strangers.stop()
    print(f"{attack}: quiet: {quiet}; under attack: {attacked}")
    return quiet, attacked


def assert_unnoticed(quiet: Notice, attacked: Notice) -> None:
    """See that users notice no more of the attack than of a busy machine."""
    assert attacked.echo_p99_s < max(10 * quiet.echo_p99_s, 0.2), (quiet, attacked)
    assert attacked.opening_s < crowd_limit_s(quiet.opening_s), (quiet, attacked)
    assert attacked.health_s < max(10 * quiet.health_s, 1.0), (quiet, attacked)


def test_replayed_client_hellos(start: Start, tmp_path: Path) -> None:
    """Each costs the proxy a signature with an RSA key of 4096 bits, and the attacker a packet (S40)."""
    certificate = make_certificate(tmp_path, rsa_bits=4096)
    porthole, token = start(DEFAULT={"cert": certificate.cert, "key": certificate.key, "ssl_only": True})
    context = ssl.create_default_context(cafile=certificate.cert)
    assert_unnoticed(*measure_attack(porthole, token, "hellos", tmp_path, context))


@pytest.mark.parametrize("in_console", [False, True])
def test_keys_of_tls_that_change_without_end(start: Start, tmp_path: Path, in_console: bool) -> None:
    """OpenSSL changes them inside one read, for as long as a client sends KeyUpdates (S43)."""
    certificate = make_certificate(tmp_path)
    porthole, token = start(DEFAULT={"cert": certificate.cert, "key": certificate.key, "ssl_only": True})
    context = ssl.create_default_context(cafile=certificate.cert)
    attack = measure_attack(porthole, token, "keys", tmp_path, context, token if in_console else None)
    assert_unnoticed(*attack)
    if not in_console:
        assert 'TLS flood ended peer=127.0.0.66 reason="its records have no payload"' in porthole.novncproxy.log()


@pytest.mark.parametrize("descriptors", [DESCRIPTORS, 20_000])
def test_silent_connections(start: Start, tmp_path: Path, descriptors: int) -> None:
    """More than the process has descriptors for, and then fewer (S41)."""
    porthole, token = start(descriptors=descriptors)
    assert_unnoticed(*measure_attack(porthole, token, "silence", tmp_path))
    log = porthole.novncproxy.log()
    assert 'limit="[novncproxy] max_waiting_connections_per_source"' in log
    assert "Accepting paused" not in log


@pytest.mark.parametrize("attack", ["guesses", "viewers"])
def test_tokens_that_nobody_knows(start: Start, tmp_path: Path, attack: str) -> None:
    """At both doors: after some of them consoleauth is not asked (S42)."""
    porthole, token = start()
    assert_unnoticed(*measure_attack(porthole, token, attack, tmp_path))
    # A user's openings are asked about too.
    asked = porthole.consoleauth.log().count("Console token refused")
    assert BURST <= asked < 2 * BURST


def test_consoles_that_take_all_descriptors(start: Start) -> None:
    """The next client gets 503, and the operator's log line does not blame the VNC server (S41)."""
    porthole, token = start(descriptors=FEW_DESCRIPTORS)
    with ExitStack() as stack:
        for _ in range(FEW_DESCRIPTORS):
            client = stack.enter_context(RawWebSocket(porthole.novnc_port, f"/?token={token}"))
            if client.reply.status != 101:
                break
        assert client.reply.status == 503
        # The refused client holds a descriptor until it has gone.
        client.close()
        porthole.novncproxy.wait_for_line("error=DescriptorsExhausted")
        health = b"GET /healthcheck HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert exchange(porthole.novnc_port, health).status == 200
    assert "does not take connections" not in porthole.novncproxy.log()

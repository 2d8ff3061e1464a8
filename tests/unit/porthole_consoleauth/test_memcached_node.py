# SPDX-License-Identifier: Apache-2.0
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg
from pymemcache.client.base import Client

from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.private_parts import forget_reports
from porthole_consoleauth import memcached_node
from porthole_consoleauth.memcached_node import MemcachedNode, build_login, build_ring, build_tls_context
from support.cases import naming
from support.certificates import make_certificate


def build_conf(**overrides: Any) -> Any:
    """Return the group [memcache]."""
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "porthole-test", [], default_config_files=[])
    for name, value in overrides.items():
        conf.set_override(name, value, group="memcache")
    return conf.memcache


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port of this process: what stands behind it never answers, and the test decides when it breaks off."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_a_thread_waits_no_longer_than_the_timeout_for_a_connection() -> None:
    node = MemcachedNode("192.0.2.1", 11211, build_conf(pool_size=1, timeout=0.05))
    node._free.get_nowait()
    with pytest.raises(errors.TokenStoreUnavailable, match="in use"):
        node.get("key")


def test_a_server_that_does_not_answer(listener: socket.socket) -> None:
    """Its caller is told within the timeout (O4)."""
    node = MemcachedNode("127.0.0.1", listener.getsockname()[1], build_conf(timeout=0.05))
    began = time.monotonic()
    with pytest.raises(errors.TokenStoreUnavailable, match="no answer in time"):
        node.get("key")
    assert time.monotonic() - began < 5
    node.close()


def test_a_server_that_does_not_know_how_long_items_live_is_asked_once(listener: socket.socket) -> None:
    """memcached before 1.6 does not know the command."""
    heard: list[bytes] = []

    def answer() -> None:
        sock, _ = listener.accept()
        with sock:
            heard.append(sock.recv(100))
            sock.sendall(b"ERROR\r\n")

    server = threading.Thread(target=answer)
    server.start()
    node = MemcachedNode("127.0.0.1", listener.getsockname()[1], build_conf(timeout=10))
    assert [node.get_ttl("key"), node.get_ttl("key")] == [None, None]
    server.join(10)
    assert heard == [b"mg key t\r\n"]
    node.close()


def test_a_server_that_refuses_connections(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(errors.TokenStoreUnavailable, match="refused"):
        MemcachedNode("127.0.0.1", port, build_conf()).get("key")


def test_a_server_more_moves_only_keys_to_itself() -> None:
    before, after = build_ring(["a:1", "b:1"]), build_ring(["c:1", "b:1", "a:1"])
    keys = [f"{number:03x}" for number in range(4096)]
    moved = [key for key in keys if before(key) != after(key)]
    assert {after(key) for key in moved} == {"c:1"}
    assert 1200 < len(moved) < 1530


def test_the_login_is_user_and_password() -> None:
    assert build_login(build_conf(username="porthole", password="p:w%")) == b"porthole p:w%"
    assert build_login(build_conf()) is None


def test_a_login_that_does_not_do_names_the_options() -> None:
    cases = [
        {"username": "porthole"},
        {"password": "secret"},
        {"username": "port hole", "password": "secret"},
        {"username": "porthole", "password": "secret\r\nflush_all"},
        {"username": "pörthole", "password": "secret"},
    ]
    for options in cases:
        with naming(options):
            with pytest.raises(errors.ConfigInvalid, match=r"\[memcache\] username, password") as caught:
                MemcachedNode("host", 1, build_conf(**options))
            assert "secret" not in str(caught.value)


def test_tls_is_off_unless_it_is_wanted() -> None:
    assert build_tls_context(build_conf(tls_cafile="/nowhere")) is None


def test_tls_checks_authority_and_name(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    context = build_tls_context(build_conf(tls_enabled=True, tls_cafile=str(certificate.cert)))
    assert context is not None
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


def test_a_file_that_does_not_do_names_the_option(tmp_path: Path) -> None:
    for option, content in itertools.product(["tls_cafile", "tls_certfile"], [None, b"no certificate"]):
        with naming(option, content):
            path = tmp_path / "file.pem"
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(errors.ConfigInvalid, match=option):
                build_tls_context(build_conf(tls_enabled=True, **{option: str(path)}))


def test_a_key_with_a_passphrase_is_refused_and_nobody_asked(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    options = {"tls_certfile": str(certificate.cert), "tls_keyfile": str(certificate.encrypted_key)}
    with pytest.raises(errors.ConfigInvalid, match="tls_keyfile"):
        build_tls_context(build_conf(tls_enabled=True, **options))


class SocketlessClient:
    """pymemcache's client of a release without the attribute ``sock``."""

    made: list["SocketlessClient"] = []

    def __init__(self, address: tuple[str, int], **options: Any) -> None:
        self.options = options
        self.calls: list[tuple[str, ...]] = []
        self.made.append(self)

    def close(self) -> None:
        self.calls.append(("close",))

    def set(self, key: str, value: bytes) -> bool:
        self.calls.append(("set", key, value.decode()))
        return True

    def get(self, key: str) -> bytes:
        self.calls.append(("get", key))
        return b"value"


def test_without_the_socket_pymemcache_connects_by_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the deadlines and the TLS that are configured, and logged in each time."""
    forget_reports()
    monkeypatch.setattr(memcached_node, "Client", SocketlessClient)
    tls = ssl.create_default_context()
    for login, calls in (
        ({}, [("get", "key")]),
        ({"username": "u", "password": "p"}, [("close",), ("set", "login", "u p"), ("get", "key")]),
    ):
        SocketlessClient.made.clear()
        node = MemcachedNode("host", 1, build_conf(pool_size=1, timeout=2, connect_timeout=3, **login), tls)
        assert node.get("key") == b"value"
        client = SocketlessClient.made[0]
        assert client.calls == calls
        assert (client.options["connect_timeout"], client.options["timeout"]) == (3, 2)
        assert client.options["tls_context"] is tls
    (record,) = caplog.records
    assert record.getMessage().startswith("Private part of a library not found library=pymemcache version=")
    forget_reports()


def test_the_installed_pymemcache_has_the_socket() -> None:
    """This fails with the release that takes it away."""
    assert Client(("host", 1)).sock is None

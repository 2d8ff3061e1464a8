# SPDX-License-Identifier: Apache-2.0
"""The contract of the token store on real memcached servers: one, two, and over TLS with a login."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from porthole_common import conf as porthole_conf
from porthole_common import errors
from porthole_common.model import build_token
from porthole_consoleauth.memcached_servers import build_store
from porthole_consoleauth.memcached_store import MemcachedStore
from support.certificates import Authority, Certificate
from support.memcached import Memcached
from support.token_store_contract import TTL_S, TokenStoreContract, build_console, is_valid, new_uuid

USER, PASSWORD = "porthole", "a-secret"


def connect(servers: Sequence[Memcached | str], **options: Any) -> MemcachedStore:
    """Return a store on the servers, or on addresses that lead to them; ``options`` are of [memcache]."""
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "porthole-test", [], default_config_files=[])
    addresses = [server if isinstance(server, str) else server.address for server in servers]
    # Fifty threads on two cores that others use too.
    for name, value in {"servers": addresses, "timeout": 10.0, "connect_timeout": 10.0, **options}.items():
        conf.set_override(name, value, group="memcache")
    return build_store(conf)


class TestOneServer(TokenStoreContract):
    @pytest.fixture
    def store(self, memcached: Memcached) -> Iterator[MemcachedStore]:
        store = connect([memcached])
        yield store
        store.close()


class TestTwoServers(TokenStoreContract):
    @pytest.fixture
    def store(self, memcached: Memcached, own_memcached: Memcached) -> Iterator[MemcachedStore]:
        store = connect([memcached, own_memcached])
        yield store
        store.close()


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A folder that the user memcached becomes may look into: pytest's own are for their owner alone."""
    with tempfile.TemporaryDirectory(prefix="porthole-memcached-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def secure_memcached(authority: Authority, directory: Path) -> Iterator[Memcached]:
    """A memcached that speaks TLS alone and wants a login; its certificate is for localhost and 127.0.0.1."""
    certificate = authority.issue("localhost")
    logins = directory / "logins"
    logins.write_text(f"{USER}:{PASSWORD}\n", encoding="ascii")
    with Memcached([*_tls(certificate), "-Y", str(logins)], speaks_text=False) as store:
        yield store


class TestTlsWithLogin(TokenStoreContract):
    @pytest.fixture
    def store(self, secure_memcached: Memcached, authority: Authority) -> Iterator[MemcachedStore]:
        store = connect([secure_memcached], **_login(), tls_enabled=True, tls_cafile=str(authority.cert))
        yield store
        store.close()


def _tls(certificate: Certificate) -> list[str]:
    certificate.key.chmod(0o644)
    return ["-Z", "-o", f"ssl_chain_cert={certificate.cert},ssl_key={certificate.key}"]


def _login(user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    return {"username": user, "password": password}


def assert_unavailable(store: MemcachedStore) -> None:
    with pytest.raises(errors.TokenStoreUnavailable):
        store.check(new_uuid())
    with pytest.raises(errors.TokenStoreUnavailable):
        store.authorize(new_uuid(), build_console(new_uuid()), TTL_S)
    store.close()


def test_a_server_of_another_authority_is_refused(
    secure_memcached: Memcached, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Authority(tmp_path, "other")
    assert_unavailable(connect([secure_memcached], **_login(), tls_enabled=True, tls_cafile=str(other.cert)))
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
    assert PASSWORD not in caplog.text


def test_a_server_of_another_name_is_refused(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """The same authority has signed it, for somebody else."""
    with Memcached(_tls(authority.issue("elsewhere.example")), speaks_text=False) as store:
        assert_unavailable(connect([store], tls_enabled=True, tls_cafile=str(authority.cert)))
        assert "IP address mismatch" in caplog.text
        assert_unavailable(connect([f"localhost:{store.port}"], tls_enabled=True, tls_cafile=str(authority.cert)))
        assert "Hostname mismatch" in caplog.text


@pytest.mark.parametrize(
    "login", [{}, _login(password="wrong"), _login(user="nobody")], ids=["none", "password", "user"]
)
def test_a_wrong_login_is_an_unavailable_store(
    secure_memcached: Memcached, authority: Authority, login: dict[str, str]
) -> None:
    assert_unavailable(connect([secure_memcached], **login, tls_enabled=True, tls_cafile=str(authority.cert)))


def test_plain_text_to_a_server_that_speaks_tls(secure_memcached: Memcached) -> None:
    assert_unavailable(connect([secure_memcached], **_login(), timeout=1.0))


def test_tls_to_a_server_that_speaks_plain_text(memcached: Memcached, authority: Authority) -> None:
    assert_unavailable(connect([memcached], tls_enabled=True, tls_cafile=str(authority.cert), connect_timeout=1.0))


def test_a_server_over_tls_restarts(authority: Authority) -> None:
    """Connections that died idle are made again, and what was there is unknown."""
    with Memcached(_tls(authority.issue("localhost")), speaks_text=False) as server:
        store = connect([server], tls_enabled=True, tls_cafile=str(authority.cert))
        token, instance_uuid = new_uuid(), new_uuid()
        store.authorize(token, build_console(instance_uuid), TTL_S)
        server.restart()
        assert not is_valid(store, token)
        token = build_token(instance_uuid)
        store.authorize(token, build_console(instance_uuid), TTL_S)
        assert is_valid(store, token)
        store.close()

# SPDX-License-Identifier: Apache-2.0
from contextlib import nullcontext
from pathlib import Path

import pytest
from oslo_config import cfg

from porthole_common import errors
from porthole_common.broker import Broker
from porthole_common.rpc import Rpc
from porthole_common.rpc_transport import list_brokers
from support.bus import parse_global_conf
from support.cases import naming


def test_tls_that_would_trust_anybody_is_refused(tmp_path: Path) -> None:
    """Wherever TLS is asked for, and wherever the authority is named: a parameter of the URL wins over the option."""
    path = tmp_path / "porthole.conf"
    for option, query, is_refused in (
        ("ssl = true", "", True),
        ("", "?ssl=1", True),
        ("ssl = true", "?ssl=true", True),
        ("ssl = true", "?ssl=0", False),
        ("ssl = true\nssl_ca_file = /ca", "", False),
        ("", "?ssl=1&ssl_ca_file=/ca", False),
        ("ssl_ca_file = /ca", "?ssl=1", False),
    ):
        with naming(option, query):
            path.write_text(f"[oslo_messaging_rabbit]\n{option}\n", encoding="utf-8")
            parse_global_conf("--config-file", str(path))
            refused = pytest.raises(errors.ConfigInvalid, match="ssl_ca_file") if is_refused else nullcontext()
            with refused:
                Rpc(cfg.CONF, 1, transport_url=f"rabbit://guest:guest@127.0.0.1:1/{query}").close()
            cfg.CONF.reset()


@pytest.mark.parametrize("url", ["nonsense://guest:secret@host/", "not a url at all", "rabbit://a:secret@host:x/"])
def test_a_bad_transport_url_names_the_option_and_no_password(url: str) -> None:
    parse_global_conf()
    with pytest.raises(errors.ConfigInvalid, match="transport_url") as caught:
        Rpc(cfg.CONF, 1, transport_url=url)
    assert "secret" not in str(caught.value)


def brokers_of(directory: Path, url: str, rabbit: str = "") -> list[Broker]:
    path = directory / "porthole.conf"
    path.write_text(f"[DEFAULT]\ntransport_url = {url}\n[oslo_messaging_rabbit]\n{rabbit}\n", encoding="utf-8")
    parse_global_conf(f"--config-file={path}")
    return list_brokers(cfg.CONF)


def test_the_brokers_of_a_transport_url(tmp_path: Path) -> None:
    assert brokers_of(tmp_path, "rabbit://a:s%40crt@one:1234,b:c@[2001:db8::1]/some%2Fwhere") == [
        Broker("one", 1234, "a", "s@crt", "some/where", None),
        Broker("2001:db8::1", 5672, "b", "c", "some/where", None),
    ]
    assert brokers_of(tmp_path, "rabbit://") == [Broker("localhost", 5672, "guest", "guest", "/", None)]


def test_a_brokers_tls_is_an_option_or_a_parameter_of_the_url(tmp_path: Path) -> None:
    files = "ssl_ca_file = /ca\nssl_cert_file = /cert\nssl_key_file = /key"
    whole = {"ca": "/ca", "cert": "/cert", "key": "/key"}
    assert brokers_of(tmp_path, "rabbit://a:b@one/", files)[0].tls is None
    assert brokers_of(tmp_path, "rabbit://a:b@one/", f"ssl = true\n{files}")[0].tls == whole
    assert brokers_of(tmp_path, "rabbit://a:b@one/?ssl=1&ssl_ca_file=/other", files)[0].tls == whole | {"ca": "/other"}
    assert brokers_of(tmp_path, "rabbit://a:b@one/?ssl=0", "ssl = true")[0].tls is None


def test_a_brokers_password_is_in_no_repr(tmp_path: Path) -> None:
    assert "secret" not in repr(brokers_of(tmp_path, "rabbit://a:secret@one/"))


@pytest.mark.parametrize("url", ["fake://", "kafka://a:secret@one/", "rabbit://a:secret@one:x/"])
def test_what_is_not_rabbitmqs_has_no_brokers(tmp_path: Path, url: str) -> None:
    with pytest.raises(errors.ConfigInvalid, match="transport_url") as caught:
        brokers_of(tmp_path, url)
    assert "secret" not in str(caught.value)

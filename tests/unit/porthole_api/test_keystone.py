# SPDX-License-Identifier: Apache-2.0
"""Keystone's strategy as far as no Keystone is asked: its options, and requests without a token."""

from pathlib import Path

import pytest
from oslo_config import cfg
from webob import exc

from porthole_api.keystone import Keystone
from porthole_common import conf as porthole_conf
from porthole_common import errors
from support.cases import naming

AUTH = """
[keystone_authtoken]
auth_type = password
auth_url = http://keystone.invalid/v3
www_authenticate_uri = http://keystone.example/v3
username = porthole
password = pazzword
project_name = service
user_domain_name = Default
project_domain_name = Default
"""


def build(tmp_path: Path, text: str) -> tuple[Keystone, cfg.ConfigOpts]:
    path = tmp_path / "porthole.conf"
    path.write_text(text, encoding="utf-8")
    conf = cfg.ConfigOpts()
    porthole_conf.parse(conf, "porthole-test", ["--config-file", str(path)])
    return Keystone(conf), conf


def test_an_option_that_does_not_do_is_named(tmp_path: Path) -> None:
    cases = [
        ("", "[keystone_authtoken] auth_type"),
        (AUTH.replace("auth_url = http://keystone.invalid/v3", ""), "[keystone_authtoken]"),
        (AUTH.replace("= password\n", "= telepathy\n", 1), "[keystone_authtoken]"),
        (AUTH + "http_connect_timeout = soon\n", "[keystone_authtoken] http_connect_timeout"),
        (AUTH.replace("= pazzword", "= abc$pazzword"), "[keystone_authtoken]"),
        (AUTH + "memcache_secret_key = abc$pazzword\n", "[keystone_authtoken] memcache_secret_key"),
        (AUTH + "memcache_security_strategy = ENCRYPT\n", "[keystone_authtoken]"),
    ]
    for text, option in cases:
        with naming(text, option):
            with pytest.raises(errors.ConfigInvalid) as caught:
                build(tmp_path, text)
            # Behind it may stand the file and the line.
            assert caught.value.option.partition(" in ")[0] == option
            assert "pazzword" not in str(caught.value)


def test_without_a_token_nobody_is_let_in(tmp_path: Path) -> None:
    for extra in ["", "delay_auth_decision = true\n"]:
        with naming(extra):
            keystone, _ = build(tmp_path, AUTH + extra)
            with pytest.raises(exc.HTTPUnauthorized) as caught:
                keystone({"REQUEST_METHOD": "GET", "HTTP_X_ROLES": "admin", "HTTP_X_IDENTITY_STATUS": "Confirmed"})
            assert caught.value.headers["WWW-Authenticate"] == 'Keystone uri="http://keystone.example/v3"'


def test_every_wait_ends_within_the_deadline_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    _, conf = build(tmp_path, "[rpc]\ncall_timeout = 6\n" + AUTH)
    assert (conf.keystone_authtoken.http_connect_timeout, conf.keystone_authtoken.http_request_max_retries) == (3, 0)
    _, conf = build(tmp_path, AUTH + "http_connect_timeout = 20\n")
    assert conf.keystone_authtoken.http_connect_timeout == 20

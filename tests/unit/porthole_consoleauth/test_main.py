# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from oslo_config import cfg

from porthole_common import errors
from porthole_common.context import build_daemon_context
from porthole_common.model import ConnectInfo, ConsoleType
from porthole_consoleauth import main
from porthole_consoleauth.rpcapi import ConsoleAuthAPI
from support.bus import fake_bus, parse_global_conf
from support.cases import naming
from support.token_store_contract import new_uuid


def test_the_daemon_names_the_option_that_does_not_do(tmp_path: Path) -> None:
    cases = [("DEFAULT", "transport_url = fake://"), ("memcache", "servers = nonsense"), ("memcache", "servers =")]
    for group, line in cases:
        with naming(group, line):
            path = tmp_path / "porthole.conf"
            path.write_text(f"[{group}]\n{line}\n", encoding="utf-8")
            parse_global_conf("--config-file", str(path))
            with pytest.raises(errors.ConfigInvalid) as caught:
                main.build(cfg.CONF)
            assert caught.value.option == f"[{group}] {line.split(maxsplit=1)[0]}"
            cfg.CONF.reset()


def test_the_service_of_standalone_serves_the_topic_and_leaves_the_bus_open() -> None:
    with fake_bus() as bus:
        service = main.build_standalone(cfg.CONF, bus)
        service.start()
        client = ConsoleAuthAPI(bus)
        token = new_uuid()
        info = ConnectInfo(new_uuid(), ConsoleType.NOVNC, "127.0.0.1", 5900, "http://x/", "host1", token=token)
        client.authorize_console(build_daemon_context(), info)
        assert client.check_token(build_daemon_context(), token).port == 5900
        assert (service.waits_for(), service.is_alive()) == ("", True)
        service.reload()
        service.stop()
        again = main.build_standalone(cfg.CONF, bus)
        again.start()
        with pytest.raises(errors.TokenInvalid):
            client.check_token(build_daemon_context(), token)
        again.stop()

# SPDX-License-Identifier: Apache-2.0
"""``[consoleauth] enforce_session_timeout``, while the clock of a consoleauth is wrong: the whole path, with memcached.

A clock that is wrong shows in ``expires_at``, which the consoleauth that issues a token writes into its item. So the
test changes it there, as if that host's clock were 700 s slow, or an hour fast.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from websockets.exceptions import ConnectionClosed

from porthole_consoleauth.token_store import hash_token, token_key
from support.console import get_console, open_console, read_greeting, token_of, wait_for_instances
from support.daemons import Porthole
from support.deadlines import MACHINE_SLACK_S
from support.memcached import Memcached
from support.vnc_servers import EchoVnc

TTL_S = 8
# memcached counts whole seconds, by a clock that ticks once a second, and later on a busy machine.
TICKS_S = 2.5


@pytest.fixture
def echo() -> Iterator[EchoVnc]:
    server = EchoVnc()
    yield server
    server.stop()


def shift_expiry(memcached: Memcached, token: str, seconds: float) -> None:
    """Change ``expires_at`` in the item of a new token."""
    key = token_key(hash_token(token))
    _, item, _ = memcached.command(f"get {key}").split("\r\n", 2)
    value = json.loads(item)
    value["expires_at"] = (datetime.fromisoformat(value["expires_at"]) + timedelta(seconds=seconds)).isoformat()
    changed = json.dumps(value)
    assert memcached.command(f"set {key} 0 {TTL_S} {len(changed)}\r\n{changed}") == "STORED\r\n"


@pytest.mark.parametrize("skew_s", [0, -700, 3600])
def test_a_session_lasts_as_long_as_its_token_whatever_the_clocks_show(
    make_porthole: Callable[..., Porthole], memcached: Memcached, tmp_path: Path, echo: EchoVnc, skew_s: float
) -> None:
    instance_uuid = str(uuid.uuid4())
    path = tmp_path / "instances.yaml"
    entry = {"uuid": instance_uuid, "name": "vm", "host": "127.0.0.1", "port": echo.port}
    path.write_text(yaml.safe_dump({"instances": [entry]}), encoding="utf-8")
    options = {"consoleauth": {"token_ttl": TTL_S, "enforce_session_timeout": True}}
    porthole = make_porthole(instances_file=path, options=options)
    wait_for_instances(porthole, instance_uuid)
    token = token_of(get_console(porthole, instance_uuid))
    shift_expiry(memcached, token, skew_s)
    issued_at = time.monotonic()
    with open_console(porthole.novnc_port, token) as client:
        read_greeting(client)
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=TTL_S + MACHINE_SLACK_S)
        lasted_s = time.monotonic() - issued_at
    assert client.close_code == 4408
    assert TTL_S - TICKS_S < lasted_s < TTL_S + MACHINE_SLACK_S

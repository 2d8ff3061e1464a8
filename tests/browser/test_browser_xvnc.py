# SPDX-License-Identifier: Apache-2.0
"""A guest whose VNC server is TigerVNC and not QEMU, in a browser."""

import uuid as uuidlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from support.browser import SAME, Browser, Tab, equal_share
from support.console import get_console, wait_for_instances
from support.daemons import Porthole
from support.memcached import Memcached
from support.ports import free_port
from support.rabbitmq import RabbitMQ
from support.x11_screen import Screen
from support.xvnc import Xvnc


@pytest.fixture
def xvnc(tmp_path: Path) -> Iterator[Xvnc]:
    with Xvnc(tmp_path, "400x300") as xvnc:
        yield xvnc


def is_painted(tab: Tab, colour: tuple[int, int, int]) -> bool:
    return equal_share(tab.canvas(), np.full((300, 400, 3), colour, np.uint8)) >= SAME


def test_a_vnc_server_that_is_not_qemu(
    rabbitmq: RabbitMQ, memcached: Memcached, browser: Browser, tmp_path: Path, xvnc: Xvnc
) -> None:
    """TigerVNC through the static driver; and C18, a server that is dead: the page says so, and not just 1006."""
    desk, dead = (str(uuidlib.uuid4()) for _ in range(2))
    instances = [
        {"uuid": desk, "name": "desk", "host": xvnc.host, "port": xvnc.port},
        {"uuid": dead, "name": "dead", "host": "127.0.0.1", "port": free_port()},
    ]
    path = tmp_path / "instances.yaml"
    path.write_text(yaml.safe_dump({"instances": instances}))
    with (
        Porthole(tmp_path / "porthole", rabbitmq, memcached, instances_file=path) as porthole,
        Screen(xvnc.display) as screen,
    ):
        wait_for_instances(porthole, desk, dead)
        tab = browser.open(get_console(porthole, desk))
        tab.wait_for_desktop()
        for colour in ((40, 120, 80), (200, 100, 40)):
            screen.paint(*colour)
            tab.wait_for(partial(is_painted, tab, colour), f"the colour {colour} on the canvas")
            tab.type_keys("a")
            assert screen.next_key() >= 8
        assert (tab.text("#state"), tab.messages, tab.errors) == ("Connected", [], [])

        tab = browser.open(get_console(porthole, dead))
        tab.wait_for_text("#state", "Not connected")
        assert tab.text("#panel-title") == "The guest\u2019s screen does not answer"
        assert tab.text("#panel-detail").startswith("502: ")

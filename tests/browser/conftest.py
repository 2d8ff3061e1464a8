# SPDX-License-Identifier: Apache-2.0
"""The browser that the tests share, each with pages of its own; and the real servers behind a real console."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.browser import Browser
from support.console_server import ConsoleServer
from support.libvirtd import Libvirtd
from support.memcached import Memcached
from support.rabbitmq import RabbitMQ


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--save-screenshot",
        type=Path,
        metavar="PNG",
        help="where to write the README's picture of a guest in the browser",
    )


@pytest.fixture(scope="session")
def browser_of_run() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def browser(browser_of_run: Browser) -> Iterator[Browser]:
    """A browser without pages."""
    yield browser_of_run
    browser_of_run.close_tabs()


@pytest.fixture
def console_server() -> Iterator[ConsoleServer]:
    with ConsoleServer() as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as broker:
        yield broker


@pytest.fixture(scope="session")
def memcached() -> Iterator[Memcached]:
    with Memcached() as store:
        yield store


@pytest.fixture(scope="session")
def libvirtd() -> Iterator[Libvirtd]:
    with Libvirtd() as daemon:
        yield daemon

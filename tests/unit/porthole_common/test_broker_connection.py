# SPDX-License-Identifier: Apache-2.0
"""The undocumented parts of py-amqp: used while they are there, and reported once when they are gone."""

from collections.abc import Iterator

import pytest
from amqp.connection import Connection

from porthole_common.broker_connection import drop_connection, limit_waits
from porthole_common.broker_trouble import STEP_TIMEOUT_S
from porthole_common.private_parts import forget_reports


@pytest.fixture(autouse=True)
def reports() -> Iterator[None]:
    forget_reports()
    yield
    forget_reports()


class Session:
    """A connection of py-amqp, and its socket."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.sock = self

    def settimeout(self, timeout_s: float) -> None:
        self.calls.append(timeout_s)

    def collect(self) -> None:
        self.calls.append("collect")


def test_the_parts_are_used(caplog: pytest.LogCaptureFixture) -> None:
    session = Session()
    limit_waits(session)
    drop_connection(session)
    assert session.calls == [STEP_TIMEOUT_S, "collect"]
    assert caplog.records == []


def test_the_installed_library_has_every_part() -> None:
    """This fails with the release of py-amqp that takes one away."""
    assert isinstance(Connection.sock, property)
    assert callable(Connection.collect)


def test_without_the_parts_each_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        limit_waits(object())
        drop_connection(object())
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(" part=")[1].split(" ")[0] for line in lines] == ["Connection.sock", "Connection.collect"]
    assert all(line.startswith("Private part of a library not found library=amqp version=5.") for line in lines)

# SPDX-License-Identifier: Apache-2.0
import inspect
from collections.abc import Sequence
from typing import Any

import pytest

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.history.event import HistoryEvent
from porthole_consoleauth import rpcapi
from porthole_consoleauth.history.endpoint import HistoryEndpoint
from porthole_consoleauth.history.reading import MAX_LIMIT, Filters
from porthole_consoleauth.history.switched_off import NoHistory
from porthole_consoleauth.rpcapi import MAX_EVENTS, ConsoleAuthAPI
from support.bus import expected_error, fake_bus
from support.history import INSTANCE, closed, new_id, opened


class Store:
    """Keeps events in a list; raises :attr:`error` when there is one."""

    def __init__(self) -> None:
        self.events: list[HistoryEvent] = []
        self.asked: list[tuple[Filters, int, str | None]] = []
        self.error: errors.PortholeError | None = None

    def record(self, events: Sequence[HistoryEvent]) -> None:
        if self.error:
            raise self.error
        self.events += events

    def find_events(self, filters: Filters, limit: int, marker: str | None) -> tuple[list[HistoryEvent], bool]:
        if self.error:
            raise self.error
        self.asked.append((filters, limit, marker))
        return self.events[:limit], len(self.events) > limit


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def endpoint(store: Store) -> HistoryEndpoint:
    return HistoryEndpoint(store, store.record)


def context() -> RequestContext:
    return RequestContext(user_id="user1", project_id="project1", overwrite=False)


def test_client_and_endpoint_have_the_same_methods_and_parameters() -> None:
    for name in ("list_events", "record_events"):
        client = list(inspect.signature(getattr(ConsoleAuthAPI, name)).parameters)
        assert list(inspect.signature(getattr(HistoryEndpoint, name)).parameters) == client
    assert HistoryEndpoint.target.version == rpcapi.VERSION


def test_over_the_bus(endpoint: HistoryEndpoint, store: Store) -> None:
    with fake_bus() as bus:
        server = bus.get_server(rpcapi.TOPIC, "host1", [endpoint])
        server.start()
        client = ConsoleAuthAPI(bus)
        events = [opened(new_id()), closed(new_id(), reason="\N{GREEK SMALL LETTER ALPHA}")]
        assert client.record_events(context(), events) == 2
        assert client.list_events(context(), {"server": INSTANCE}, 10) == (events, False)
        assert client.list_events(context(), {}, 1, marker=events[0].id) == (events[:1], True)
        store.error = errors.HistoryUnavailable("away")
        with pytest.raises(errors.HistoryUnavailable, match="away"):
            client.record_events(context(), events)
        server.stop()


def test_an_event_that_is_not_understood_holds_up_no_other(endpoint: HistoryEndpoint, store: Store) -> None:
    good = opened(new_id())
    assert endpoint.record_events(context(), [{"kind": "of_tomorrow"}, good.to_primitive(), None]) == 1  # type: ignore[list-item]
    assert store.events == [good]


def test_what_is_too_much_or_malformed_is_refused(endpoint: HistoryEndpoint) -> None:
    wrong: list[tuple[dict[str, Any], Any]] = [({}, 0), ({}, MAX_LIMIT + 1), ({}, "7"), ({}, True), ([], 7)]  # type: ignore[list-item]
    wrong += [
        ({name: value}, 7) for name, value in (("nothing", "x"), ("kind", 7), ("host", "x" * 256), ("host", "\n"))
    ]
    wrong += [({"since": text}, 7) for text in ("yesterday", "2026-07-01T12:00:00")]
    for filters, limit in wrong:
        call = lambda filters=filters, limit=limit: endpoint.list_events(context(), filters, limit)  # noqa: E731
        assert isinstance(expected_error(call), errors.RequestInvalid), (filters, limit)
    many = [opened(new_id()).to_primitive()] * (MAX_EVENTS + 1)
    assert isinstance(expected_error(lambda: endpoint.record_events(context(), many)), errors.RequestInvalid)


def test_a_history_that_is_switched_off_takes_events_and_gives_none() -> None:
    endpoint = NoHistory().endpoint
    assert endpoint.record_events(context(), [opened(new_id()).to_primitive()]) == 1
    refused = expected_error(lambda: endpoint.list_events(context(), {}, 1))
    assert isinstance(refused, errors.HistoryUnavailable)
    assert "[history] enabled" in str(refused)

# SPDX-License-Identifier: Apache-2.0
from http import HTTPStatus

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.history.event import EventKind, HistoryEvent
from porthole_common.model import TokenReason
from porthole_novncproxy.doors import DOORS
from porthole_novncproxy.sessions.history import SessionHistory
from support.history import INSTANCE


def context(instance: str | None = INSTANCE) -> RequestContext:
    return RequestContext(user_id="rita", project_id="red", resource_uuid=instance, overwrite=False)


def test_a_refusal_with_a_known_instance_is_told_once_a_minute() -> None:
    told: list[HistoryEvent] = []
    now = [0.0]
    history = SessionHistory(told.append, "host-6080-0", "p1", clock=lambda: now[0])
    limit, gone = errors.LimitReached("[novncproxy] max_sessions"), errors.TokenInvalid(TokenReason.INSTANCE_GONE)

    def refuse(error: errors.PortholeError, source: str = "192.0.2.7", instance: str | None = INSTANCE) -> None:
        history.on_refused(context(instance), error, HTTPStatus.TOO_MANY_REQUESTS, DOORS[0], source)

    for _ in range(5):
        refuse(limit)
        refuse(limit, instance=None)
    assert len(told) == 1
    refuse(gone)
    refuse(limit, source="192.0.2.8")
    now[0] = 61.0
    refuse(limit)
    assert [event.client for event in told] == ["192.0.2.7", "192.0.2.7", "192.0.2.8", "192.0.2.7"]
    first = told[0]
    assert (first.kind, first.code, first.reason) == (EventKind.CONSOLE_REFUSED, 429, str(limit))
    assert (first.user_id, first.project_id, first.instance_uuid) == ("rita", "red", INSTANCE)
    assert (first.proxy, first.process) == ("host-6080-0", "p1")


def test_refusals_that_are_remembered_are_bounded() -> None:
    history = SessionHistory(lambda _event: None, "host-6080-0", "p1")
    for number in range(5000):
        history.on_refused(context(), errors.LimitReached("x"), HTTPStatus.TOO_MANY_REQUESTS, DOORS[0], str(number))
    assert len(history._refused) == 1000

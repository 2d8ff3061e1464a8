# SPDX-License-Identifier: Apache-2.0
"""What the proxy tells the history: each session's opening and end, and refusals.

Why only refusals whose instance is known: then the token was good, and somebody can be named. Anybody can have a bad
token refused as often as he likes; those are in the log. Of one client, instance and error one refusal a minute is
told, so that a client that tries again and again does not fill the history.

The methods of :class:`SessionHistory` run in the loop's thread and in those of requests, and return at once: a
:class:`~porthole_common.history.reporter.Reporter` delivers. Built by :mod:`porthole_novncproxy.daemon`.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from threading import Lock
from typing import Any

from oslo_config import cfg

from porthole_common import errors
from porthole_common.context import RequestContext, build_daemon_context, serving
from porthole_common.history.event import EventKind, HistoryEvent, build_event
from porthole_common.history.reporter import Reporter
from porthole_common.history.spool import build_spool
from porthole_common.recent import Recent
from porthole_consoleauth.rpcapi import ConsoleAuthAPI
from porthole_novncproxy.admission.gate import Admission
from porthole_novncproxy.doors import Door
from porthole_relay.session import Session

_REFUSAL_PAUSE_S = 60.0
# Refusals that are remembered: a guard for the memory.
_MAX_REFUSALS = 1000


class SessionHistory:
    """Makes events; ``report`` takes them. ``proxy`` and ``process`` are the names of this process."""

    def __init__(
        self,
        report: Callable[[HistoryEvent], None],
        proxy: str,
        process: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._names = {"proxy": proxy, "process": process}
        self._lock = Lock()
        self._refused: Recent[tuple[str, ...]] = Recent(clock, _REFUSAL_PAUSE_S, _MAX_REFUSALS)

    def on_opened(self, session: Session, admission: Admission) -> None:
        """Tell of a session that begins."""
        self._report(build_event(EventKind.SESSION_OPENED, None, **self._describe(session, admission)))

    def on_closed(self, session: Session, admission: Admission) -> None:
        """Tell of a session that has ended."""
        outcome, now = session.outcome, datetime.now(UTC)
        event = build_event(
            EventKind.SESSION_CLOSED,
            now,
            opened_at=now - timedelta(seconds=outcome.seconds),
            code=outcome.code,
            reason=outcome.reason,
            by=admission.ended_by,
            bytes_to_client=outcome.bytes_to_client,
            bytes_from_client=outcome.bytes_from_client,
            **self._describe(session, admission),
        )
        self._report(event)

    def on_ended(self, session: Session, admission: Admission, reason: str) -> None:
        """Tell that ``admission.ended_by`` has ended a session; its end is told besides."""
        event = build_event(
            EventKind.SESSION_ENDED,
            None,
            by=admission.ended_by,
            reason=reason or None,
            **self._describe(session, admission),
        )
        self._report(event)

    def on_refused(
        self, context: RequestContext, error: errors.PortholeError, status: HTTPStatus, door: Door, source: str
    ) -> None:
        """Tell of a refusal, if its instance is known and the same was not refused a moment ago."""
        instance_uuid = context.resource_uuid
        if not instance_uuid or not self._is_news(instance_uuid, source, type(error).__name__):
            return
        event = build_event(
            EventKind.CONSOLE_REFUSED,
            None,
            instance_uuid=instance_uuid,
            user_id=context.user_id,
            project_id=context.project_id,
            request_id=context.request_id,
            console_type=door.type_names,
            client=source,
            code=int(status),
            reason=str(error),
            **self._names,
        )
        self._report(event)

    def _is_news(self, *refusal: str) -> bool:
        with self._lock:
            if self._refused.has(refusal):
                return False
            self._refused.add(refusal)
            return True

    def _describe(self, session: Session, admission: Admission) -> dict[str, Any]:
        subject = session.subject
        return {
            "session_id": subject.session_id,
            "instance_uuid": subject.instance_uuid,
            "console_type": subject.console_type,
            "mode": str(admission.connect_info.mode),
            "user_id": subject.user_id,
            "project_id": subject.project_id,
            "client": subject.client,
            "compute_host": admission.connect_info.compute_host,
            "request_id": subject.request_id,
            **self._names,
        }


def build_reporter(conf: cfg.ConfigOpts, consoleauth: ConsoleAuthAPI) -> Reporter:
    """Return the reporter that delivers to the consoleauths; it reads and writes nothing before its start."""

    def deliver(events: Sequence[HistoryEvent]) -> None:
        context = build_daemon_context()
        with serving(context):
            consoleauth.record_events(context, events)

    return Reporter(build_spool(conf, "novncproxy"), deliver)

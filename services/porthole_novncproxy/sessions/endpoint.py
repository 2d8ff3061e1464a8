# SPDX-License-Identifier: Apache-2.0
"""Open sessions over RPC: a page of them, and their end by a user; :mod:`porthole_novncproxy.rpcapi` is the client.

Why here: the proxies are the truth about sessions, and nobody else keeps a list of what is open. Each process answers
for its own; the api gathers, and has asked its policy before. Called by oslo.messaging's threads.
"""

import functools
import heapq
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from porthole_common import errors
from porthole_common.context import RequestContext
from porthole_common.history.event import MAX_REASON_CHARS, clean_text
from porthole_common.log import get_logger
from porthole_common.open_session import OpenSession, SessionFilter, check_marker, read_opening
from porthole_common.rpc import RpcTarget, expected_exceptions
from porthole_novncproxy.admission.gate import Admission
from porthole_novncproxy.rpcapi import MAX_SESSIONS, SESSIONS_VERSION
from porthole_novncproxy.sessions.registry import LOOP_TIMEOUT_S
from porthole_relay.frames import CloseCode
from porthole_relay.liveness import EndSession
from porthole_relay.session import Session

LOG = get_logger(__name__)
_MAX_NAME_CHARS = 64
# What a filter is compared with, by its name.
_VALUES: dict[str, Callable[[Session, Admission], str | None]] = {
    "session": lambda session, _: session.subject.session_id,
    "server": lambda session, _: session.subject.instance_uuid,
    "project_id": lambda session, _: session.subject.project_id,
    "user_id": lambda session, _: session.subject.user_id,
    "host": lambda _, admission: admission.connect_info.compute_host,
    "client": lambda session, _: session.subject.client,
}
OpenConsole = tuple[Session, Admission]
Result = TypeVar("Result")


class OpenConsoles(Protocol):
    """The part of :class:`porthole_novncproxy.sessions.registry.SessionRegistry` that is used here."""

    def list_open(self, timeout_s: float) -> list[OpenConsole]: ...  # noqa: D102

    def end_by(  # noqa: D102
        self, sessions: Sequence[Session], user: str, end: EndSession, on_ended: Callable[[Session, Admission], None]
    ) -> int: ...


EndObserver = Callable[[Session, Admission, str], None]


class SessionsEndpoint:
    """Methods beside the revocations of topic :data:`porthole_novncproxy.rpcapi.TOPIC`."""

    target = RpcTarget(version=SESSIONS_VERSION)

    def __init__(self, sessions: OpenConsoles, proxy: str, on_ended: EndObserver | None = None) -> None:
        """``proxy`` is the name of this process. ``on_ended`` is told of each session that a user ends, and why."""
        self._sessions = sessions
        self._proxy = proxy
        self._on_ended = on_ended

    @expected_exceptions(errors.PortholeError)
    def list_sessions(
        self, context: RequestContext, filters: dict[str, str], limit: int, marker: str | None = None
    ) -> list[dict[str, Any]]:
        """Return what ``OpenSession.to_primitive`` writes, newest first, for sessions that the filters let through.

        ``limit``: at most so many, up to :data:`porthole_novncproxy.rpcapi.MAX_SESSIONS`. ``marker``: the last id of
        the page before.

        :raises RequestInvalid: when a filter, the limit or the marker is malformed.
        :raises RpcUnavailable: when the loop is blocked.
        """
        asked = build_test(SessionFilter.from_primitive(filters))
        if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= MAX_SESSIONS:
            raise errors.RequestInvalid(f"Invalid input for limit: it is not from 1 to {MAX_SESSIONS}.")
        before = None if marker is None else check_marker(marker)
        found = [
            (session.subject.session_id or "", session, admission)
            for session, admission in self._list_open()
            # One that is being closed has ended: its VNC server is gone.
            if session.state.has_server
            and (before is None or (session.subject.session_id or "") < before)
            and asked(session, admission)
        ]
        newest = heapq.nlargest(limit, found, key=lambda item: item[0])
        now, clock = datetime.now(UTC), time.monotonic()
        return [self._describe(session, admission, now, clock).to_primitive() for _, session, admission in newest]

    @expected_exceptions(errors.PortholeError)
    def end_sessions(
        self, context: RequestContext, filters: dict[str, str], user_id: str | None, name: str | None, reason: str
    ) -> int:
        """End the sessions that the filters let through, and return how many; each client is told who and why.

        ``user_id`` and ``name`` are those of the user who ends them.

        :raises RequestInvalid: when neither a session nor a server is named, or a filter is malformed.
        :raises RpcUnavailable: when the loop is blocked.
        """
        asked = SessionFilter.from_primitive(filters)
        if not {"session", "server"} & asked.equal.keys():
            raise errors.RequestInvalid("Sessions are ended by their id, or by their server.")
        words = clean_text(reason, MAX_REASON_CHARS).strip()
        by = clean_text(name or user_id or "an administrator", _MAX_NAME_CHARS)
        end = EndSession(CloseCode.ENDED_BY_USER, f"Ended by {by}: {words}" if words else f"Ended by {by}")
        is_meant = build_test(asked)
        # Outside the loop, which would look at thousands of sessions; it ends those that are still open.
        meant = [session for session, admission in self._list_open() if is_meant(session, admission)]
        on_ended = functools.partial(self._note_ended, context, words)
        return _ask_loop(lambda: self._sessions.end_by(meant, user_id or by, end, on_ended)) if meant else 0

    def _note_ended(self, context: RequestContext, words: str, session: Session, admission: Admission) -> None:
        subject = session.subject
        LOG.info(
            "Console ended by a user",
            context=context,
            session=subject.session_id,
            instance=subject.instance_uuid,
            client=subject.client,
            reason=words or None,
        )
        if self._on_ended is not None:
            self._on_ended(session, admission, words)

    def _list_open(self) -> list[OpenConsole]:
        return _ask_loop(lambda: self._sessions.list_open(LOOP_TIMEOUT_S))

    def _describe(self, session: Session, admission: Admission, now: datetime, clock: float) -> OpenSession:
        subject = session.subject
        to_client, from_client, _code = session.numbers
        session_id = subject.session_id or ""
        input_at = session.input_at
        return OpenSession(
            id=session_id,
            instance_uuid=subject.instance_uuid,
            console_type=subject.console_type,
            mode=str(admission.connect_info.mode),
            user_id=subject.user_id,
            project_id=subject.project_id,
            client=subject.client,
            user_agent=admission.user_agent,
            proxy=self._proxy,
            compute_host=admission.connect_info.compute_host,
            opened_at=read_opening(session_id),
            last_input_at=None if input_at is None else now - timedelta(seconds=clock - input_at),
            bytes_to_client=to_client,
            bytes_from_client=from_client,
        )


def build_test(asked: SessionFilter) -> Callable[[Session, Admission], bool]:
    """Return the function that says whether the filter lets a session through."""
    tests = [(_VALUES[name], value) for name, value in asked.equal.items()]

    def is_meant(session: Session, admission: Admission) -> bool:
        return all(read(session, admission) == value for read, value in tests) and asked.spans(
            session.subject.session_id or ""
        )

    return is_meant


def _ask_loop(ask: Callable[[], Result]) -> Result:
    try:
        return ask()
    except TimeoutError as exc:
        raise errors.RpcUnavailable("novncproxy", "sessions") from exc

# SPDX-License-Identifier: Apache-2.0
"""One event of the history: who did what, at which console, and when.

Why every text is cut and cleaned here: an event holds text of clients and of users (a reason, a name), it goes into a
spool, a database and a log, and one event that cannot be stored would hold up all those behind it. Pure; called by the
daemons that report, and by consoleauth for each event that it receives.
"""

import json
import uuid
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from porthole_common.model import is_uuid

MAX_REASON_CHARS = 256
# Keystone's ids have 64 characters; a compute's name is a host name, which has 253.
_MAX_CHARS = {"kind": 32, "console_type": 32, "mode": 16, "client": 64, "reason": MAX_REASON_CHARS}
_MAX_NAME_CHARS = 255
# 64 bits with a sign, as all databases have.
_MAX_INTEGER = 2**63 - 1
_PRESUMED = uuid.UUID("5d1c6a54-0c8f-5f5a-9a43-3d6f4a5f3f6e")


class EventKind(StrEnum):
    """What happened. The names stay: they are in databases and in filters."""

    TOKEN_CREATED = "token_created"  # noqa: S105 (no password)
    SESSION_OPENED = "session_opened"
    SESSION_CLOSED = "session_closed"
    CONSOLE_REFUSED = "console_refused"
    # Somebody ended a session; its session_closed follows.
    SESSION_ENDED = "session_ended"
    MODE_CHANGED = "mode_changed"
    # The spool of a process was full; the reason says how many events are missing.
    EVENTS_LOST = "events_lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEvent:
    """``id`` makes an event unique: it may be delivered more than once, and is stored once.

    ``user_id`` and ``project_id`` are those of the token; ``by`` is the user who ended a session or changed its mode.
    ``proxy`` is the name of the proxy's process on the bus, ``process`` the id of that process, which changes with a
    restart. ``at`` and ``opened_at`` are aware, in UTC, to the microsecond; a SESSION_CLOSED has ``opened_at``, so that
    it says all about its session.
    """

    id: str
    at: datetime
    kind: EventKind
    instance_uuid: str | None = None
    session_id: str | None = None
    console_type: str | None = None
    mode: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    client: str | None = None
    proxy: str | None = None
    process: str | None = None
    compute_host: str | None = None
    by: str | None = None
    code: int | None = None
    reason: str | None = None
    bytes_to_client: int | None = None
    bytes_from_client: int | None = None
    opened_at: datetime | None = None
    request_id: str | None = None

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from :meth:`to_primitive`'s dictionary; a key that only a newer daemon knows is ignored.

        :raises ValueError: when a key is missing, or a value has another type or an unknown form.
        """
        if not isinstance(value, dict):
            raise ValueError("it is not an object")
        known = {name: value[name] for name in _NAMES if value.get(name) is not None}
        try:
            return cls(**{name: _parse(name, item) for name, item in known.items()})
        except (TypeError, OverflowError) as exc:
            raise ValueError(str(exc)) from None

    def to_primitive(self) -> dict[str, Any]:
        """Return the fields that have a value; times as ISO 8601 with offset."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name in _NAMES
            if (value := getattr(self, name)) is not None
        }


_NAMES = tuple(field.name for field in fields(HistoryEvent))


def build_event(kind: EventKind, at: datetime | None = None, **values: Any) -> HistoryEvent:
    """Return a new event with an id of its own; ``at`` is now unless given. Texts are cut and cleaned."""
    known = {name: value for name, value in values.items() if value is not None}
    parsed = {name: _parse(name, value) for name, value in known.items()}
    return HistoryEvent(id=str(uuid.uuid4()), at=at or datetime.now(UTC), kind=kind, **parsed)


def build_presumed_id(session_id: str) -> str:
    """Return the id of the event that closes a session whose proxy is taken for dead: one for each session.

    So two consoleauths that notice the same death store one event.
    """
    return str(uuid.uuid5(_PRESUMED, session_id))


def clean_text(text: str, max_chars: int) -> str:
    """Return the printable characters of ``text``, ``max_chars`` at most."""
    # Cut first: cleaning a text of any length would take its time.
    return "".join(char for char in text[: 4 * max_chars] if char.isprintable())[:max_chars]


def dump_event(event: HistoryEvent) -> bytes:
    """Return the event as one line of JSON, in ASCII."""
    return json.dumps(event.to_primitive(), separators=(",", ":")).encode("ascii")


def load_event(line: bytes) -> HistoryEvent:
    """Build what :func:`dump_event` wrote.

    :raises ValueError: when it is anything else.
    """
    return HistoryEvent.from_primitive(json.loads(line))


def _parse(name: str, value: Any) -> Any:
    if name in ("at", "opened_at"):
        return _parse_time(value)
    if name in ("code", "bytes_to_client", "bytes_from_client"):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_INTEGER:
            raise ValueError(f"{name} is not a number from 0 up")
        return int(value)
    if name in ("id", "session_id", "instance_uuid"):
        return _parse_uuid(value)
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    return EventKind(value) if name == "kind" else clean_text(value, _MAX_CHARS.get(name, _MAX_NAME_CHARS))


def _parse_uuid(value: Any) -> str:
    if not isinstance(value, str) or not is_uuid(value):
        raise ValueError("an id is not a canonical UUID")
    return value


def _parse_time(value: Any) -> datetime:
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time has no offset")
    moment = moment.astimezone(UTC)
    if moment.year < 1970:
        raise ValueError("a time is before 1970")
    return moment

# SPDX-License-Identifier: Apache-2.0
"""An open console session, as a proxy tells of it, and the filter of a list of them.

Why the id of a session is a UUID of version 7 (RFC 9562 section 5.7): it begins with the time of the opening, so a list
in the order of the ids is one in the order of the openings. A page begins behind an id, also when the session with that
id has ended meanwhile. Pure; called by the proxy and the api.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from porthole_common import errors
from porthole_common.history.event import clean_text
from porthole_common.list_filters import parse_filters
from porthole_common.model import is_uuid
from porthole_common.primitives import read_int, read_text, read_time

# The filters that a session must equal; beside them there are ``since`` and ``until``, for its opening.
EQUAL = ("session", "server", "project_id", "user_id", "host", "client")
MAX_USER_AGENT_CHARS = 128
_TIME_SHIFT, _VERSION_SHIFT = 80, 76


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """``client`` is an address. ``proxy`` is the name of the proxy's process on the bus.

    ``last_input_at``: when the client last sent a message of RFB, its handshake included; None before. Times are aware,
    in UTC.
    """

    id: str
    instance_uuid: str
    console_type: str
    mode: str
    user_id: str | None
    project_id: str | None
    client: str
    user_agent: str | None
    proxy: str
    compute_host: str
    opened_at: datetime
    last_input_at: datetime | None
    bytes_to_client: int
    bytes_from_client: int

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from :meth:`to_primitive`'s dictionary; a key that only a newer proxy knows is ignored.

        :raises ValueError: when a key is missing, or a value has another type.
        """
        if not isinstance(value, dict):
            raise ValueError("it is not a session")
        try:
            return cls(
                **{name: _read_required(value[name]) for name in _REQUIRED_TEXTS},
                user_id=_read_plain(value["user_id"]),
                project_id=_read_plain(value["project_id"]),
                user_agent=_read_plain(value["user_agent"]),
                opened_at=read_time(value["opened_at"]),
                last_input_at=None if value["last_input_at"] is None else read_time(value["last_input_at"]),
                bytes_to_client=read_int(value["bytes_to_client"], 0),
                bytes_from_client=read_int(value["bytes_from_client"], 0),
            )
        except (KeyError, TypeError) as exc:
            raise ValueError(f"it is not a session: {exc}") from None

    def to_primitive(self) -> dict[str, Any]:
        """Return all fields by their names; times as ISO 8601 with offset."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: item.isoformat() if isinstance(item, datetime) else item for name, item in values.items()}


_REQUIRED_TEXTS = ("id", "instance_uuid", "console_type", "mode", "client", "proxy", "compute_host")


@dataclass(frozen=True)
class SessionFilter:
    """What to find: ``equal`` by the names of :data:`EQUAL`; ``since`` is included, ``until`` is not."""

    equal: Mapping[str, str]
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def from_primitive(cls, value: Mapping[str, Any]) -> Self:
        """Build from texts by their names; times as ISO 8601 with offset.

        :raises RequestInvalid: when a filter is not known, is no plain text of up to 255 characters, or no time.
        """
        equal, times = parse_filters(value, EQUAL, lambda moment: moment.astimezone(UTC))
        return cls(equal, **times)

    def to_primitive(self) -> dict[str, str]:
        """Return what :meth:`from_primitive` reads."""
        moments = {"since": self.since, "until": self.until}
        return {**self.equal, **{name: at.isoformat() for name, at in moments.items() if at is not None}}

    def spans(self, session_id: str) -> bool:
        """Whether a session was opened within the filter's times."""
        if self.since is None and self.until is None:
            return True
        at = read_opening(session_id)
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)


def build_session_id(timestamp: float | None = None) -> str:
    """Return a new id for a session that is opened now, or at ``timestamp`` (POSIX seconds)."""
    milliseconds = int((time.time() if timestamp is None else timestamp) * 1000)
    # A UUID of version 4 has random bits, and the variant in its place.
    rest = uuid.uuid4().int & ((1 << _VERSION_SHIFT) - 1)
    return str(uuid.UUID(int=milliseconds << _TIME_SHIFT | 7 << _VERSION_SHIFT | rest))


def read_opening(session_id: str) -> datetime:
    """Return when a session with this id was opened, to the millisecond."""
    return datetime.fromtimestamp((uuid.UUID(session_id).int >> _TIME_SHIFT) / 1000, UTC)


def clean_user_agent(text: str | None) -> str | None:
    """Return the name of a client's program as it is kept: printable, and short."""
    return clean_text(text, MAX_USER_AGENT_CHARS) or None if text else None


def check_marker(marker: str) -> str:
    """Return ``marker`` when it may be the id of a session.

    :raises RequestInvalid: when it is not a canonical UUID.
    """
    if not is_uuid(marker):
        raise errors.RequestInvalid("Invalid input for marker: it is not the id of a session.")
    return marker


def _read_required(value: Any) -> str:
    text = _read_plain(value)
    if text is None:
        raise ValueError("a text is missing")
    return text


def _read_plain(value: Any) -> str | None:
    """Return text without control characters, or None."""
    text = read_text(value)
    if text is not None and not text.isprintable():
        raise ValueError("it has characters that cannot be printed")
    return text

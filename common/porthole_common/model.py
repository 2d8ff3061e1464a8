# SPDX-License-Identifier: Apache-2.0
"""The values that the daemons exchange: instance, console, connect_info.

Why: they cross the wire as dictionaries. Only here a dictionary from outside becomes a typed value (ports become
integers, C11), and a value becomes a dictionary. No I/O; called by every service.
"""

import hashlib
import re
import uuid
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from porthole_common.primitives import read_int, read_seconds, read_text, read_time

# 4096 slots spread evenly over any number of servers, and leave 110 random bits to a token.
_SLOT_DIGITS = 3
_MAX_PORT = 65535
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


class ConsoleType(StrEnum):
    """Console types, named as Nova names them."""

    NOVNC = "novnc"
    XVPVNC = "xvpvnc"


class ConsoleMode(StrEnum):
    """What a token lets its user do with the screen."""

    CONTROL = "control"
    VIEW = "view"


class InstanceState(StrEnum):
    """The state of an instance; the api maps it to Nova's server status."""

    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    BUILDING = "building"
    MIGRATING = "migrating"
    DELETING = "deleting"
    UNKNOWN = "unknown"


class TokenReason(StrEnum):
    """Why a token opens nothing, as the page and the log may say."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN = "unknown, expired or revoked"
    SPENT = "used as often as it may be"
    CONSOLE_TYPE = "for another console type"
    INSTANCE_GONE = "its instance has moved or stopped"
    OWNER_CHANGED = "its instance has another owner"


class RevocationReason(StrEnum):
    """Why the consoles of an instance on one host are over; the proxy has the words for the user."""

    ENDED = "ended"
    MOVED = "moved"
    OWNER_CHANGED = "owner_changed"


def is_uuid(text: str) -> bool:
    """Return whether ``text`` is exactly a lower-case canonical UUID (RFC 9562 section 4)."""
    return _UUID.fullmatch(text) is not None


def get_slot(instance_uuid: str) -> str:
    """Return the slot of an instance: three hexadecimal digits, from which its server in the token store follows."""
    return hashlib.sha256(instance_uuid.encode()).hexdigest()[:_SLOT_DIGITS]


def build_token(instance_uuid: str) -> str:
    """Return a new token for a console of the instance: a random UUID that begins with the instance's slot.

    So the server of a token, and of its instance's index, follows from the token alone. The slot is no secret, since it
    follows from the instance's UUID; the other 110 bits are random (RFC 9562 section 5.4).
    """
    return get_slot(instance_uuid) + str(uuid.uuid4())[_SLOT_DIGITS:]


def get_token_slot(token: str) -> str:
    """Return the slot with which a token of :func:`build_token` begins; another UUID has a slot too."""
    return token[:_SLOT_DIGITS]


@dataclass(frozen=True)
class Target:
    """The address of a VNC server. ``port`` is 1 to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``{host, port}``; the port may come as text.

        :raises ValueError: when the port is not a number from 1 to 65535.
        """
        port = read_int(value["port"], 1)
        if port > _MAX_PORT:
            raise ValueError(f"port {port} is out of range")
        return cls(str(value["host"]), port)

    def to_primitive(self) -> dict[str, Any]:
        """Return ``{host, port}``."""
        return {"host": self.host, "port": self.port}


@dataclass(frozen=True)
class Owner:
    """The project and the user that own an instance; both None for an instance without an owner."""

    project_id: str | None = None
    user_id: str | None = None

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``{project_id, user_id}``.

        :raises ValueError: when it is not a dictionary of texts.
        """
        if not isinstance(value, dict):
            raise ValueError("the owner is not a dictionary")
        return cls(read_text(value.get("project_id")), read_text(value.get("user_id")))

    def to_primitive(self) -> dict[str, str | None]:
        """Return ``{project_id, user_id}``."""
        return {"project_id": self.project_id, "user_id": self.user_id}


@dataclass(frozen=True)
class Claim:
    """The facts that a console was issued for, which must still be true whenever it is used.

    ``run`` names one run of the guest: opaque text of the compute host's driver, and another text after each start of
    the guest. ``owner`` is the owner of the instance, whoever asked for the console. Either is None in a claim that an
    older compute made, or an older consoleauth stored. None is not compared.
    """

    instance_uuid: str
    console_type: ConsoleType
    target: Target
    run: str | None = None
    owner: Owner | None = None

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``to_primitive``'s dictionary; the port may come as text.

        :raises KeyError: when a required key is missing.
        :raises ValueError: when a value does not parse.
        """
        owner = value.get("owner")
        return cls(
            instance_uuid=value["instance_uuid"],
            console_type=ConsoleType(value["console_type"]),
            target=Target.from_primitive(value),
            run=read_text(value.get("run")),
            owner=None if owner is None else Owner.from_primitive(owner),
        )

    def to_primitive(self) -> dict[str, Any]:
        """Return ``{instance_uuid, console_type, host, port, run, owner: {project_id, user_id}}``.

        ``run`` and ``owner`` are left out while they are None: an older compute does not know them.
        """
        value = {"instance_uuid": self.instance_uuid, "console_type": str(self.console_type)}
        return value | self.target.to_primitive() | _build_binding(self.run, self.owner)


def _build_binding(run: str | None, owner: Owner | None) -> dict[str, Any]:
    value: dict[str, Any] = {"run": run, "owner": owner and owner.to_primitive()}
    return {name: item for name, item in value.items() if item is not None}


# For thirty thousand instances, the search of the enumeration itself would take most of the time.
_CONSOLE_TYPES = {str(console_type): console_type for console_type in ConsoleType}
_STATES = {str(state): state for state in InstanceState}


@dataclass(frozen=True, slots=True)
class Instance:
    """One virtual machine as its compute host sees it.

    ``project_id`` and ``user_id`` are None for an instance without an owner, which only administrators see.
    ``console_types`` are those that the instance offers when it runs.
    """

    uuid: str
    name: str
    state: InstanceState
    project_id: str | None = None
    user_id: str | None = None
    console_types: tuple[ConsoleType, ...] = ()
    created_at: datetime | None = None

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``to_primitive``'s dictionary; keys of a newer version are ignored.

        :raises KeyError: when uuid, name or state is missing.
        """
        types = tuple(_CONSOLE_TYPES[name] for name in value.get("console_types", ()) if name in _CONSOLE_TYPES)
        created_at = value.get("created_at")
        return cls(
            uuid=value["uuid"],
            name=value["name"],
            state=_STATES.get(value["state"], InstanceState.UNKNOWN),
            project_id=value.get("project_id"),
            user_id=value.get("user_id"),
            console_types=types,
            created_at=datetime.fromisoformat(created_at) if created_at else None,
        )

    def to_primitive(self) -> dict[str, Any]:
        """Return ``{uuid, name, state, project_id, user_id, console_types: [...], created_at: ISO 8601 or None}``."""
        value = asdict(self)
        value["state"] = str(self.state)
        value["console_types"] = [str(name) for name in self.console_types]
        value["created_at"] = self.created_at.isoformat() if self.created_at else None
        return value


# Only consoleauth's answers have the first three keys, and an older daemon does not expect the others.
_LEFT_OUT = frozenset({"user_id", "project_id", "remaining_s", "run", "owner", "uses"})


@dataclass(frozen=True)
class ConnectInfo:
    """The answer of compute to ``get_vnc_console``, with which the proxy opens the console.

    ``token`` is a UUID in clear and stays out of every log and store; it is left out of ``repr``.
    ``run`` and ``owner`` are those of :class:`Claim`, as compute found them. ``mode`` is the user's wish, and so is
    ``uses``: how many sessions the token may open from now on, None for any number.
    consoleauth alone sets ``expires_at``, ``user_id`` and ``project_id``: the token was issued to that user. Its
    answer to ``check_token`` also has ``remaining_s``, the seconds that the token has left: ``expires_at`` is a time by
    another host's clock, which may be wrong. None from an older consoleauth.
    """

    instance_uuid: str
    console_type: ConsoleType
    host: str
    port: int
    access_url: str
    compute_host: str
    internal_access_path: str | None = None
    token: str | None = None
    expires_at: datetime | None = None
    user_id: str | None = None
    project_id: str | None = None
    run: str | None = None
    owner: Owner | None = None
    mode: ConsoleMode = ConsoleMode.CONTROL
    uses: int | None = None
    # It is another number at each look at the same console.
    remaining_s: float | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"ConnectInfo({self.console_type} of {self.instance_uuid} at {Target(self.host, self.port)})"

    @property
    def target(self) -> Target:
        """The VNC server this console was issued for."""
        return Target(self.host, self.port)

    @property
    def claim(self) -> Claim:
        """What compute must confirm at each use of this console."""
        return Claim(self.instance_uuid, self.console_type, self.target, self.run, self.owner)

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``to_primitive``'s dictionary.

        :raises KeyError: when a required key is missing.
        :raises ValueError: when console_type, port, expires_at, remaining_s, run, owner, mode or uses do not parse.
        """
        claim = Claim.from_primitive(value)
        expires_at, remaining_s, uses = (value.get(key) for key in ("expires_at", "remaining_s", "uses"))
        return cls(
            instance_uuid=claim.instance_uuid,
            console_type=claim.console_type,
            host=claim.target.host,
            port=claim.target.port,
            access_url=value["access_url"],
            compute_host=value["compute_host"],
            internal_access_path=value.get("internal_access_path"),
            token=value.get("token"),
            expires_at=read_time(expires_at) if expires_at else None,
            user_id=value.get("user_id"),
            project_id=value.get("project_id"),
            run=claim.run,
            owner=claim.owner,
            mode=ConsoleMode(value.get("mode", ConsoleMode.CONTROL)),
            uses=None if uses is None else read_int(uses, 0),
            remaining_s=None if remaining_s is None else read_seconds(remaining_s),
        )

    def to_primitive(self) -> dict[str, Any]:
        """Return the fields as a dictionary of primitives; ``expires_at`` is ISO 8601 with offset, or None.

        ``user_id``, ``project_id``, ``remaining_s``, ``run``, ``owner`` and ``uses`` are left out while they are None,
        and ``mode`` while it is control.
        """
        value = {name: item for name, item in vars(self).items() if item is not None or name not in _LEFT_OUT}
        value["console_type"] = str(self.console_type)
        value["expires_at"] = self.expires_at.isoformat() if self.expires_at else None
        value["mode"] = str(self.mode)
        if self.mode is ConsoleMode.CONTROL:
            del value["mode"]
        return value | _build_binding(self.run, self.owner)

# SPDX-License-Identifier: Apache-2.0
"""The descriptions that the daemons give of themselves for an examination, as plain values.

Why: some facts are known only inside a process, or at its place in the network: which memcached it uses, whether its
hypervisor answers, how many descriptors it may open, whether it reaches a VNC server. ``porthole doctor`` asks each
daemon over RPC, and the answers have these shapes. Only :func:`read_vitals` does I/O: it reads /proc. Each service's
endpoint makes them, and :mod:`porthole_cli.doctor` reads them.

A key that only a newer daemon knows is ignored, so that a doctor may be older than the daemons.
"""

import os
import resource
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from porthole_common.model import Target

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")


@dataclass(frozen=True)
class Vitals:
    """One process: ``now`` is its clock's aware time, ``descriptor_limit`` its RLIMIT_NOFILE.

    ``descriptors_needed`` is how many it opens at its own limits. ``node``, ``boot_id`` and ``network``
    (network_namespaces(7)) identify its machine and its network; ``boot_id`` is None where /proc is hidden.
    ``metrics_host`` is the address at which it serves its metrics, "" without metrics, or from an older daemon.
    """

    host: str
    pid: int
    version: str
    now: datetime
    descriptor_limit: int
    descriptors_needed: int
    node: str
    boot_id: str | None
    network: str
    metrics_host: str = ""

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``to_primitive``'s dictionary.

        :raises KeyError: when a key is missing.
        :raises ValueError: when ``now`` does not parse.
        """
        known = _known(cls, value)
        return cls(**{**known, "now": datetime.fromisoformat(value["now"]).astimezone(UTC)})

    def to_primitive(self) -> dict[str, Any]:
        """Return the fields; ``now`` in ISO 8601 with offset."""
        return {**asdict(self), "now": self.now.isoformat()}

    def shares_loopback(self, other: "Vitals") -> bool:
        """Return whether 127.0.0.1 is the same machine and network for both."""
        if self.network != other.network:
            return False
        if self.boot_id and other.boot_id:
            return self.boot_id == other.boot_id
        return self.node == other.node


@dataclass(frozen=True)
class Display:
    """A running instance's VNC server. ``listen`` is its own address, ``target`` the address that the proxy dials.

    ``share_policy`` is QEMU's (``sharePolicy`` of ``<graphics>``), None without one.
    """

    instance_uuid: str
    name: str
    listen: str | None
    target: Target
    share_policy: str | None = None

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``to_primitive``'s dictionary."""
        return cls(**{**_known(cls, value), "target": Target.from_primitive(value["target"])})

    def to_primitive(self) -> dict[str, Any]:
        """Return the fields, ``target`` as ``{host, port}``."""
        return asdict(self)


@dataclass(frozen=True)
class HostDescription:
    """A compute: its hypervisor, its options, and the displays of the instances that run.

    ``hypervisor`` is libvirt's URI or the static driver's file; ``refusal`` is empty, or why it does not answer.
    ``displays`` has a limit; ``more_displays`` is True when there are others. ``overdue`` holds the UUIDs of instances
    about which the hypervisor has not answered in time, and still does not.
    """

    vitals: Vitals
    driver: str
    hypervisor: str
    refusal: str
    server_listen: str
    proxyclient_address: str
    novncproxy_base_url: str
    displays: tuple[Display, ...] = ()
    more_displays: bool = False
    overdue: tuple[str, ...] = ()

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``to_primitive``'s dictionary."""
        return cls(
            **{
                **_known(cls, value),
                "vitals": Vitals.from_primitive(value["vitals"]),
                "displays": tuple(Display.from_primitive(item) for item in value["displays"]),
                "overdue": tuple(value.get("overdue", ())),
            }
        )

    def to_primitive(self) -> dict[str, Any]:
        """Return the fields, each value as its own ``to_primitive`` writes it."""
        displays = [display.to_primitive() for display in self.displays]
        return {**asdict(self), "vitals": self.vitals.to_primitive(), "displays": displays}


@dataclass(frozen=True)
class StoreRoom:
    """The memory of one memcached, and its ``evictions`` and ``refusals`` for want of room since it started.

    ``evicts``: without room, it deletes items that are in use, instead of refusing new ones (memcached's ``-M``).
    """

    used_bytes: int
    limit_bytes: int
    evictions: int
    refusals: int
    evicts: bool

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``asdict``'s dictionary."""
        return cls(**_known(cls, value))


class HistoryState(StrEnum):
    """What a consoleauth says of its history."""

    OK = "ok"
    OFF = "off"
    # The tables have another version than this release needs.
    SCHEMA = "schema"
    # It is a file, and there is a consoleauth on another host.
    NOT_SHARED = "not_shared"
    AWAY = "away"


@dataclass(frozen=True)
class StoreDescription:
    """A consoleauth: ``servers`` maps each server of its store to the reason why it does not answer, or "".

    ``rooms`` maps the servers that answer to their memory; a consoleauth of an older release does not say.
    ``token_ttl_s`` is for doctors of older releases, which need the key. ``history`` is a :class:`HistoryState`, or ""
    of an older release; ``history_reason`` says why it is not in order. ``spool_fill``: 0 to 1.
    """

    vitals: Vitals
    servers: dict[str, str]
    token_ttl_s: int
    rooms: dict[str, StoreRoom] = field(default_factory=dict)
    history: str = ""
    history_reason: str = ""
    spool_fill: float = 0.0

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``to_primitive``'s dictionary."""
        rooms = {name: StoreRoom.from_primitive(room) for name, room in value.get("rooms", {}).items()}
        return cls(**{**_known(cls, value), "vitals": Vitals.from_primitive(value["vitals"]), "rooms": rooms})

    def to_primitive(self) -> dict[str, Any]:
        """Return the fields, each value as its own ``to_primitive`` writes it."""
        return {**asdict(self), "vitals": self.vitals.to_primitive()}


@dataclass(frozen=True)
class CertificateDates:
    """The dates and names of a certificate; the dates are aware, ``names`` are its SANs."""

    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``to_primitive``'s dictionary."""
        before, after = (datetime.fromisoformat(value[key]).astimezone(UTC) for key in ("not_before", "not_after"))
        return cls(before, after, tuple(value["names"]))

    def to_primitive(self) -> dict[str, Any]:
        """Return the fields; the dates in ISO 8601 with offset."""
        return {
            "not_before": self.not_before.isoformat(),
            "not_after": self.not_after.isoformat(),
            "names": list(self.names),
        }


@dataclass(frozen=True)
class ProxyDescription:
    """A novncproxy: its pages, its TLS, and the proxies whose X-Forwarded-Proto it trusts.

    ``web`` is the web root, or empty; ``novnc`` is True when a noVNC is there, and ``novnc_version`` None when it has
    no version. ``certificate`` is that in the file now, None without one. ``spool_fill``: how full the process's spool
    of events is, 0 to 1.
    """

    vitals: Vitals
    web: str
    novnc: bool
    novnc_version: str | None
    certificate: CertificateDates | None
    ssl_only: bool
    trusted_proxies: tuple[str, ...]
    spool_fill: float = 0.0

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``to_primitive``'s dictionary."""
        certificate = value["certificate"]
        return cls(
            **{
                **_known(cls, value),
                "vitals": Vitals.from_primitive(value["vitals"]),
                "certificate": CertificateDates.from_primitive(certificate) if certificate else None,
                "trusted_proxies": tuple(value["trusted_proxies"]),
            }
        )

    def to_primitive(self) -> dict[str, Any]:
        """Return the fields, each value as its own ``to_primitive`` writes it."""
        certificate = self.certificate.to_primitive() if self.certificate else None
        return {**asdict(self), "vitals": self.vitals.to_primitive(), "certificate": certificate}


@dataclass(frozen=True)
class Reach:
    """The result of a proxy that dialled ``target``.

    ``problem`` is empty, ``refused``, ``silent``, or ``security``: ``[vnc] auth_schemes`` does not allow the server's
    security, and ``reason`` says why. ``security_types`` are the numbers that the VNC server offers (RFC 6143 section
    7.1.2), empty when it sent none.
    """

    target: Target
    problem: str
    security_types: tuple[int, ...] = ()
    reason: str = ""

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``to_primitive``'s dictionary."""
        target, types = Target.from_primitive(value["target"]), tuple(value["security_types"])
        return cls(target, value["problem"], types, value.get("reason", ""))

    def to_primitive(self) -> dict[str, Any]:
        """Return the fields, ``target`` as ``{host, port}``."""
        return asdict(self)


@dataclass(frozen=True)
class ApiDescription:
    """An api: ``silent_s`` maps each compute that it knows to the seconds since its last message.

    ``duplicates`` maps the UUID of an instance that runs on several hosts to those hosts; the first one's word counts.
    """

    vitals: Vitals
    silent_s: dict[str, float]
    duplicates: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def from_primitive(cls, value: dict[str, Any]) -> Self:
        """Build from ``to_primitive``'s dictionary."""
        return cls(**{**_known(cls, value), "vitals": Vitals.from_primitive(value["vitals"])})

    def to_primitive(self) -> dict[str, Any]:
        """Return the fields."""
        return {**asdict(self), "vitals": self.vitals.to_primitive()}


def read_vitals(host: str, descriptors_needed: int, metrics_host: str = "") -> Vitals:
    """Return this process's vitals; ``host`` is its ``[DEFAULT] host``, ``metrics_host`` the field of that name."""
    try:
        boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # ProcSubset=pid of a unit file hides it.
        boot_id = None
    return Vitals(
        host=host,
        pid=os.getpid(),
        version=find_version(),
        now=datetime.now(UTC),
        descriptor_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        descriptors_needed=descriptors_needed,
        node=os.uname().nodename,
        boot_id=boot_id,
        network=str(_NETWORK.readlink()),
        metrics_host=metrics_host,
    )


def find_version() -> str:
    """Return the version of the Porthole that is installed here, or ""."""
    try:
        return metadata.version("porthole")
    except metadata.PackageNotFoundError:
        return ""


def _known(cls: type, value: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    return {name: item for name, item in value.items() if name in names}
